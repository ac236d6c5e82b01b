"""Who talks with whom: the pairs of `conversations`, and the last message of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import DESCENDING

from models.records import Summary
from storage.documents import Document, alive, message_of, places, translated

__all__ = ["MongoDirectory"]

CHUNK = 200  # conversations whose last messages are read with one aggregate


class MongoDirectory:
    """The conversations of users, in two collections that motor provides; `clock` returns seconds since the epoch."""

    def __init__(self, conversations: Any, messages: Any, clock: Callable[[], float]) -> None:
        self._conversations = conversations
        self._messages = messages
        self._clock = clock

    async def introduce(self, conversation: str) -> None:
        """Notes that both users have written."""
        with translated():
            await self._conversations.update_one({"_id": conversation}, {"$set": {"mutual": True}})

    async def mutual(self, conversation: str) -> bool:
        """Whether both users have written."""
        with translated():
            found = await self._conversations.find_one({"_id": conversation, "mutual": True}, {"_id": 1})
        return found is not None

    async def conversations(self, user: int, before: int | None, most: int) -> list[Summary]:
        """The user's conversations with unexpired messages, newest first; see `models.ports.Directory`."""
        with translated():
            pairs = await self._conversations.find({"users": user}, {"mutual": 1}).to_list(None)
            mutual = {pair["_id"] for pair in pairs if pair.get("mutual")}
            names = [pair["_id"] for pair in pairs]
            last = []
            for start in range(0, len(names), CHUNK):
                last += await self._last(names[start : start + CHUNK])
        summaries = [
            Summary(
                message.recipient if message.sender == user else message.sender,
                message,
                message.conversation in mutual,
            )
            for message in map(message_of, last)
            if before is None or message.time < before
        ]
        summaries.sort(key=lambda summary: (-summary.last.time, summary.peer))
        return summaries[:most]

    async def _last(self, names: list[str]) -> list[Document]:
        """The last message of each conversation: one step backwards in each range, all in one aggregate."""
        steps = [
            [{"$match": places(name) | alive(self._clock())}, {"$sort": {"_id": DESCENDING}}, {"$limit": 1}]
            for name in names
        ]
        others = [{"$unionWith": {"coll": self._messages.name, "pipeline": pipeline}} for pipeline in steps[1:]]
        found: list[Document] = await self._messages.aggregate(steps[0] + others).to_list(None)
        return found
