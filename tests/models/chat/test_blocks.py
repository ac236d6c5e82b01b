"""Tests of blocks in a process: events that arrive while the store is asked, and withheld messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tornado.ioloop import IOLoop

from common.tasks import end
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation
from models.chat.events import BlockChanged, Typing
from models.errors import Blocked
from models.records import Message
from tests.support.chats import GatedBlocks, Publications, Recorder
from tests.support.sockets import until


class Fakes:
    """Fakes of the store, the sockets and the cluster, and blocks on them."""

    def __init__(self) -> None:
        self.store, self.sockets, self.cluster = GatedBlocks(), Recorder(), Publications()

    def blocks(self, changed: Callable[[int, int], None] = lambda *_: None) -> Blocks:
        return Blocks(self.store, self.sockets, self.cluster, changed)


def message(seq: int) -> Message:
    return Message(1, 2, seq, 0, "", b"")


@pytest.fixture
def fake(io_loop: IOLoop) -> Fakes:
    return Fakes()


async def test_a_block_that_comes_while_the_store_is_asked(fake: Fakes) -> None:
    """A block that is made while the store is asked is not lost in the cached answer."""
    conversation = Conversation(1, 2)

    def changed(user: int, peer: int) -> None:
        conversation.unblocked_until = -1.0

    blocks = fake.blocks(changed)
    fake.store.gate.clear()
    asking = asyncio.ensure_future(blocks.require_open(conversation))
    await until(lambda: fake.store.asked)
    await blocks.block(2, 1)
    fake.store.gate.set()
    await asking  # that message was sent before the block
    assert conversation.unblocked_until < 0
    with pytest.raises(Blocked):
        await blocks.require_open(conversation)
    await blocks.unblock(2, 1)
    await blocks.require_open(conversation)
    assert conversation.unblocked_until > asyncio.get_running_loop().time()  # the answer is cached
    assert fake.cluster.published == [BlockChanged(2, 1)] * 2


async def test_what_is_withheld(fake: Fakes) -> None:
    """Messages after a block are withheld; when the block is lifted, the sockets have to resume."""
    blocks = fake.blocks()
    blocks.hold(2)
    opening = [asyncio.ensure_future(blocks.wait_held(2)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not blocks.passes(Typing(3, 2))  # the blocks are not known yet
    task = asyncio.ensure_future(blocks.sweep.run())
    await asyncio.gather(*opening)
    assert blocks.passes(Typing(3, 2))
    await blocks.block(2, 1)
    assert [blocks.withholds(message(seq)) for seq in (5, 6)] == [False, True]
    assert not blocks.passes(Typing(1, 2))
    assert not blocks.passes(Typing(2, 1))
    assert (await blocks.shown_upto(2, 1), await blocks.shown_upto(2, 3) > 10**18) == (5, True)
    await blocks.unblock(2, 1)
    await until(lambda: fake.sockets.resumed)
    assert fake.sockets.resumed == [(2, 1)]
    assert not blocks.withholds(message(7))
    await blocks.block(2, 1)
    await blocks.unblock(2, 1)
    assert blocks.passes(Typing(1, 2))
    assert fake.sockets.resumed == [(2, 1)]  # no message was withheld this time
    blocks.release(2)
    assert blocks.passes(Typing(1, 2))
    await end(task)


async def test_without_sockets(fake: Fakes) -> None:
    """Without sockets nothing is held in memory, and the store is asked."""
    blocks = fake.blocks()
    await blocks.block(2, 1)
    assert await blocks.shown_upto(2, 1) == 5
    assert await blocks.apart(1, 2)
    assert await blocks.of(2) == [1]


async def test_a_socket_that_opens_while_the_store_is_away(fake: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the store a socket opens after a moment, gets nothing until the blocks are known, and then resumes."""
    monkeypatch.setattr("models.chat.blocks.HELD_WITHIN", 0.01)
    blocks = fake.blocks()
    blocks.hold(2)
    await blocks.wait_held(2)
    assert not blocks.passes(Typing(1, 2))
    assert blocks.withholds(message(1))
    task = asyncio.ensure_future(blocks.sweep.run())
    await until(lambda: blocks.passes(Typing(1, 2)))
    assert fake.sockets.resumed == [(2, 1)]  # there was no block, so the withheld message can be read
    blocks.release(2)
    await end(task)


