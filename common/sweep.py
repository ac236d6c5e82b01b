"""Looking at everybody again and again, and at whom something is known of at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from itertools import cycle

import structlog

__all__ = ["Sweep"]

# Looking at thousands in one go would keep all others waiting: a round has so many parts, a part looks of so many users
# at most, spread evenly over it.
PARTS = 16
BATCH = 100

_log = structlog.get_logger(__name__)


class Sweep:
    """Call `look` with each of `everybody` once every `interval` seconds, and with one soon after `mark_dirty`.

    A user is always in the same part of a round, so that nobody waits longer for the next look. `look` is never called
    twice at a time. While it raises an `outage`, `complaint` is logged once; other errors are logged as well: a
    bug must not end the rounds.
    """

    def __init__(
        self,
        interval: float,
        everybody: Callable[[], Collection[int]],
        look: Callable[[set[int]], Awaitable[None]],
        complaint: str,
        outage: type[Exception],
    ) -> None:
        self._interval = interval
        self._everybody = everybody
        self._look = look
        self._complaint = complaint
        self._outage = outage
        self._complained = False
        self._dirty: set[int] = set()
        self._woken = asyncio.Event()

    def mark_dirty(self, user: int) -> None:
        """Something about `user` has changed."""
        self._dirty.add(user)
        self._woken.set()

    async def run(self) -> None:
        """Looks. Never returns."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for part in cycle(range(PARTS)):
            users = [user for user in self._everybody() if user % PARTS == part]
            batches = [users[start : start + BATCH] for start in range(0, len(users) or 1, BATCH)]
            for batch in batches:
                await self._looked(set(batch))
                due = max(due + self._interval / PARTS / len(batches), loop.time())  # delays are not made up for
                while loop.time() < due:  # so everybody has a turn also if there are ever new dirty users
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await self._woken.wait()
                    await self._looked(set())

    async def _looked(self, users: set[int]) -> None:
        """Looks at these and at the dirty users, if there are any."""
        here = self._everybody()
        users |= {user for user in self._dirty if user in here}
        self._dirty.clear()
        self._woken.clear()
        if not users:
            return
        try:
            await self._look(users)
            self._complained = False
        except self._outage as error:
            if not self._complained:
                _log.warning(self._complaint, reason=str(error))
            self._complained = True
        except Exception:  # noqa: BLE001  # see the class
            _log.exception("round_failed")
