"""Acquaintances: two users who have both written to each other.

Whether a user is here, types, or gets a message at once is told to these alone: a stranger could otherwise watch over
anyone whose id it knows. That two have both written stays so, and is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from common.tasks import end
from models.chat.ports import Directory
from models.errors import EngineUnavailable
from models.records import conversation_of

__all__ = ["Acquaintances"]

KNOWN = 50_000  # conversations that are remembered
LOOKS = 64  # at a time, for what may be lost

_log = structlog.get_logger(__name__)


class Acquaintances:
    """Who has written to each other, as `directory` knows and this process remembers."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: set[str] = set()  # conversations in which both have written
        self._looking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Look no more."""
        await end(*self._looking)

    async def introduce(self, conversation: str) -> None:
        """Note for good that both have written. Raises EngineUnavailable."""
        await self._directory.introduce(conversation)
        self._note(conversation)

    async def acquainted(self, one: int, other: int) -> bool:
        """Whether both have written. Raises EngineUnavailable."""
        conversation = conversation_of(one, other)
        if conversation not in self._known:
            if not await self._directory.mutual(conversation):
                return False
            self._note(conversation)
        return True

    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        """Those of `peers` with whom `user` has a conversation, whoever has written. Raises EngineUnavailable."""
        return await self._directory.met(user, peers) if peers else []

    def if_acquainted(self, one: int, other: int, action: Callable[[], None]) -> None:
        """Do something that may be left out: at once or soon, if both have written and that can be known now."""
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
        except EngineUnavailable as error:
            _log.debug("acquaintance_unknown", one=one, other=other, reason=str(error))

    def _note(self, conversation: str) -> None:
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known.add(conversation)