async def test_users_with_sockets_here_need_no_look_at_the_store(fake: Fakes) -> None:
    """That there is no block is known while the blocks of both were read a moment ago, and neither has a block."""
    blocks, conversation = fake.blocks(), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = asyncio.ensure_future(blocks.sweep.run())
    blocks.hold(1)
    await blocks.wait_held(1)
    await until(lambda: blocks.passes(Typing(3, 1)))
    assert blocks.known_open_until(conversation) < now()  # the other user has no socket here
    blocks.hold(2)
    await blocks.wait_held(2)
    await until(lambda: blocks.known_open_until(conversation) > now())
    fake.store.kept = {2: {1: 5}}
    blocks.heard(2, 1)  # another process has stored it
    assert blocks.known_open_until(conversation) < now()
    await until(lambda: not blocks.passes(Typing(1, 2)))
    assert blocks.known_open_until(conversation) < now()
    await blocks.unblock(2, 1)
    await until(lambda: blocks.known_open_until(conversation) > now())
    assert not fake.store.asked
    blocks.release(2)
    assert blocks.known_open_until(conversation) < now()
    await end(task)


async def known_open(blocks: Blocks, conversation: Conversation) -> asyncio.Task[None]:
    """Hold the blocks of both users, and wait until memory says that there are none. Return the task that reads."""
    now = asyncio.get_running_loop().time
    task = asyncio.create_task(blocks.sweep.run())
    for user in conversation.users:
        blocks.hold(user)
    await until(lambda: blocks.known_open_until(conversation) > now())
    return task


async def test_a_block_that_comes_while_all_blocks_are_read(fake: Fakes) -> None:
    """What was read before an event does not count after it, also if the answer comes later."""
    blocks, conversation = fake.blocks(), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = await known_open(blocks, conversation)
    await end(task)
    fake.store.read.clear()
    looking = asyncio.ensure_future(blocks.unblock(2, 1))  # reads the blocks of user 2
    await until(lambda: fake.store.reads)
    fake.store.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    fake.store.read.set()
    await looking
    assert blocks.known_open_until(conversation) < now()


async def test_a_read_that_ends_after_a_later_one(fake: Fakes) -> None:
    """Blocks that were read before an event do not replace those that were read after it."""
    blocks, conversation = fake.blocks(), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = await known_open(blocks, conversation)
    gate = fake.store.read = asyncio.Event()
    early = asyncio.ensure_future(blocks.unblock(2, 3))  # reads the blocks of user 2
    await until(lambda: fake.store.reads)
    fake.store.read = asyncio.Event()
    fake.store.read.set()
    fake.store.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    await until(lambda: not blocks.passes(Typing(1, 2)))  # a later read has ended
    fake.store.read = asyncio.Event()  # no further one ends
    gate.set()
    await early
    assert not blocks.passes(Typing(1, 2))
    assert blocks.known_open_until(conversation) < now()
    await end(task)


async def test_a_read_from_before_the_first_connection(fake: Fakes) -> None:
    """What was read for earlier connections does not count for a user who has come back since."""
    blocks = fake.blocks()
    task = asyncio.ensure_future(blocks.sweep.run())
    blocks.hold(2)
    await blocks.wait_held(2)
    gate = fake.store.read = asyncio.Event()
    early = asyncio.ensure_future(blocks.unblock(2, 3))  # reads the blocks of user 2
    await until(lambda: fake.store.reads)
    blocks.release(2)
    fake.store.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    await end(task)
    blocks.hold(2)
    gate.set()
    await early
    assert not blocks.passes(Typing(1, 2))
    assert blocks.withholds(message(6))
    task = asyncio.ensure_future(blocks.sweep.run())
    await blocks.wait_held(2)
    assert (await blocks.shown_upto(2, 1), fake.sockets.resumed) == (5, [])
    await end(task)
