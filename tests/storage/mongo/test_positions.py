"""Tests of read positions: gathering, merging and writing."""

from __future__ import annotations

from models.records import conversation_of
from storage.mongo.messages import MongoMessages
from storage.mongo.positions import LEAST
from tests.support.sockets import until


async def written(messages: MongoMessages, name: str) -> dict[str, int]:
    record = await messages._conversations.find_one({"_id": name})
    return record.get("read", {}) if record else {}


async def test_positions_are_written_soon(messages: MongoMessages, pair: tuple[int, int]) -> None:
    """Gathered positions are written soon, and only move forward."""
    name = conversation_of(*pair)
    await messages.reserve(name, 1)
    for seq in (3, 10, 5):
        messages.mark_read(name, pair[0], seq)
    assert messages._positions._pending.get((name, pair[0])) == 10
    await until(lambda: not messages._positions._pending)
    assert {str(pair[0]): 10} == await written(messages, name)
    messages.mark_read(name, pair[0], 4)
    await messages._positions.close()
    assert {str(pair[0]): 10} == await written(messages, name)


async def test_what_is_pending_counts(messages: MongoMessages, pair: tuple[int, int]) -> None:
    """A pending position is visible to readers."""
    name = conversation_of(*pair)
    messages.mark_read(name, pair[0], 7)
    assert (await messages.unread_start(name, pair[0], pair[1])).read == 7


async def test_closing_writes(messages: MongoMessages, pair: tuple[int, int]) -> None:
    """`close` writes the gathered positions."""
    name = conversation_of(*pair)
    await messages.reserve(name, 1)
    messages.mark_read(name, pair[0], 7)
    await messages.close()
    assert {str(pair[0]): 7} == await written(messages, name)


async def test_many_positions_take_several_rounds(messages: MongoMessages, pair: tuple[int, int]) -> None:
    """Of many positions a round writes the oldest. Readers in this process see the others, and all are written."""
    pending, (first, peer) = messages._positions._pending, pair
    names = [conversation_of(first, peer + number) for number in range(LEAST * 4)]
    for name in (names[0], names[-1]):
        await messages.reserve(name, 1)
    for name in names:
        messages.mark_read(name, first, 7)
    await until(lambda: len(pending) <= LEAST * 3)
    assert {str(first): 7} == await written(messages, names[0])
    assert (await messages.unread_start(names[-1], first, peer)).read == 7
    await messages.close()
    assert {str(first): 7} == await written(messages, names[-1])
