"""Who talks with whom: the list of conversations."""

from __future__ import annotations

from collections.abc import Callable

from models.records import Message, conversation_of
from storage.messages import MongoMessages
from tests.conftest import Clock


async def store(messages: MongoMessages, sender: int, recipient: int, seq: int, time: int) -> None:
    name = conversation_of(sender, recipient)
    await messages.reserve(name, seq)
    await messages.insert(Message(sender, recipient, seq, time, f"{seq}", seq.to_bytes(16, "big")))


async def test_newest_first(messages: MongoMessages, people: Callable[[int], list[int]], clock: Clock) -> None:
    """More than one aggregate's worth; pages by time; expired conversations are not there."""
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
        listed = await directory.conversations(me, listed[-1].last.time, 100)
        found += [summary.peer for summary in listed]
    assert peers == found
    clock.offset = 91 * 86_400
    assert await directory.conversations(me, None, 10) == []


async def test_introduced_once_both_have_written(messages: MongoMessages, pair: tuple[int, int], clock: Clock) -> None:
    """And it shows in the list and in the head."""
    name = conversation_of(*pair)
    await store(messages, *pair, 1, int(clock() * 1000))
    assert not await messages.directory.mutual(name)
    await messages.directory.introduce(name)
    assert await messages.directory.mutual(name)
    assert (await messages.head(name)).mutual
    assert [summary.mutual for summary in await messages.directory.conversations(pair[0], None, 1)] == [True]
