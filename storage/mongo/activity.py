"""When a conversation last had a message: fields in `conversations`, with an index by which lists are read.

    active    true while messages may be stored; false if none was for a while; absent in documents of a version without
              this field, where nothing is known
    until     no message is newer than this (milliseconds); if `active` is false, this is the time of the last message
    last      if `active` is false: the `seq` of the last message, 0 if all have expired
    touched   when messages were last announced, by MongoDB's clock

Before a message is stored it is announced: on a majority, `active` is set and `until` is raised above its time. An
announcement covers a minute, so a busy conversation costs one small write a minute. In the index, a conversation is at
the position of its last message or above, whichever process dies at any time. So a list never misses one.

A list looks up the last messages of active conversations. It settles those for which nothing was announced for some
minutes, long enough for every attempt to store an announced message. MongoDB checks that in the same step by its own
clock, so the processes' clocks do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bson import Int64
from pymongo import DESCENDING, UpdateOne

from common.batching import Batcher
from models.chat.pipeline import ANNOUNCED_FOR
from storage.mongo.documents import Document
from storage.mongo.errors import MongoErrors

__all__ = ["BY_TIME", "INDEX", "SETTLED_AFTER", "Activity", "Settled", "announced"]

BY_TIME = "newest"
INDEX = [("users", 1), ("active", 1), ("until", DESCENDING)]
SETTLED_AFTER = 5 * ANNOUNCED_FOR  # seconds; by then announced messages have an outcome or were announced again
MAX_BATCH = 500

Announced = tuple[str, int]  # conversation, until


class Settled(NamedTuple):
    """The last message of an active conversation, and `touched` of its document at that time, None if absent."""

    conversation: str
    touched: Any
    seq: int
    time: int


def announced(until: int) -> Document:
    """Return the part of an update that announces messages up to a time."""
    return {"$max": {"until": Int64(until)}, "$set": {"active": True}, "$currentDate": {"touched": True}}


class Activity:
    """When the conversations in motor's collection `conversations` last had a message."""

    def __init__(self, conversations: Any, errors: MongoErrors) -> None:
        self._errors = errors
        self._conversations = conversations
        self._commit: Batcher[Announced, None] = Batcher(self._announce, max_batch=MAX_BATCH, max_concurrent=1)

    async def announce(self, conversation: str, until: int) -> None:
        """Announce messages up to a time, durably, in a batch."""
        await self._commit((conversation, until))

    async def settle(self, found: Sequence[Settled]) -> None:
        """Store the last messages of those conversations for which nothing was announced for a while."""
        if not found:
            return
        before = {"$subtract": ["$$NOW", int(SETTLED_AFTER * 1000)]}
        updates = []
        for each in found:
            quiet = {"active": None} if each.touched is None else {"touched": each.touched, "active": True}
            due = {} if each.touched is None else {"$expr": {"$lt": ["$touched", before]}}
            stands = {"active": False, "until": Int64(each.time), "last": Int64(each.seq)}
            updates.append(UpdateOne({"_id": each.conversation, **quiet, **due}, {"$set": stands}))
        with self._errors():
            await self._conversations.bulk_write(updates, ordered=False)

    async def doubt(self, conversations: Sequence[str]) -> None:
        """Mark settled conversations whose documents are wrong, so that they are looked up again."""
        if conversations:
            with self._errors():
                await self._conversations.update_many(
                    {"_id": {"$in": list(conversations)}, "active": False}, {"$unset": {"active": True}}
                )

    async def _announce(self, batch: Sequence[Announced]) -> list[Exception | None]:
        with self._errors():
            await self._conversations.bulk_write(
                [UpdateOne({"_id": conversation}, announced(until)) for conversation, until in batch], ordered=False
            )
        return [None] * len(batch)
