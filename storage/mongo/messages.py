"""Messages in MongoDB, through motor, which no other module imports.

`messages` is a collection clustered by `_id` = {c: conversation, s: seq}. A conversation's messages are adjacent, in
the order of their `seq`. So a page is a range of `_id`, and a `seq` that is taken is a duplicate key. The unique index
over (conversation, key) recognises a message that is inserted again. `time` rises with `seq`, so a point in time is
found by bisection and needs no index.

`conversations` has one document for each pair of users:

    users       the two users, with an index
    reserved    no message is, or will ever be, stored above this seq
    base        after all messages had expired, the conversation continued above this seq (0 at first) …
    based       … as was decided at this time (milliseconds)
    received, read   the positions, by user id
    mutual      true once both users have written
    active, until, last, touched   when they last wrote (storage/mongo/activity.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bson import Binary, CodecOptions, Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import BulkWriteError, CollectionInvalid, DocumentTooLarge, OperationFailure
from pymongo.read_concern import ReadConcern

from common.batching import Batcher
from models.chat.ports import Conflict, Unread
from models.chat.stranger_limit import LIMIT
from models.errors import StorageUnavailable
from models.records import Head, Message, ReadPositions, UnreadStart
from storage.mongo.activity import BY_TIME, INDEX, Activity, announced
from storage.mongo.blocks import MongoBlocks
from storage.mongo.directory import MongoDirectory
from storage.mongo.documents import DAY, RETENTION, Document, alive, documents_of, id_of, id_range, message_of
from storage.mongo.errors import MongoErrors, refusal
from storage.mongo.many import ManyConversations
from storage.mongo.meta import UnsuitableMongoError, read_log
from storage.mongo.peers import MongoPeers
from storage.mongo.positions import Positions

__all__ = ["MongoMessages", "UnsuitableMongoError", "mongo_client"]

# MongoDB removes a message so long after it has expired. Until then, a process whose clock differs can still find the
# last `seq` of a conversation whose messages have expired.
SWEEP_AFTER = 2 * DAY
# All messages of a conversation count as gone so long after the newest has expired. This is longer than clocks differ,
# and shorter than SWEEP_AFTER.
GONE_AFTER = DAY
WHENEVER = 2**62  # milliseconds; announces messages of any time
RESERVE = 1000  # how many seqs are reserved at once, with one write of `conversations`
DUPLICATE_KEY = 11_000  # MongoDB's error code
NAMESPACE_EXISTS = 48  # MongoDB's error code for a collection that exists already

DURABLE = WriteConcern(w="majority", j=True)

Run = tuple[Message, ...]  # messages of one conversation with consecutive seqs
Failed = dict[int, dict[str, Any]]  # MongoDB's errors, by the message's index in the insert

OLDEST = [6, 0]  # the first version with clustered collections for general use


def mongo_client(url: str, timeout: float) -> AsyncIOMotorClient[Document]:
    """Return a client for `url`, with `timeout` (seconds) for finding a server and for each call.

    The driver does not retry inserts, since the chat retries them itself with the same seq.
    """
    milliseconds = int(timeout * 1000)
    return AsyncIOMotorClient(
        url,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        socketTimeoutMS=2 * milliseconds,
        waitQueueTimeoutMS=milliseconds,
        heartbeatFrequencyMS=1000,
        retryWrites=False,
        appname="tandem",
    )


class MongoMessages:
    """The stored messages of all conversations. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        client: AsyncIOMotorClient[Document],
        database: str,
        *,
        clock: Callable[[], float],
        max_batch: int,
        max_concurrent: int,
        max_blocks: int,
    ) -> None:
        self._database = client.get_database(
            database,
            codec_options=CodecOptions(tz_aware=True),
            read_concern=ReadConcern("majority"),
            write_concern=DURABLE,
            read_preference=ReadPreference.PRIMARY,
        )
        self._messages = self._database.messages
        self._conversations = self._database.conversations
        self._clock = clock
        self._errors = MongoErrors()
        self.log = ""  # the id of the log, set by `prepare`
        self._insert: Batcher[Run, Conflict | None] = Batcher(
            self._insert_batch, max_batch=max_batch, max_concurrent=max_concurrent, size=len
        )
        self._positions = Positions(self._conversations, self._errors)
        self._many = ManyConversations(self._messages, clock, self._errors)
        self._activity = Activity(self._conversations, self._errors)
        self.directory = MongoDirectory(
            self._conversations, self._many, self._positions, self._activity, clock, self._errors
        )
        self.peers = MongoPeers(self._database.servers, self._errors)
        self.blocks = MongoBlocks(self._database.blocks, self.newest, max_blocks, self._errors)

    async def prepare(self) -> None:
        """Create missing collections and indexes, and register this server. Raises UnsuitableMongoError."""
        with self._errors():
            version = (await self._database.command("buildInfo"))["versionArray"]
            hello = await self._database.command("hello")
            if version[:2] < OLDEST:
                raise UnsuitableMongoError(f"MongoDB {version[0]}.{version[1]} is too old; 6.0 or later is needed")
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise UnsuitableMongoError("this MongoDB is not a replica set; a replica set of one member is enough")
            await self._create_messages()
            await self._messages.create_index(
                [("conversation", ASCENDING), ("key", ASCENDING)], unique=True, name="key"
            )
            await self._conversations.create_index("users", name="users")
            await self._conversations.create_index(INDEX, name=BY_TIME)
            await self.blocks.prepare()
            await self._messages.create_index("endTime", expireAfterSeconds=SWEEP_AFTER // 1000, name="expiry")
        self.log = await read_log(self._database.meta, self._errors)
        await self.peers.join()

    async def _create_messages(self) -> None:
        """Create `messages` if needed, although several servers may start at once. Raises UnsuitableMongoError."""
        try:
            await self._database.create_collection("messages", clusteredIndex={"key": {"_id": 1}, "unique": True})
        except CollectionInvalid:  # the driver has found that it exists
            pass
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:  # that code means that another server was faster
                raise
        kept = await self._database.list_collections(filter={"name": "messages"})
        if not any("clusteredIndex" in each.get("options", {}) for each in await kept.to_list(1)):
            raise UnsuitableMongoError(
                "the collection messages is not clustered by _id: it belongs to another program, or was restored "
                "without its options; choose another --mongo-database, or restore it with its options"
            )

    async def ping(self) -> None:
        """Raise StorageUnavailable unless a primary answers."""
        with self._errors():
            hello = await self._database.command("hello")
            if not hello.get("isWritablePrimary"):
                raise StorageUnavailable("mongodb", "no primary")

    async def close(self) -> None:
        """Write the gathered positions."""
        await self._positions.close()

    async def head(self, conversation: str) -> Head:
        """Return the conversation's head. If all its messages are gone, it continues above the highest reserved seq."""
        now = int(self._clock() * 1000)
        with self._errors():
            while True:
                newest = (
                    await self._messages.find(id_range(conversation), {"sender": 1, "startTime": 1})
                    .sort("_id", DESCENDING)
                    .limit(LIMIT)
                    .to_list(LIMIT)
                )
                record = await self._conversations.find_one({"_id": conversation}) or {}
                reserved = int(record.get("reserved", 0))
                seq, time = (int(newest[0]["_id"]["s"]), int(newest[0]["startTime"])) if newest else (0, 0)
                if not reserved or time + RETENTION + GONE_AFTER > now:
                    break
                # All messages are gone, or none was ever stored. The first process that finds this sets `base`, above
                # which the conversation continues. The others, and this process at its next attempt, read the same
                # `base`. It is valid as long as a message that was stored above it would still be there.
                if seq <= record["base"] and record["based"] + RETENTION + GONE_AFTER > now:
                    return Head(int(record["base"]), now, reserved, (), record.get("mutual", False))
                await self._conversations.update_one(
                    {"_id": conversation, "reserved": reserved},
                    {"$set": {"base": reserved, "based": now}, "$inc": {"reserved": RESERVE}},
                )
        senders = tuple((int(m["sender"]), int(m["startTime"])) for m in newest)
        return Head(seq, time, reserved, senders, record.get("mutual", False))

    async def reserve(self, conversation: str, seq: int, until: int = WHENEVER) -> int:
        """Reserve seqs from `seq` on, before an insert tries one, and announce messages up to `until`.

        Returns the highest reserved seq.
        """
        announcement = announced(until)
        with self._errors():
            record = await self._conversations.find_one_and_update(
                {"_id": conversation},
                announcement
                | {
                    "$max": announcement["$max"] | {"reserved": Int64(seq + RESERVE - 1)},
                    "$setOnInsert": {
                        "base": Int64(0),
                        "based": Int64(self._clock() * 1000),
                        "users": [Int64(user) for user in conversation.split("-")],
                    },
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        return int(record["reserved"])

    async def announce(self, conversation: str, until: int) -> None:
        """Announce messages up to a time; see storage/mongo/activity.py."""
        await self._activity.announce(conversation, until)

    def insert(self, *run: Message) -> asyncio.Future[Conflict | None]:
        """Store messages of one conversation, in order; see `models.chat.ports.Messages.insert`."""
        return self._insert.submit(run)

    async def find(self, conversation: str, key: bytes) -> Message | None:
        """Return the stored message with this key; None if there is none."""
        with self._errors():
            found = await self._messages.find_one({"conversation": conversation, "key": Binary(key)})
        return None if found is None else message_of(found)

    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        """Return the unexpired messages with `first` <= seq <= `last`, ascending."""
        if last < 1:
            return []
        # The limit keeps the scan from reading beyond `last`.
        return await self._find(id_range(conversation, max(1, first), last), ASCENDING, last - max(1, first) + 1)

    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        """Return the first unexpired messages after `seq`, ascending, at most `most`."""
        return await self._find(id_range(conversation, seq + 1), ASCENDING, most)

    async def before(self, conversation: str, seq: int | None, most: int) -> list[Message]:
        """Return the last unexpired messages before `seq`, or of all if it is None, ascending, at most `most`."""
        found = await self._find(id_range(conversation, 0, None if seq is None else seq - 1), DESCENDING, most)
        return found[::-1]

    async def newest(self, conversation: str) -> int:
        """Return the last stored `seq`, 0 if there is none."""
        with self._errors():
            found = (
                await self._messages.find(id_range(conversation), {"_id": 1})
                .sort("_id", DESCENDING)
                .limit(1)
                .to_list(1)
            )
        return int(found[0]["_id"]["s"]) if found else 0

    async def last_before(self, conversation: str, time: int) -> int:
        """Return the last `seq` whose message is older than `time` (milliseconds), by bisection; 0 if there is none."""
        low, high = 0, await self.newest(conversation)
        if not high or await self._is_before(conversation, high, time):
            return high
        while high - low > 1:  # low is before `time`, high is not
            middle = (low + high) // 2
            if await self._is_before(conversation, middle, time):
                low = middle
            else:
                high = middle
        return low

    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        """Count the unexpired messages of `sender` up to the time `until` (milliseconds), at most `most`."""
        with self._errors():
            query = id_range(conversation) | {"sender": sender} | alive(self._clock())
            query["startTime"]["$lte"] = until
            return len(await self._messages.find(query, {"_id": 1}).sort("_id", DESCENDING).limit(most).to_list(most))

    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        """Return the position up to which `reader` has read, and the peer's first message after it."""
        read = (await self._positions.positions(conversation, reader)).read
        first = await self._find(id_range(conversation, read + 1) | {"sender": peer}, ASCENDING, 1)
        return UnreadStart(read, first[0].seq if first else None)

    async def unread(self, conversation: str, reader: int, peer: int, most: int) -> list[Message]:
        """Return the first messages of the peer that `reader` has not read, ascending, at most `most`."""
        read = (await self._positions.positions(conversation, reader)).read
        return await self._find(id_range(conversation, read + 1) | {"sender": peer}, ASCENDING, most)

    async def unread_counts(self, asked: Sequence[Unread], most: int) -> dict[str, int]:
        """Return the number of unread messages, up to `most`, of each conversation that has any."""
        return await self._many.unread(asked, most)

    async def newest_of(self, conversations: Sequence[str]) -> dict[str, int]:
        """Return the last `seq` of each conversation that ever had messages, 0 if all of them are gone.

        The document of a pair is written before its first message, so one query finds the others.
        """
        with self._errors():
            query = {"_id": {"$in": list(conversations)}}
            begun = [pair["_id"] for pair in await self._conversations.find(query, {"_id": 1}).to_list(None)]
        return dict.fromkeys(begun, 0) | await self._many.newest(begun)

    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        """Move positions forward, durably. Return the new positions, and whether they moved."""
        return await self._positions.mark(conversation, user, positions)

    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        """Move both positions forward, with a later write of gathered positions."""
        self._positions.move(conversation, reader, seq)

    async def _find(self, query: Document, direction: int, most: int) -> list[Message]:
        """Return the first unexpired messages that the query matches, in one direction of `_id`."""
        with self._errors():
            cursor = self._messages.find(query | alive(self._clock())).sort("_id", direction).limit(most)
            return [message_of(document) for document in await cursor.to_list(most)]

    async def _is_before(self, conversation: str, seq: int, time: int) -> bool:
        """Return whether the message at `seq` is older than `time`, which includes messages that were removed."""
        with self._errors():
            found = await self._messages.find_one({"_id": id_of(conversation, seq)}, {"startTime": 1})
        return found is None or found["startTime"] < time

    async def _insert_batch(self, runs: Sequence[Run]) -> list[Conflict | Exception | None]:
        """Insert all runs in order, with one insert if none fails. Return the outcome of each run."""
        failed = await self._insert_runs(runs, ordered=True)
        return await self._see_through(runs, failed) if failed else [None] * len(runs)

    async def _see_through(self, runs: Sequence[Run], failed: Failed) -> list[Conflict | Exception | None]:
        """Return the outcome of each run, after an ordered insert has ended at its first conflict.

        Messages after that conflict were not tried. So the first message of each run that is left is tried, unordered.
        This finds many conflicts at once, for example when all clients resend. Then all that is left is tried in order
        again, and so on.
        """
        outcomes: list[Conflict | Exception | None] = [None] * len(runs)
        left = dict.fromkeys(range(len(runs)), 0)  # unfinished runs, and how many messages of each are stored
        tried = [(i, k) for i, run in enumerate(runs) for k in range(len(run))]
        ordered = True
        try:
            while left:
                if ordered and failed:
                    tried = tried[: min(failed) + 1]
                obstacles = [tried[number] for number in failed]
                found = [self._outcome(runs[i][k], k, failed[n]) for n, (i, k) in zip(failed, obstacles, strict=True)]
                for (i, _), outcome in zip(obstacles, await asyncio.gather(*found), strict=True):
                    outcomes[i] = outcome
                left |= {i: k + 1 for i, k in tried}
                left = {i: k for i, k in left.items() if k < len(runs[i]) and outcomes[i] is None}
                ordered = not ordered
                tried = [
                    (i, k) for i, begin in left.items() for k in range(begin, len(runs[i]) if ordered else begin + 1)
                ]
                if tried:
                    failed = await self._insert_runs([(runs[i][k],) for i, k in tried], ordered=ordered)
        except StorageUnavailable as error:
            for i in left:  # not NotSent, since a part of the batch was sent
                outcomes[i] = StorageUnavailable(error.database, str(error))
        return outcomes

    async def _insert_runs(self, runs: Sequence[Run], *, ordered: bool) -> Failed:
        """Insert all messages of some runs. Return the errors of those that were not inserted.

        Raises StorageUnavailable if the outcome of any message is unknown.
        """
        with self._errors():
            return await self._insert_documents([each for run in runs for each in documents_of(run)], ordered=ordered)

    async def _insert_documents(self, documents: list[Document], *, ordered: bool) -> Failed:
        """Insert documents with MongoDB's command, which costs the driver less for each document than insert_many."""
        safe = DURABLE.document
        try:
            reply = await self._database.command(
                {"insert": "messages", "documents": documents, "ordered": ordered, "writeConcern": safe}
            )
        except DocumentTooLarge:  # raised before anything is sent: 16 MB are the most in a command, unless it is split
            return await self._insert_many(documents, ordered=ordered)
        if unknown := reply.get("writeConcernError"):
            raise _not_durable(unknown)
        return {failure["index"]: failure for failure in reply.get("writeErrors", ())}

    async def _insert_many(self, documents: list[Document], *, ordered: bool) -> Failed:
        """Insert documents with as many commands as they need."""
        try:
            await self._messages.insert_many(documents, ordered=ordered)
        except BulkWriteError as error:
            if unknown := error.details.get("writeConcernErrors"):
                raise _not_durable(unknown[0]) from error
            return {failure["index"]: failure for failure in error.details["writeErrors"]}
        return {}

    async def _outcome(self, message: Message, index: int, failure: dict[str, Any]) -> Conflict | Exception:
        """Return the outcome of a message that was not inserted, at `index` of its run."""
        try:
            if failure["code"] != DUPLICATE_KEY:
                with self._errors():
                    raise refusal(failure["code"], failure["errmsg"])
            return Conflict(await self._existing(message), index)
        except StorageUnavailable as error:
            return error

    async def _existing(self, message: Message) -> Message:
        """Return the message with the same key, that is its first copy, or the one with the same seq."""
        with self._errors():
            found = await self._messages.find_one({"conversation": message.conversation, "key": Binary(message.key)})
            if found is None:
                found = await self._messages.find_one({"_id": id_of(message.conversation, message.seq)})
        if found is None:  # written, but not on a majority yet
            raise StorageUnavailable("mongodb", "the seq is taken by a write that is not on a majority yet")
        return message_of(found)


def _not_durable(failure: Document) -> StorageUnavailable:
    """Return the error for documents that are written, but perhaps not on a majority."""
    return StorageUnavailable("mongodb", str(failure.get("errmsg")))
