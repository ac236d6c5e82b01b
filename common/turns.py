"""Turns: so many reads ask the database at once, and of one user's long ones one after the other.

What is read shares the threads of the database's driver with what is stored, so a bound on reads is what lets messages
go first. A read that waits is cancelled by its deadline, or because its caller has gone, before anything was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class _Line:
    """The long reads of one user: those that wait, and the one that may go on."""

    __slots__ = ("length", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.length = 0


class Turns:
    """Up to `short` short reads and `long` long ones at once; the others wait, first come first served."""

    def __init__(self, short: int, long: int) -> None:
        self._short = asyncio.Semaphore(short)
        self._long = asyncio.Semaphore(long)
        self._lines: dict[int, _Line] = {}  # by user with long reads
        self.waiting = 0
        """How many reads wait for their turn."""

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
        """Hold a turn for a read of many conversations: one at a time for each user, however many are asked for."""
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
