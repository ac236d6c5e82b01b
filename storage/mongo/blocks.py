"""Blocks in MongoDB: one document for each, beside the conversations that they are about.

    _id     {by, of}: who has blocked whom
    by      the same, with an index
    upto    the last `seq` of their conversation then

They lie where the messages lie, so that whoever can send a message can also learn that it must not be sent.
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
CONCURRENT = 4

Pair = tuple[int, int]
Ends = tuple[int | None, int | None]


class MongoBlocks:
    """Blocks in a collection that motor provides; `newest` tells the last `seq` of a conversation.

    A user may have up to `most`.
    """

    def __init__(self, blocks: Any, newest: Callable[[str], Awaitable[int]], most: int, errors: MongoErrors) -> None:
        self._blocks = blocks
        self._errors = errors
        self._newest = newest
        self._most = most
        self._look_up: Batcher[Pair, Ends] = Batcher(self._between, max_batch=BATCH, max_concurrent=CONCURRENT)

    async def prepare(self) -> None:
        """Creates the index that is missing."""
        with self._errors():
            await self._blocks.create_index("by", name="by")

    async def block(self, user: int, peer: int) -> int:
        """Keeps a block, and the last `seq` with it, which it returns; that of the first time, when it is there."""
        upto = await self._newest(conversation_of(user, peer))
        with self._errors():
            done = await self._blocks.update_one(
                {"_id": _name(user, peer)},
                {"$setOnInsert": {"by": Int64(user), "upto": Int64(upto)}},
                upsert=True,
            )
            # Counted afterwards: of many at once none may slip past the bound.
            count = await self._blocks.count_documents({"by": Int64(user)}, limit=self._most + 1)
            if done.upserted_id is not None and count > self._most:
                await self._blocks.delete_one({"_id": _name(user, peer)})
                raise Forbidden(f"more than {self._most} users cannot be blocked")
            kept = await self._blocks.find_one({"_id": _name(user, peer)})
        return int(kept["upto"]) if kept else upto

    async def unblock(self, user: int, peer: int) -> None:
        """Lifts a block."""
        with self._errors():
            await self._blocks.delete_one({"_id": _name(user, peer)})

    async def between(self, one: int, other: int) -> Ends:
        """The last `seq` of then for the block of each by the other, None where there is none."""
        return await self._look_up((one, other))

    async def newest(self, one: int, other: int) -> int:
        """The last `seq` of the conversation of two."""
        return await self._newest(conversation_of(one, other))

    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        """The blocks of these users: whom each has blocked, and the last `seq` of then."""
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
