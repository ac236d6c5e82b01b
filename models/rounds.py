"""Looking at everybody again and again, and at whom something is known of at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

__all__ = ["Rounds"]

_log = structlog.get_logger(__name__)


class Rounds:
    """Calls `look` with None, for everybody, every `interval` seconds, and with a set of users soon after `suspect`.

    `look` is never called twice at a time. What it raises is logged: a bug must not end the rounds.
    """

    def __init__(self, interval: float, look: Callable[[set[int] | None], Awaitable[None]]) -> None:
        self._interval = interval
        self._look = look
        self._suspects: set[int] = set()
        self._suspicion = asyncio.Event()

    def suspect(self, user: int) -> None:
        """Something about `user` has changed."""
        self._suspects.add(user)
        self._suspicion.set()

    async def run(self) -> None:
        """Looks. Never returns."""
        loop = asyncio.get_running_loop()
        everybody = loop.time() + self._interval
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(everybody):
                    await self._suspicion.wait()
            suspects, self._suspects = self._suspects, set()
            self._suspicion.clear()
            if loop.time() >= everybody:  # also if there are ever new suspects
                await self._looked(None)
                everybody = loop.time() + self._interval
            else:
                await self._looked(suspects)

    async def _looked(self, users: set[int] | None) -> None:
        try:
            await self._look(users)
        except Exception:  # noqa: BLE001  # see the class
            _log.exception("round_failed")
