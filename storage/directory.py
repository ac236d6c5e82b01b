"""Who talks with whom: the pairs of `conversations`, and the last message of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from pymongo import DESCENDING

from models.records import Cursor, Summary, conversation_of
from storage.documents import Document, translated
from storage.many import ManyConversations
from storage.positions import Positions

__all__ = ["MongoDirectory"]

LISTS = 2  # lists that are read at once: the other threads of motor are there for messages

FIELDS = {"mutual": 1, "users": 1, "received": 1, "read": 1}


class MongoDirectory:
    """The conversations of users, in two collections that motor provides.

    `positions` are those of the same conversations, `clock` returns seconds since the epoch.
    """

    def __init__(self, conversations: Any, messages: Any, positions: Positions, clock: Callable[[], float]) -> None:
        self._conversations = conversations
        self._positions = positions
        self._many = ManyConversations(messages, clock)
        self._turns = asyncio.Semaphore(LISTS)

    async def introduce(self, conversation: str) -> None:
        """Notes that both users have written."""
        with translated():
            await self._conversations.update_one({"_id": conversation}, {"$set": {"mutual": True}})

    async def mutual(self, conversation: str) -> bool:
        """Whether both users have written."""
        with translated():
            found = await self._conversations.find_one({"_id": conversation, "mutual": True}, {"_id": 1})
        return found is not None

    async def greatest_user(self) -> int:
        """The greatest id of a user who has a conversation, 0 if there is none; the end of an index."""
        with translated():
            last = await self._conversations.find({}, {"users": 1}).sort("users", DESCENDING).limit(1).to_list(1)
        return max((int(user) for pair in last for user in pair["users"]), default=0)

    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        """The user's conversations with unexpired messages, newest first; see `models.ports.Directory`."""
        async with self._turns:
            with translated():
                pairs = await self._conversations.find({"users": user}, FIELDS).to_list(None)
            shown = {conversation_of(user, peer): seq for peer, seq in (upto or {}).items()}
            last = await self._many.last({pair["_id"]: shown.get(pair["_id"]) for pair in pairs})
        found = []
        for pair in pairs:
            message = last.get(pair["_id"])
            if message is None:
                continue
            peer = message.recipient if message.sender == user else message.sender
            if before is None or _order(message.time, peer) > _order(*before):
                found.append((_order(message.time, peer), pair, message, peer))
        found.sort(key=lambda entry: entry[0])
        return [self._summary(user, pair, message, peer) for _, pair, message, peer in found[:most]]

    def _summary(self, user: int, pair: Document, message: Any, peer: int) -> Summary:
        return Summary(
            peer,
            message,
            bool(pair.get("mutual")),
            mine=self._positions.merged(pair, pair["_id"], user),
            theirs=self._positions.merged(pair, pair["_id"], peer),
        )


def _order(time: int, peer: int) -> tuple[int, int]:
    """Where a conversation stands in a list."""
    return (-time, peer)
