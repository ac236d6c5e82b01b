"""Write-behind: changes are collected for a while, merged by key, and written together, so many keys at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Generic, TypeVar

import structlog

from common.tasks import end

__all__ = ["WriteBehind"]

Key = TypeVar("Key")
Value = TypeVar("Value")

_log = structlog.get_logger(__name__)


class WriteBehind(Generic[Key, Value]):
    """Collect changes, and call `write` with them in rounds: the first is `interval` seconds after the first change.

    A round writes the keys that have waited longest: `least`, or more if some would otherwise wait for more than
    `rounds` rounds. So many keys that change all the time are written less often than few.

    Changes that an outage keeps from being written stay pending, before all others. A change that was being written
    when its batch failed may be written twice.

    Args:
        write: Writes a batch. If it may fail halfway, it deletes from the batch what it has written.
        merge: Returns the sum of an earlier and a later change of the same key.
        interval: Seconds between two rounds.
        rounds: The most rounds until a change is written, if none of them fails. With 1, each round writes all changes.
        least: How many keys a round writes if so many have changes.
        max_batch: The most keys in one call of `write`.
        max_keys: The most keys with pending changes. Changes of further ones are dropped.
        outage: The exception that `write` raises in an outage. Other exceptions are logged and change nothing else.
        on_outage: Called with the number of keys that were not written, and with the exception.
    """

    def __init__(
        self,
        write: Callable[[dict[Key, Value]], Awaitable[None]],
        merge: Callable[[Value, Value], Value],
        *,
        interval: float,
        rounds: int = 1,
        least: int = 1,
        max_batch: int,
        max_keys: int,
        outage: type[Exception],
        on_outage: Callable[[int, Exception], None],
    ) -> None:
        self._write = write
        self._merge = merge
        self._interval = interval
        self._rounds = rounds
        self._least = least
        self._max_batch = max_batch
        self._max_keys = max_keys
        self._outage = outage
        self._on_outage = on_outage
        self._pending: dict[Key, Value] = {}  # in the order of each key's first change
        self._writing: dict[Key, Value] = {}  # what a flush has taken from `_pending` and not written yet
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many keys have changes that are not written."""
        return len(self._pending.keys() | self._writing.keys())

    def get(self, key: Key) -> Value | None:
        """Return the change of a key that is not written yet, None if there is none."""
        writing, pending = self._writing.get(key), self._pending.get(key)
        if writing is None or pending is None:
            return pending if writing is None else writing
        return self._merge(writing, pending)

    def pending(self, key: Key) -> Value | None:
        """Return the change of a key that no write has taken yet, None if there is none.

        The caller may alter it, which is faster than another change.
        """
        return self._pending.get(key)

    def add(self, key: Key, value: Value) -> None:
        """Write a change, soon."""
        earlier = self._pending.get(key)
        if earlier is not None:
            self._pending[key] = self._merge(earlier, value)
        elif key in self._writing or len(self._pending) + len(self._writing) < self._max_keys:
            self._pending[key] = value
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Write the pending changes, in one attempt."""
        if self._task is not None:
            await end(self._task)
        await self._flush(len(self._pending))

    async def _run(self) -> None:
        # The share of the pending keys that each of the last rounds had to write. Later rounds write as many, so that
        # its keys are written in time even if fewer become pending.
        shares: deque[int] = deque(maxlen=self._rounds)
        try:
            while self._pending:
                await asyncio.sleep(self._interval)
                shares.append(-(-len(self._pending) // self._rounds))
                try:
                    await self._flush(max(self._least, *shares))
                except Exception:  # noqa: BLE001  # the changes are pending again
                    _log.exception("changes_not_written")
        finally:
            self._task = None

    async def _flush(self, count: int) -> None:
        """Write so many pending changes, the oldest ones. What fails is pending again, also if this is cancelled."""
        self._writing = {key: self._pending.pop(key) for key in tuple(islice(self._pending, count))}
        try:
            while self._writing:
                batch = dict(islice(self._writing.items(), self._max_batch))
                keys = tuple(batch)
                try:
                    await self._write(batch)
                    batch.clear()
                finally:
                    for key in keys:
                        if key not in batch:
                            del self._writing[key]
        except self._outage as error:
            self._on_outage(len(self._writing), error)
        finally:
            if self._writing:
                later, self._pending, self._writing = self._pending, self._writing, {}
                for key, value in later.items():
                    earlier = self._pending.get(key)
                    self._pending[key] = value if earlier is None else self._merge(earlier, value)
