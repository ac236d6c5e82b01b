"""How far each user has received and read each conversation: fields of the pair's document in `conversations`.

Positions that clients send are written at once, in batches, and answered when they are durable. In protocol v1 a
delivered message counts as read, so positions move with nearly every message, and an update costs MongoDB more than two
inserts. So these are gathered, for half a second if few conversations are active, and for up to five seconds if many
are. A crash can lose what is gathered, and other processes do not see it yet. Then the messages are unread again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from pymongo import UpdateOne, WriteConcern

from common.batching import Batcher
from common.write_behind import WriteBehind
from models.errors import StorageUnavailable
from models.records import ReadPositions
from storage.mongo.documents import Document
from storage.mongo.errors import MongoErrors

__all__ = ["Positions"]

GATHER = 0.5  # seconds between two rounds in which gathered positions are written
ROUNDS = 10  # rounds within which each is written
LEAST = 200  # positions in a round, if there are so many
MAX_BATCH = 1000  # positions from clients in one write
CHUNK = 50  # gathered positions in one write
MAX_PENDING = 100_000  # gathered positions; further ones are dropped, and their messages stay unread

_log = structlog.get_logger(__name__)

Mark = tuple[str, int, ReadPositions]  # conversation, user, new positions


class Positions:
    """The positions in motor's collection `conversations`."""

    def __init__(self, conversations: Any, errors: MongoErrors) -> None:
        self._errors = errors
        # Written to a majority, since reads ask a majority: a position that is not pending any more has to be visible.
        self._conversations = conversations.with_options(write_concern=WriteConcern(w="majority"))
        self._pending: WriteBehind[tuple[str, int], int] = WriteBehind(  # seqs by conversation and user
            self._write,
            max,
            interval=GATHER,
            rounds=ROUNDS,
            least=LEAST,
            max_batch=CHUNK,
            max_keys=MAX_PENDING,
            outage=StorageUnavailable,
            on_outage=lambda count, error: _log.warning("positions_not_written", count=count, reason=str(error)),
        )
        self._commit: Batcher[Mark, tuple[ReadPositions, bool]] = Batcher(
            self._mark_batch, max_batch=MAX_BATCH, max_concurrent=1
        )

    async def positions(self, conversation: str, user: int) -> ReadPositions:
        """Return the positions of `user`, including pending ones."""
        fields = {f"received.{user}": 1, f"read.{user}": 1}
        with self._errors():
            record = await self._conversations.find_one({"_id": conversation}, fields)
        return self.merged(record or {}, conversation, user)

    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        """Move positions forward, durably, never backwards. Return the new positions, and whether they moved."""
        return await self._commit((conversation, user, positions))

    def move(self, conversation: str, user: int, seq: int) -> None:
        """Move both positions forward, with a later write of gathered positions."""
        self._pending.add((conversation, user), seq)

    async def close(self) -> None:
        """Write the pending positions, in one attempt."""
        await self._pending.close()

    def merged(self, record: Document, conversation: str, user: int) -> ReadPositions:
        """Return the positions in a document, moved forward by pending ones."""
        pending = self._pending.get((conversation, user)) or 0
        read = max(int(record.get("read", {}).get(str(user), 0)), pending)
        return ReadPositions(max(int(record.get("received", {}).get(str(user), 0)), read), read)

    async def _mark_batch(self, batch: Sequence[Mark]) -> list[tuple[ReadPositions, bool] | Exception]:
        outcomes: list[tuple[ReadPositions, bool] | Exception] = []
        updates = []
        with self._errors():
            names = list({conversation for conversation, _, _ in batch})
            found = await self._conversations.find({"_id": {"$in": names}}).to_list(None)
            records = {record["_id"]: record for record in found}
            reached: dict[tuple[str, int], ReadPositions] = {}
            for conversation, user, wanted in batch:
                key = (conversation, user)
                now = reached.get(key) or self.merged(records.get(conversation, {}), conversation, user)
                then = ReadPositions(max(now.received, wanted.received, wanted.read), max(now.read, wanted.read))
                if then != now:
                    updates.append(_update(conversation, user, then))
                reached[key] = then
                outcomes.append((then, then != now))
            if updates:
                await self._conversations.bulk_write(updates, ordered=False)
        return outcomes

    async def _write(self, moves: dict[tuple[str, int], int]) -> None:
        """Write gathered positions: few at a time, so that inserts do not wait behind a long write."""
        with self._errors():
            await self._conversations.bulk_write(
                [_update(conversation, user, ReadPositions(seq, seq)) for (conversation, user), seq in moves.items()],
                ordered=False,
            )


def _update(conversation: str, user: int, positions: ReadPositions) -> UpdateOne:
    return UpdateOne(
        {"_id": conversation}, {"$max": {f"received.{user}": positions.received, f"read.{user}": positions.read}}
    )
