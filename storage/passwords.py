"""Passwords: gin-chat-demo's bcrypt digests, in a few threads of low priority.

A hash takes a good part of a second of processor time, on purpose. Its threads therefore yield to the event loop and
to the engines (nice(2) is a matter of threads on Linux), and only so many callers wait for them. To be told that a
password is wrong takes as long for a name that nobody has, so that time tells nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from models.errors import EngineUnavailable

__all__ = ["COST", "Passwords"]

COST = 12  # bcrypt's, as gin-chat-demo's
NICENESS = 19  # the threads': the least of the processor's time

_DIGEST = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

Result = TypeVar("Result")


class Passwords:
    """Hashes passwords; `threads` at once, while at most `waiting` callers wait, each for up to `timeout` seconds.

    `cost` is bcrypt's.
    """

    def __init__(self, threads: int, waiting: int, timeout: float, cost: int = COST) -> None:
        self._timeout = timeout
        self._executor = ThreadPoolExecutor(threads, "password", initializer=_yield_to_others)
        self._room = asyncio.BoundedSemaphore(threads + waiting)
        self._cost = cost

    @property
    def busy(self) -> bool:
        """Whether so many wait that no more are taken."""
        return self._room.locked()

    async def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def digest(self, password: bytes) -> str:
        """The digest of a password of at most 72 bytes. Raises EngineUnavailable when too many wait."""
        return (await self._run(lambda: bcrypt.hashpw(password, bcrypt.gensalt(self._cost)))).decode()

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Whether a digest is this password's; None, or what is no digest, is nobody's.

        Takes as long in any case, for digests of a lower cost as well. Raises EngineUnavailable when too many wait.
        """
        return await self._run(lambda: self._matches(password, digest or ""))

    def _matches(self, password: bytes, digest: str) -> bool:
        form = _DIGEST.fullmatch(digest)
        try:
            matches = form is not None and bcrypt.checkpw(password, digest.encode())
        except ValueError:  # a cost or a salt that cannot be
            form, matches = None, False
        cost = int(form[1]) if form else self._cost
        if form is None:
            bcrypt.hashpw(password, bcrypt.gensalt(cost))
        # 2^c rounds were done, and 2^c + 2^(c+1) + … + 2^(cost-1) more make 2^cost.
        for missing in range(cost, self._cost):
            bcrypt.hashpw(password, bcrypt.gensalt(missing))
        return matches

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self.busy:
            raise EngineUnavailable("sign-in", "too many passwords are waiting to be checked")
        try:
            async with self._room, asyncio.timeout(self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError:
            raise EngineUnavailable("sign-in", "the password was not checked in time") from None


def _yield_to_others() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
