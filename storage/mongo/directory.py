"""The list of a user's conversations, with the last message of each.

The cost of a list depends on what it shows. Conversations are read by an index (activity.py) that has each at the
position of its last message or above. Settled ones are at their right position. Active ones are looked up until no
further one can come before those that were found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from bson import Int64
from pymongo import ASCENDING, DESCENDING

from models.records import Cursor, Message, ReadPositions, Summary, conversation_of
from storage.mongo.activity import BY_TIME, SETTLED_AFTER, Activity, Settled
from storage.mongo.documents import RETENTION, Document
from storage.mongo.errors import MongoErrors
from storage.mongo.many import ManyConversations
from storage.mongo.positions import Positions

__all__ = ["MongoDirectory"]

LISTS = 2  # lists that are read at once; motor's other threads are for messages
CHUNK = 200  # conversations that are read and looked up at once
FIELDS = {"mutual": 1, "received": 1, "read": 1, "active": 1, "until": 1, "last": 1, "touched": 1}

Order = tuple[int, int]


class _Pair(NamedTuple):
    """A conversation of a user. `last` is its last message, None until that was read."""

    name: str
    peer: int
    time: int
    mutual: bool
    mine: ReadPositions
    theirs: ReadPositions
    first: int  # the last message has this seq or a greater one
    last: Message | None

    @property
    def order(self) -> Order:
        """The sort key of the conversation in a list."""
        return _order(self.time, self.peer)


class MongoDirectory:
    """The conversations of users, in motor's collection `conversations`.

    `many` reads their messages, `positions` and `activity` their other fields. `clock` returns seconds since the epoch.
    """

    def __init__(
        self,
        conversations: Any,
        many: ManyConversations,
        positions: Positions,
        activity: Activity,
        clock: Callable[[], float],
        errors: MongoErrors,
    ) -> None:
        self._conversations = conversations
        self._errors = errors
        self._many = many
        self._positions = positions
        self._activity = activity
        self._clock = clock
        self._turns = asyncio.Semaphore(LISTS)

    async def introduce(self, conversation: str) -> None:
        """Store that both users have written."""
        with self._errors():
            await self._conversations.update_one({"_id": conversation}, {"$set": {"mutual": True}})

    async def mutual(self, conversation: str) -> bool:
        """Return whether both users have written."""
        with self._errors():
            found = await self._conversations.find_one({"_id": conversation, "mutual": True}, {"_id": 1})
        return found is not None

    async def greatest_user(self) -> int:
        """Return the greatest id of a user with a conversation, 0 if there is none, from the end of an index."""
        with self._errors():
            last = await self._conversations.find({}, {"users": 1}).sort("users", DESCENDING).limit(1).to_list(1)
        return max((int(user) for pair in last for user in pair["users"]), default=0)

    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        """Return those of `peers` with whom `user` has a conversation, in which either may have written."""
        names = {conversation_of(user, peer): peer for peer in peers}
        with self._errors():
            found = await self._conversations.find({"_id": {"$in": list(names)}}, {"_id": 1}).to_list(None)
        return [names[pair["_id"]] for pair in found]

    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        """Return the user's conversations with unexpired messages, newest first; see `models.chat.ports.Directory`."""
        limited = {conversation_of(user, peer): seq for peer, seq in (upto or {}).items()}
        async with self._turns, self._snapshot() as snapshot:
            found = await self._settled(user, before, most, limited, snapshot)
            if limited:
                found |= await self._limited(user, before, limited)
            found |= await self._active(user, before, most, limited, found, snapshot)
            pairs = sorted(found.values(), key=lambda pair: pair.order)[:most]
            pairs = await self._with_last(pairs)
        return [
            Summary(pair.peer, pair.last, pair.mutual, pair.mine, pair.theirs)
            for pair in sorted(pairs, key=lambda pair: pair.order)
            if pair.last is not None
        ]

    @asynccontextmanager
    async def _snapshot(self) -> AsyncGenerator[Any, None]:
        """Return a session whose reads all see the documents as they were at its first read.

        Otherwise a conversation that is settled or announced between two reads could be in neither of them.
        """
        with self._errors():
            session = await self._conversations.database.client.start_session(snapshot=True)
        try:
            yield session
        finally:
            await session.end_session()

    async def _settled(
        self, user: int, before: Cursor | None, most: int, without: Mapping[str, int], snapshot: Any
    ) -> dict[str, _Pair]:
        """Return the first settled conversations, whose documents have the time of the last message."""
        times = {"$gt": int(self._clock() * 1000) - RETENTION}
        if before is not None:
            times["$lte"] = Int64(before.time)
        found: dict[str, _Pair] = {}
        query = {"users": user, "active": False, "until": times}
        last = 0
        pairs = self._pairs(query, [("until", DESCENDING)], min(most + 1, CHUNK), snapshot)
        async with aclosing(pairs) as parts:
            async for part in parts:
                for document in part:
                    pair = self._pair(user, document)
                    if len(found) >= most and pair.time < last:
                        return found
                    if pair.name not in without and _is_behind(pair.order, before):
                        found[pair.name], last = pair, pair.time  # up to and including all of the same time
        return found

    async def _active(
        self,
        user: int,
        before: Cursor | None,
        most: int,
        limited: Mapping[str, int],
        others: Mapping[str, _Pair],
        snapshot: Any,
    ) -> dict[str, _Pair]:
        """Return the first active conversations, looked up until no further one can come before them and `others`."""
        times = [pair.time for pair in others.values()]
        found: dict[str, _Pair] = {}
        query = {"users": user, "active": {"$in": [None, True]}}
        # Conversations without the field `active` come first.
        pairs = self._pairs(query, [("active", ASCENDING), ("until", DESCENDING)], CHUNK, snapshot)
        async with aclosing(pairs) as parts:
            async for part in parts:
                documents = [document for document in part if document["_id"] not in limited]
                last = await self._many.last(dict.fromkeys((document["_id"] for document in documents), None))
                quiet = filter(self._is_quiet, documents)
                await self._activity.settle([_settled(each, last.get(each["_id"])) for each in quiet])
                for document in documents:
                    message = last.get(document["_id"])
                    pair = self._pair(user, document, message)
                    if self._is_alive(message) and _is_behind(pair.order, before):
                        found[pair.name] = pair
                        times.append(pair.time)
                times = sorted(times, reverse=True)[:most]
                if part[-1].get("active") and len(times) == most and times[-1] > part[-1]["until"]:
                    break
        return found

    async def _limited(self, user: int, before: Cursor | None, limited: Mapping[str, int]) -> dict[str, _Pair]:
        """Return conversations of which only messages up to a `seq` count, so their position has to be looked up."""
        with self._errors():
            documents = await self._conversations.find({"_id": {"$in": list(limited)}}, FIELDS).to_list(None)
        last = await self._many.last({document["_id"]: limited[document["_id"]] for document in documents})
        found = [self._pair(user, each, last[each["_id"]]) for each in documents if each["_id"] in last]
        return {pair.name: pair for pair in found if self._is_alive(pair.last) and _is_behind(pair.order, before)}

    async def _with_last(self, pairs: list[_Pair]) -> list[_Pair]:
        """Return these conversations with their last messages. Those with wrong documents are marked as unknown."""
        missing = [pair for pair in pairs if pair.last is None]
        if not missing:
            return pairs
        last = await self._many.last(dict.fromkeys((pair.name for pair in missing), None))
        found = {pair.name: last.get(pair.name) for pair in missing}
        await self._activity.doubt([pair.name for pair in missing if _seq(found[pair.name]) != pair.first])
        return [
            pair if pair.last is not None else pair._replace(last=message, time=message.time)
            for pair in pairs
            if (message := pair.last or found[pair.name]) is not None
        ]

    def _is_alive(self, message: Message | None) -> bool:
        """Return whether there is a message, and it has not expired."""
        return message is not None and message.time > int(self._clock() * 1000) - RETENTION

    def _is_quiet(self, document: Document) -> bool:
        """Return whether a conversation can probably be settled; MongoDB decides."""
        if not document.get("active"):
            return True
        touched: datetime = document["touched"]
        return touched.timestamp() < self._clock() - SETTLED_AFTER

    async def _pairs(
        self, query: Document, order: list[tuple[str, int]], size: int, snapshot: Any
    ) -> AsyncGenerator[list[Document], None]:
        """Yield lists of up to `size` documents."""
        with self._errors():
            cursor = (
                self._conversations.find(query, FIELDS, session=snapshot).sort(order).hint(BY_TIME).batch_size(size)
            )
            try:
                while part := await cursor.to_list(size):
                    yield part
            finally:
                await cursor.close()

    def _pair(self, user: int, document: Document, last: Message | None = None) -> _Pair:
        name = document["_id"]
        one, _, other = name.partition("-")
        peer = int(other) if int(one) == user else int(one)
        return _Pair(
            name,
            peer,
            int(document.get("until", 0)) if last is None else last.time,
            bool(document.get("mutual")),
            self._positions.merged(document, name, user),
            self._positions.merged(document, name, peer),
            int(document.get("last", 0)),
            last,
        )


def _settled(document: Document, last: Message | None) -> Settled:
    """Return the last message of a conversation in the form that `settle` stores."""
    touched = document["touched"] if document.get("active") else None
    return Settled(document["_id"], touched, _seq(last), 0 if last is None else last.time)


def _order(time: int, peer: int) -> Order:
    """Return the sort key of a conversation in a list."""
    return (-time, peer)


def _is_behind(order: Order, before: Cursor | None) -> bool:
    return before is None or order > _order(*before)


def _seq(message: Message | None) -> int:
    return 0 if message is None else message.seq
