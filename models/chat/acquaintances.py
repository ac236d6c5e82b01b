"""Acquaintances: two users who have both written to each other.

Presence, typing and whether a message reached a socket at once are shown to acquaintances only. Otherwise a stranger
could watch every user whose id they know. That two users have both written never changes, so it is cached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from common.tasks import end
from models.chat.ports import Directory
from models.errors import StorageUnavailable
from models.records import conversation_of

__all__ = ["Acquaintances"]

KNOWN = 50_000  # conversations in the cache
LOOKS = 64  # concurrent look-ups for `if_acquainted`; further ones are dropped

_log = structlog.get_logger(__name__)


class Acquaintances:
    """Which users have written to each other, from `directory` and a cache."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: set[str] = set()  # conversations in which both have written
        self._looking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Cancel the look-ups in progress."""
        await end(*self._looking)

    @property
    def idle(self) -> bool:
        """Whether no look-up is in progress."""
        return not self._looking

    async def introduce(self, conversation: str) -> None:
        """Record for good that both have written. Raises StorageUnavailable."""
        await self._directory.introduce(conversation)
        self._note(conversation)

    async def acquainted(self, one: int, other: int) -> bool:
        """Return whether both have written. Raises StorageUnavailable."""
        conversation = conversation_of(one, other)
        if conversation not in self._known:
            if not await self._directory.mutual(conversation):
                return False
            self._note(conversation)
        return True

    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        """Return those of `peers` with whom `user` has a conversation, whichever of them wrote.

        Raises StorageUnavailable.
        """
        return await self._directory.met(user, peers) if peers else []

    def if_acquainted(self, one: int, other: int, action: Callable[[], None]) -> None:
        """Call an optional action, now or soon, if both have written. Skip it if that cannot be known now."""
        if conversation_of(one, other) in self._known:
            action()
        elif len(self._looking) < LOOKS:
            task = asyncio.get_running_loop().create_task(self._look(one, other, action))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look(self, one: int, other: int, action: Callable[[], None]) -> None:
        try:
            if await self.acquainted(one, other):
                action()
        except StorageUnavailable as error:
            _log.debug("acquaintance_unknown", one=one, other=other, reason=str(error))

    def _note(self, conversation: str) -> None:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known.add(conversation)
