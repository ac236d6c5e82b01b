"""Tests of queries about many conversations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.chat.ports import Unread
from models.records import Message, conversation_of
from storage.mongo.errors import MongoErrors
from storage.mongo.many import ManyConversations
from storage.mongo.messages import MongoMessages
from tests.storage.mongo.test_directory import store
from tests.support.clocks import Clock


@pytest.fixture
def many(mongo: Any, clock: Clock) -> ManyConversations:
    """Queries of the messages."""
    return ManyConversations(mongo.messages, clock, MongoErrors())


async def test_the_last_message_of_each(
    messages: MongoMessages, many: ManyConversations, people: Callable[[int], list[int]], clock: Clock
) -> None:
    """The last message of each conversation is found, over several aggregates, up to a seq, and if expired."""
    me, *peers = people(230)
    names = [conversation_of(me, peer) for peer in peers]
    now = int(clock() * 1000)
    for peer, name in zip(peers, names, strict=True):
        await messages.reserve(name, 3)
        await messages.insert(*(Message(peer, me, seq, now, "x", seq.to_bytes(16, "big")) for seq in (1, 2, 3)))
    found = await many.last(dict.fromkeys(names, None) | {names[0]: 2, names[1]: 0, "0-0": None})
    assert {name: message.seq for name, message in found.items()} == {names[0]: 2} | dict.fromkeys(names[2:], 3)
    assert await many.newest([*names, "0-0"]) == dict.fromkeys(names, 3)
    clock.offset = 91 * 86_400
    assert len(await many.last(dict.fromkeys(names, None))) == len(names)
    assert await many.newest(names) == dict.fromkeys(names, 3)


async def test_what_is_unread(
    messages: MongoMessages, many: ManyConversations, people: Callable[[int], list[int]], clock: Clock
) -> None:
    """Unread messages are the peer's after a position and up to a seq, counted up to a limit."""
    me, one, two = people(3)
    first, second = conversation_of(me, one), conversation_of(me, two)
    now = int(clock() * 1000)
    for seq in range(1, 11):
        await store(messages, one if seq % 2 else me, me if seq % 2 else one, seq, now)
    await store(messages, me, two, 1, now)
    assert await many.unread([Unread(first, one, 0), Unread(second, two, 0)], 100) == {first: 5}
    assert await many.unread([Unread(first, one, 4)], 100) == {first: 3}
    assert await many.unread([Unread(first, one, 4, 7)], 100) == {first: 2}
    assert await many.unread([Unread(first, one, 0)], 4) == {first: 4}
    assert await many.unread([Unread(first, one, 9)], 4) == {}
    assert await many.unread([], 4) == {}
