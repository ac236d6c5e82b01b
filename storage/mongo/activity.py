"""When a pair has written last: fields of its document in `conversations`, by an index over which lists are read.

    active    true while messages may be stored; false when none has been for a while. Not there: written by a version
              that did not know of this, and nothing is known
    until     no message is newer than this (milliseconds); where `active` is false, the last one is of just this time
    last      where `active` is false: the `seq` of the last message, 0 if there is none any more
    touched   when messages were announced last, by MongoDB's clock

Before a message is stored it is announced: `active` is set and `until` raised above its time, on a majority. That is
good for a minute, so a conversation that is written all the time costs one small write a minute. In the index it stands
where its last message puts it, or above, whichever process dies when: a list misses none.

A list looks up the last messages of active pairs, and settles those for which nothing was announced for some minutes:
long enough for every attempt to store what was announced. MongoDB decides that in the same step and by its own clock,
so that the clocks of processes do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bson import Int64
from pymongo import DESCENDING, UpdateOne

from common.batching import Batcher
from models.chat.inserting import ANNOUNCED_FOR
from storage.mongo.documents import Document
from storage.mongo.errors import MongoErrors

__all__ = ["BY_TIME", "INDEX", "SETTLED_AFTER", "Activity", "Settled", "announced"]

BY_TIME = "newest"
INDEX = [("users", 1), ("active", 1), ("until", DESCENDING)]
SETTLED_AFTER = 5 * ANNOUNCED_FOR  # seconds; attempts that were announced have an outcome, or are announced again
MAX_BATCH = 500

Announced = tuple[str, int]  # conversation, until


class Settled(NamedTuple):
    """Where an active conversation was found to stand; `touched` is what its document said then, None if nothing."""

    conversation: str
    touched: Any
    seq: int
    time: int


def announced(until: int) -> Document:
    """The part of an update that announces messages up to a time."""
    return {"$max": {"until": Int64(until)}, "$set": {"active": True}, "$currentDate": {"touched": True}}


class Activity:
    """When the pairs in `conversations`, a collection that motor provides, have written last."""

    def __init__(self, conversations: Any, errors: MongoErrors) -> None:
        self._errors = errors
        self._conversations = conversations
        self._commit: Batcher[Announced, None] = Batcher(self._announce, max_batch=MAX_BATCH, max_concurrent=1)

    async def announce(self, conversation: str, until: int) -> None:
        """Announces messages up to a time, durably; with whatever else is announced at this moment."""
        await self._commit((conversation, until))

    async def settle(self, found: Sequence[Settled]) -> None:
        """Notes where conversations stand for which nothing was announced for a while; leaves out all others."""
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
        """Has conversations looked up again that do not stand where their documents say."""
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
