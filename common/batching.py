"""Group commit: many callers that each await one item, few batches in flight.

While as many batches as may fly are in flight, items gather; the first batch that lands takes what has
gathered along. There is no timer: an item that comes alone leaves at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["GroupCommit"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Item, Outcome]):
    """Gathers items into batches for `commit`.

    `commit` takes a batch and returns one outcome for each item, in order; an outcome that is an exception
    is raised to that item's caller alone, an exception that `commit` raises to the callers of all its items.
    A batch holds items of up to `max_batch` in all, by their `size`; one that is larger travels alone.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        max_batch: int,
        max_flights: int,
        size: Callable[[Item], int] = lambda item: 1,
    ) -> None:
        self._size = size
        self._commit = commit
        self._max_batch = max_batch
        self._max_flights = max_flights
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._flying = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def __call__(self, item: Item) -> Outcome:
        """Commits `item` with whatever else there is, and returns its outcome."""
        return await self.submit(item)

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return len(self._waiting)

    def submit(self, item: Item) -> asyncio.Future[Outcome]:
        """The same, for callers that do not wait; items are committed in the order of these calls."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flying < self._max_flights:
            self._flying += 1
            task = asyncio.get_running_loop().create_task(self._fly())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _fly(self) -> None:
        try:
            while self._waiting:
                batch: list[tuple[Item, asyncio.Future[Outcome]]] = []
                room = self._max_batch
                while self._waiting and (room >= self._size(self._waiting[0][0]) or not batch):
                    item, future = self._waiting.popleft()
                    if not future.done():  # else its caller was cancelled
                        batch.append((item, future))
                        room -= self._size(item)
                if batch:
                    await self._land(batch)
        finally:
            # At once, not when the task's callbacks run: a caller in between would wait for a flight that is over.
            self._flying -= 1

    async def _land(self, batch: Sequence[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._commit([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # it belongs to the callers, each of whom gets it
            outcomes = [error] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
