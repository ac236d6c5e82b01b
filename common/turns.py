"""Turns, which limit how many reads of the database are in progress, and of a user's long reads to one at a time.

Reads share the threads of the database's driver with inserts, so a limit on reads lets inserts go first. A queued read
can be cancelled before it reaches the database, by its deadline or because its caller has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class _Line:
    """The long reads of one user: the one in progress and the queued ones."""

    __slots__ = ("length", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.length = 0


class Turns:
    """Allow up to `short` short reads and `long` long reads at once. The others queue, first in, first out."""

    def __init__(self, short: int, long: int) -> None:
        self._short = asyncio.Semaphore(short)
        self._long = asyncio.Semaphore(long)
        self._lines: dict[int, _Line] = {}  # by user with long reads
        self.waiting = 0
        """How many reads are queued."""

    @asynccontextmanager
    async def short(self) -> AsyncIterator[None]:
        """Hold a turn for a read of one conversation."""
        await self._wait(self._short)
        try:
            yield
        finally:
            self._short.release()

    @asynccontextmanager
    async def long(self, user: int) -> AsyncIterator[None]:
        """Hold a turn for a read of many conversations. Each user has one such turn at a time."""
        line = self._lines.setdefault(user, _Line())
        line.length += 1
        try:
            await self._wait(line.lock)
            try:
                await self._wait(self._long)
                try:
                    yield
                finally:
                    self._long.release()
            finally:
                line.lock.release()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[user]

    async def _wait(self, for_what: asyncio.Semaphore | asyncio.Lock) -> None:
        self.waiting += 1
        try:
            await for_what.acquire()
        finally:
            self.waiting -= 1
