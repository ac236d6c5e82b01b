"""Tests of read positions: gathering, merging and writing."""

from __future__ import annotations

import asyncio
from typing import Any

from models.records import conversation_of
from storage.mongo.messages import MongoMessages
from storage.mongo.positions import LEAST
from tests.support.patience import PATIENCE


async def written(mongo: Any, name: str) -> dict[str, int]:
    record = await mongo.conversations.find_one({"_id": name})
    return record.get("read", {}) if record else {}


async def test_positions_are_written_soon(messages: MongoMessages, mongo: Any, pair: tuple[int, int]) -> None:
    """Gathered positions are written soon, and only move forward."""
    name = conversation_of(*pair)
    await messages.reserve(name, 1)
    for seq in (3, 10, 5):
        messages.mark_read(name, pair[0], seq)
    assert (await messages.unread_start(name, *pair)).read == 10
    async with asyncio.timeout(PATIENCE):
        while await written(mongo, name) != {str(pair[0]): 10}:
            await asyncio.sleep(0.01)
    messages.mark_read(name, pair[0], 4)
    await messages.close()
    assert {str(pair[0]): 10} == await written(mongo, name)


async def test_what_is_pending_counts(messages: MongoMessages, pair: tuple[int, int]) -> None:
    """A pending position is visible to readers."""
    name = conversation_of(*pair)
    messages.mark_read(name, pair[0], 7)
    assert (await messages.unread_start(name, pair[0], pair[1])).read == 7


async def test_closing_writes(messages: MongoMessages, mongo: Any, pair: tuple[int, int]) -> None:
    """`close` writes the gathered positions."""
    name = conversation_of(*pair)
    await messages.reserve(name, 1)
    messages.mark_read(name, pair[0], 7)
    await messages.close()
    assert {str(pair[0]): 7} == await written(mongo, name)


async def test_many_positions_take_several_rounds(messages: MongoMessages, mongo: Any, pair: tuple[int, int]) -> None:
    """Of many positions a round writes the oldest. Readers in this process see the others, and all are written."""
    first, peer = pair
    names = [conversation_of(first, peer + number) for number in range(LEAST * 4)]
    for name in (names[0], names[-1]):
        await messages.reserve(name, 1)
    for name in names:
        messages.mark_read(name, first, 7)
    oldest: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE):
        while not oldest:
            newest, oldest = await written(mongo, names[-1]), await written(mongo, names[0])
            assert oldest or not newest
    assert oldest == {str(first): 7}
    assert (await messages.unread_start(names[-1], first, peer)).read == 7
    await messages.close()
    assert {str(first): 7} == await written(mongo, names[-1])
    await mongo.conversations.delete_many({"_id": {"$in": names}})  # a server would not start with users of the future
