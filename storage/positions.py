"""Read positions, gathered for a moment and written together.

A position moves with nearly every message, and an update costs MongoDB more than twice an insert. What a crash
can take is one moment's movement forward: the messages concerned count as unread once more.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import PyMongoError

__all__ = ["Positions"]

GATHER = 0.5  # seconds between two writes
MAX_BATCH = 1000  # positions in one write
MAX_PENDING = 100_000  # positions that wait; what finds no room counts as unread once more

_log = structlog.get_logger(__name__)


class Positions:
    """Read positions on their way to `conversations`, a collection that motor provides."""

    def __init__(self, conversations: Any) -> None:
        # A majority, since reads ask one: what is no longer pending must be visible.
        self._conversations = conversations.with_options(write_concern=WriteConcern(w="majority"))
        self._pending: dict[tuple[str, int], int] = {}
        self._task: asyncio.Task[None] | None = None

    def pending(self, conversation: str, user: int) -> int:
        """The position that waits to be written, 0 if none does."""
        return self._pending.get((conversation, user), 0)

    def move(self, conversation: str, user: int, seq: int) -> None:
        """Moves a position forward; backwards is nowhere."""
        key = (conversation, user)
        if len(self._pending) >= MAX_PENDING and key not in self._pending:
            return
        self._pending[key] = max(seq, self._pending.get(key, 0))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Writes what is pending, once."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._write()

    async def _run(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(GATHER)
                await self._write()
        finally:
            self._task = None

    async def _write(self) -> None:
        batch = dict(list(self._pending.items())[:MAX_BATCH])
        if not batch:
            return
        updates = [
            UpdateOne({"_id": conversation}, {"$max": {f"read.{user}": seq}})
            for (conversation, user), seq in batch.items()
        ]
        try:
            await self._conversations.bulk_write(updates, ordered=False)
        except PyMongoError as error:
            _log.warning("positions_not_written", count=len(batch), reason=str(error))
            return
        for key, seq in batch.items():
            if self._pending.get(key) == seq:
                del self._pending[key]
