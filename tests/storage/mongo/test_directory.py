"""Tests of the list of conversations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorCursor

from models.records import Cursor, Message, ReadPositions, Summary, conversation_of
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages, mongo_client
from tests.support.clocks import Clock


async def store(messages: MongoMessages, sender: int, recipient: int, seq: int, time: int) -> None:
    name = conversation_of(sender, recipient)
    await messages.reserve(name, seq)
    await messages.insert(Message(sender, recipient, seq, time, f"{seq}", seq.to_bytes(16, "big")))


async def test_newest_first(messages: MongoMessages, people: Callable[[int], list[int]], clock: Clock) -> None:
    """A list is in order of time, by pages and over several aggregates, without expired conversations."""
    me, *peers = people(460)
    now = int(clock() * 1000)
    for index, peer in enumerate(peers):
        await store(messages, peer, me, 1, now - 1000 * index - 500)
        await messages.insert(Message(me, peer, 2, now - 1000 * index, "last", bytes(16)))
    await store(messages, peers[0], peers[1], 1, now)
    directory = messages.directory
    listed = await directory.conversations(me, None, 10)
    assert peers[:10] == [summary.peer for summary in listed]
    assert {summary.last.content for summary in listed} == {"last"}
    found = [summary.peer for summary in listed]
    while listed:
        listed = await directory.conversations(me, Cursor(listed[-1].last.time), 100)
        found += [summary.peer for summary in listed]
    assert peers == found
    clock.offset = 91 * 86_400
    assert await directory.conversations(me, None, 10) == []


def after_the_first_read(
    monkeypatch: pytest.MonkeyPatch, read_list: Callable[[], Awaitable[list[Summary]]], length: int
) -> None:
    """Have another list read, which has to have this length, when the driver has done its next read."""
    to_list = AsyncIOMotorCursor.to_list

    async def then_the_other(cursor: Any, most: int | None) -> Any:
        monkeypatch.setattr(AsyncIOMotorCursor, "to_list", to_list)
        found = await to_list(cursor, most)
        assert len(await read_list()) == length
        return found

    monkeypatch.setattr(AsyncIOMotorCursor, "to_list", then_the_other)


@pytest.mark.parametrize(("count", "most"), [(1, 100), (11, 11), (60, 50), (60, 100)])
async def test_two_lists_at_once(
    messages: MongoMessages,
    mongo: Any,
    people: Callable[[int], list[int]],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    most: int,
) -> None:
    """A list misses no conversation that another list settles between its two reads."""
    me, *peers = people(count + 1)
    now = int(clock() * 1000)
    for index, peer in enumerate(peers):
        await store(messages, peer, me, 1, now - 1000 * index)
    directory = messages.directory
    await mongo.conversations.update_many({"users": me}, {"$unset": {"active": 1}})  # as written by an old version
    after_the_first_read(monkeypatch, lambda: directory.conversations(me, None, 100), count)
    assert [summary.peer for summary in await directory.conversations(me, None, most)] == peers[:most]


@pytest.mark.parametrize("most", [1, 3, 5])
async def test_a_list_of_another_process_at_once(
    messages: MongoMessages,
    mongo: Any,
    people: Callable[[int], list[int]],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    """A full page misses no conversation that another process settles between its two reads."""
    me, *peers = people(6)
    now = int(clock() * 1000)
    for index, peer in enumerate(peers):
        await store(messages, peer, me, 1, now - 1000 * index)
    directory = messages.directory
    other = MongoMessages(mongo.client, "tandem", clock=clock, max_batch=1, max_concurrent=1, max_blocks=3)
    elsewhere = other.directory
    await mongo.conversations.update_many({"users": me}, {"$unset": {"active": 1}})
    assert len(await elsewhere.conversations(me, None, 100)) == 5  # all are settled now
    await mongo.conversations.update_one({"_id": conversation_of(me, peers[0])}, {"$unset": {"active": 1}})
    after_the_first_read(monkeypatch, lambda: elsewhere.conversations(me, None, 100), 5)
    assert [summary.peer for summary in await directory.conversations(me, None, most)] == peers[:most]


@pytest.mark.parametrize("most", [1, 7, 100])
async def test_pages_of_one_millisecond(
    messages: MongoMessages, people: Callable[[int], list[int]], clock: Clock, most: int
) -> None:
    """Conversations whose last messages have the same time are listed once each, by pages of any size."""
    me, *peers = people(40)
    now = int(clock() * 1000)
    for number, peer in enumerate(peers):
        await store(messages, me, peer, 1, now - number // 30)  # thirty with the same time, then nine
    found: list[Summary] = []
    before = None
    while page := await messages.directory.conversations(me, before, most):
        found += page
        before = Cursor(page[-1].last.time, page[-1].peer)
    assert [summary.peer for summary in found] == peers
    by_time_alone = await messages.directory.conversations(me, Cursor(now), 100)
    assert [summary.peer for summary in by_time_alone] == peers[30:]


async def test_up_to_a_block(messages: MongoMessages, people: Callable[[int], list[int]], clock: Clock) -> None:
    """Only messages before a block count, for the last message and the order, and without any there is no entry."""
    me, one, two, three = people(4)
    now = int(clock() * 1000)
    for seq, time in ((1, now - 10), (2, now)):
        await store(messages, one, me, seq, time)
    await store(messages, two, me, 1, now - 5)
    await store(messages, three, me, 1, now)
    listed = await messages.directory.conversations(me, None, 10, {one: 1, three: 0})
    assert [(summary.peer, summary.last.seq) for summary in listed] == [(two, 1), (one, 1)]


async def test_positions_come_along(messages: MongoMessages, pair: tuple[int, int], clock: Clock) -> None:
    """A list has the positions of both users, including pending ones."""
    name = conversation_of(*pair)
    await store(messages, *pair, 1, int(clock() * 1000))
    await messages.mark(name, pair[0], ReadPositions(1, 0))
    messages.mark_read(name, pair[1], 1)
    (listed,) = await messages.directory.conversations(pair[0], None, 1)
    assert (listed.mine, listed.theirs) == (ReadPositions(1, 0), ReadPositions(1, 1))


async def test_introduced_once_both_have_written(messages: MongoMessages, pair: tuple[int, int], clock: Clock) -> None:
    """A conversation is mutual after `introduce`, in the list and in the head."""
    name = conversation_of(*pair)
    await store(messages, *pair, 1, int(clock() * 1000))
    assert not await messages.directory.mutual(name)
    await messages.directory.introduce(name)
    assert await messages.directory.mutual(name)
    assert (await messages.head(name)).mutual
    assert [summary.mutual for summary in await messages.directory.conversations(pair[0], None, 1)] == [True]


async def test_the_greatest_user(addresses: Addresses, clock: Clock) -> None:
    """`greatest_user` compares ids as numbers, and reads the end of an index."""
    client = mongo_client(addresses.mongo, timeout=5)
    store = MongoMessages(client, "greatest_user", clock=clock, max_batch=1, max_concurrent=1, max_blocks=3)
    await store.prepare()
    try:
        assert await store.directory.greatest_user() == 0
        for one, other in ((7, 900), (2, 1000), (3, 2**63 - 1), (4, 5)):
            await store.reserve(conversation_of(one, other), 1)
        assert await store.directory.greatest_user() == 2**63 - 1
    finally:
        await client.drop_database("greatest_user")
        client.close()
