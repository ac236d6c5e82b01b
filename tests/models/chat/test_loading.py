"""Loading: what is read is kept, and what is known better is not overwritten."""

from __future__ import annotations

import asyncio

from models.records import Head, Message, UnreadStart
from tests.support.chats import active, loader_of


class Store:
    """Answers as late as the test wants."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.heads = [Head(5, 50, 1000, ())]
        self.read = 0

    async def head(self, conversation: str) -> Head:
        self.read += 1
        head = self.heads[-1]
        await self.gate.wait()
        return head

    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        self.read += 1
        await self.gate.wait()
        return UnreadStart(3, 4)


async def test_a_late_answer_takes_nothing_back() -> None:
    """Two ask at once; while the second answer is on its way the conversation goes on."""
    store, (conversations, conversation) = Store(), active(1, 2)
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
    """Its message is gone; where the conversation goes on only the store knows."""
    store, (conversations, conversation) = Store(), active(1, 2)
    store.gate.set()
    now = [0.0]
    loader = loader_of(conversations, store, lambda: now[0])
    await loader.head(conversation)
    assert conversation.delivered_seq == 5
    now[0] = 91 * 86_400.0
    store.heads.append(Head(1005, int(now[0] * 1000), 2000, ()))
    assert (await loader.head(conversation)).seq == 1005
    assert conversation.delivered_seq == 5  # which the sockets have been given


async def test_a_head_that_fell_behind_while_it_was_read_again() -> None:
    """What is read is taken, although what was known before is gone meanwhile."""
    store, (conversations, conversation) = Store(), active(1, 2)
    conversation.head = Head(1, 0, 1000, ())
    loader = loader_of(conversations, store, lambda: 91 * 86_400.0)
    loading = asyncio.ensure_future(loader.head(conversation))
    await asyncio.sleep(0)
    conversation.advance(Message(1, 2, 5, 50, "", b""))
    store.gate.set()
    assert (await loading).seq == 5


async def test_whoever_asked_first_is_right() -> None:
    """A reading that was loaded meanwhile, and has moved, stays."""
    store, (conversations, conversation) = Store(), active(1, 2)
    loader = loader_of(conversations, store, lambda: 0.0)
    first, second = (asyncio.ensure_future(loader.read_state(conversation, 1)) for _ in range(2))
    await asyncio.sleep(0)
    store.gate.set()
    assert await first is await second
    assert (await first).first_unread == 4
