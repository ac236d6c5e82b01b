"""Tests of loading: what is read is kept, and newer knowledge is not overwritten."""

from __future__ import annotations

import asyncio

from models.records import Head, Message
from tests.support.chats import GatedMessages, active, loader_of


async def test_a_late_answer_takes_nothing_back() -> None:
    """Of two concurrent reads, the later answer does not undo what happened in between."""
    store, (conversations, conversation) = GatedMessages(), active(1, 2)
    loader = loader_of(conversations, store, lambda: 0.0)
    first, second = (asyncio.ensure_future(loader.head(conversation)) for _ in range(2))
    await asyncio.sleep(0)
    store.gate.set()
    assert (await first).seq == 5
    conversation.advance(Message(1, 2, 6, 60, "", b""))
    assert (await second).seq >= 5
    assert conversation.head is not None
    assert conversation.head.seq == 6
    assert (await loader.head(conversation)).seq == 6
    assert store.read == 2


async def test_a_head_that_may_have_expired_is_read_again() -> None:
    """A head whose message may have expired is read again: only the store knows the next seq."""
    store, (conversations, conversation) = GatedMessages(), active(1, 2)
    store.gate.set()
    now = [0.0]
    loader = loader_of(conversations, store, lambda: now[0])
    await loader.head(conversation)
    assert conversation.delivered_seq == 5
    now[0] = 91 * 86_400.0
    store.heads.append(Head(1005, int(now[0] * 1000), 2000, ()))
    assert (await loader.head(conversation)).seq == 1005
    assert conversation.delivered_seq == 5  # the sockets have been given it


async def test_a_head_that_fell_behind_while_it_was_read_again() -> None:
    """A head that was read is used, also if the earlier one was forgotten meanwhile."""
    store, (conversations, conversation) = GatedMessages(), active(1, 2)
    conversation.head = Head(1, 0, 1000, ())
    loader = loader_of(conversations, store, lambda: 91 * 86_400.0)
    loading = asyncio.ensure_future(loader.head(conversation))
    await asyncio.sleep(0)
    conversation.advance(Message(1, 2, 5, 50, "", b""))
    store.gate.set()
    assert (await loading).seq == 5


async def test_the_first_read_wins() -> None:
    """A read state that was loaded meanwhile, and has moved, is kept."""
    store, (conversations, conversation) = GatedMessages(), active(1, 2)
    loader = loader_of(conversations, store, lambda: 0.0)
    first, second = (asyncio.ensure_future(loader.read_state(conversation, 1)) for _ in range(2))
    await asyncio.sleep(0)
    store.gate.set()
    assert await first is await second
    assert (await first).first_unread == 4
