"""Blocks in MongoDB, with one document for each.

    _id     {by, of}: the user who blocks, and the blocked user
    by      the user who blocks, with an index
    upto    the last `seq` of their conversation at the time of the block

They are in the same database as the messages, so a process that can store a message can also check for a block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bson import Int64

from common.batching import Batcher
from models.errors import Forbidden
from models.records import conversation_of
from storage.mongo.documents import Document
from storage.mongo.errors import MongoErrors

__all__ = ["MongoBlocks"]

BATCH = 500  # pairs, or users, in one query
CONCURRENT = 4  # queries for pairs

Pair = tuple[int, int]
Ends = tuple[int | None, int | None]


class MongoBlocks:
    """The blocks in motor's collection `blocks`. A user may have up to `most`.

    `newest` returns the last `seq` of a conversation.
    """

    def __init__(self, blocks: Any, newest: Callable[[str], Awaitable[int]], most: int, errors: MongoErrors) -> None:
        self._blocks = blocks
        self._errors = errors
        self._newest = newest
        self._most = most
        self._look_up: Batcher[Pair, Ends] = Batcher(self._between, max_batch=BATCH, max_concurrent=CONCURRENT)

    async def prepare(self) -> None:
        """Create the index if it is missing."""
        with self._errors():
            await self._blocks.create_index("by", name="by")

    async def block(self, user: int, peer: int) -> int:
        """Store a block with the conversation's last `seq`, and return that. A repeated block keeps its first `seq`."""
        upto = await self._newest(conversation_of(user, peer))
        with self._errors():
            done = await self._blocks.update_one(
                {"_id": _name(user, peer)},
                {"$setOnInsert": {"by": Int64(user), "upto": Int64(upto)}},
                upsert=True,
            )
            # Counted afterwards, so that concurrent blocks cannot exceed the limit.
            count = await self._blocks.count_documents({"by": Int64(user)}, limit=self._most + 1)
            if done.upserted_id is not None and count > self._most:
                await self._blocks.delete_one({"_id": _name(user, peer)})
                raise Forbidden(f"more than {self._most} users cannot be blocked")
            kept = await self._blocks.find_one({"_id": _name(user, peer)})
        return int(kept["upto"]) if kept else upto

    async def unblock(self, user: int, peer: int) -> None:
        """Remove a block."""
        with self._errors():
            await self._blocks.delete_one({"_id": _name(user, peer)})

    async def between(self, one: int, other: int) -> Ends:
        """Return the stored `seq` of `one`'s block of `other`, and of `other`'s of `one`; None without a block."""
        return await self._look_up((one, other))

    async def newest(self, one: int, other: int) -> int:
        """Return the last `seq` of two users' conversation."""
        return await self._newest(conversation_of(one, other))

    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        """Return the blocks of each of these users: the stored `seq` by blocked user."""
        found: dict[int, dict[int, int]] = {}
        for start in range(0, len(users), BATCH):
            query = {"by": {"$in": [Int64(user) for user in users[start : start + BATCH]]}}
            with self._errors():
                for block in await self._blocks.find(query).to_list(None):
                    found.setdefault(int(block["by"]), {})[int(block["_id"]["of"])] = int(block["upto"])
        return found

    async def _between(self, pairs: Sequence[Pair]) -> list[Ends | Exception]:
        names = [_name(*ends) for one, other in pairs for ends in ((one, other), (other, one))]
        with self._errors():
            found = await self._blocks.find({"_id": {"$in": names}}).to_list(None)
        kept = {(int(block["_id"]["by"]), int(block["_id"]["of"])): int(block["upto"]) for block in found}
        return [(kept.get((one, other)), kept.get((other, one))) for one, other in pairs]


def _name(user: int, peer: int) -> Document:
    return {"by": Int64(user), "of": Int64(peer)}
