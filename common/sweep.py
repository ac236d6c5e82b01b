"""A periodic check of all users, and an early one of users who have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from itertools import cycle

import structlog

__all__ = ["Sweep"]

# Checking thousands of users at once would delay all other work. So a sweep has so many parts of equal length, and each
# part checks its users in batches, evenly spread over its time.
PARTS = 16
BATCH = 100  # users in one call of `look`

_log = structlog.get_logger(__name__)


class Sweep:
    """Call `look` with each user every `interval` seconds, and with a user soon after `mark_dirty`.

    A user is always in the same part of a sweep, so that no user waits longer than `interval`. There is one call of
    `look` at a time.

    Args:
        interval: Seconds between two checks of a user.
        users: Returns the users to check.
        look: Checks a set of users.
        complaint: The log event for an outage; it is logged once, until `look` succeeds again.
        outage: The exception that `look` raises in an outage. Other exceptions are logged and do not end the sweep.
    """

    def __init__(
        self,
        interval: float,
        users: Callable[[], Collection[int]],
        look: Callable[[set[int]], Awaitable[None]],
        complaint: str,
        outage: type[Exception],
    ) -> None:
        self._interval = interval
        self._users = users
        self._look = look
        self._complaint = complaint
        self._outage = outage
        self._complained = False
        self._dirty: set[int] = set()
        self._woken = asyncio.Event()

    def mark_dirty(self, user: int) -> None:
        """Check a user soon, since something about the user has changed."""
        self._dirty.add(user)
        self._woken.set()

    async def run(self) -> None:
        """Sweep, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for part in cycle(range(PARTS)):
            users = [user for user in self._users() if user % PARTS == part]
            batches = [users[start : start + BATCH] for start in range(0, len(users) or 1, BATCH)]
            for batch in batches:
                await self._looked(set(batch))
                due = max(due + self._interval / PARTS / len(batches), loop.time())  # lost time is not made up for
                while loop.time() < due:  # has an end, so new dirty users do not delay the others' check
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(due):
                            await self._woken.wait()
                    await self._looked(set())

    async def _looked(self, users: set[int]) -> None:
        """Call `look` with these users and the dirty ones, if there are any."""
        present = self._users()
        users |= {user for user in self._dirty if user in present}
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
        except Exception:  # noqa: BLE001  # an error must not end the sweep
            _log.exception("round_failed")
