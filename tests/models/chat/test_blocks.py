"""Tests of blocks in a process: events that arrive while the store is asked, and withheld messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from common.tasks import end
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation
from models.chat.events import BlockChanged, Typing
from models.errors import Blocked
from models.records import Message
from tests.support.sockets import until


class Fake:
    """A fake of the store, the sockets and the cluster."""

    single_process = False

    def __init__(self) -> None:
        self.kept: dict[int, dict[int, int]] = {}
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.read = asyncio.Event()
        self.read.set()
        self.reads = 0  # of all blocks, that wait
        self.told: list[object] = []
        self.resumed: list[tuple[int, int]] = []
        self.last = 5  # seq of the conversation

    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        self.asked += 1
        found = self.kept.get(one, {}).get(other), self.kept.get(other, {}).get(one)
        await self.gate.wait()
        return found

    async def newest(self, one: int, other: int) -> int:
        return self.last

    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        found = {user: dict(self.kept[user]) for user in users if user in self.kept}
        self.reads += not self.read.is_set()
        await self.read.wait()
        return found

    async def block(self, user: int, peer: int) -> int:
        self.kept.setdefault(user, {})[peer] = 5
        return 5

    async def unblock(self, user: int, peer: int) -> None:
        self.kept.get(user, {}).pop(peer, None)

    def publish(self, event: object) -> None:
        self.told.append(event)

    def resume(self, user: int, peer: int) -> None:
        self.resumed.append((user, peer))


def message(seq: int) -> Message:
    return Message(1, 2, seq, 0, "", b"")


@pytest.fixture
def fake(io_loop: Any) -> Any:
    return Fake()


async def test_a_block_that_comes_while_the_store_is_asked(fake: Any) -> None:
    """A block that is made while the store is asked is not lost in the cached answer."""
    conversation = Conversation(1, 2)

    def changed(user: int, peer: int) -> None:
        conversation.unblocked_until = -1.0

    blocks = Blocks(fake, fake, fake, changed)
    fake.gate.clear()
    asking = asyncio.ensure_future(blocks.require_open(conversation))
    await until(lambda: fake.asked)
    await blocks.block(2, 1)
    fake.gate.set()
    await asking  # that message was sent before the block
    assert conversation.unblocked_until < 0
    with pytest.raises(Blocked):
        await blocks.require_open(conversation)
    await blocks.unblock(2, 1)
    await blocks.require_open(conversation)
    assert conversation.unblocked_until > asyncio.get_running_loop().time()  # the answer is cached
    assert fake.told == [BlockChanged(2, 1)] * 2


async def test_what_is_withheld(fake: Any) -> None:
    """Messages after a block are withheld; when the block is lifted, the sockets have to resume."""
    blocks = Blocks(fake, fake, fake, lambda *_: None)
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
    await until(lambda: fake.resumed)
    assert fake.resumed == [(2, 1)]
    assert not blocks.withholds(message(7))
    await blocks.block(2, 1)
    await blocks.unblock(2, 1)
    assert blocks.passes(Typing(1, 2))
    assert fake.resumed == [(2, 1)]  # no message was withheld this time
    blocks.release(2)
    assert blocks.passes(Typing(1, 2))
    await end(task)


async def test_without_sockets(fake: Any) -> None:
    """Without sockets nothing is held in memory, and the store is asked."""
    blocks = Blocks(fake, fake, fake, lambda *_: None)
    await blocks.block(2, 1)
    assert await blocks.shown_upto(2, 1) == 5
    assert await blocks.apart(1, 2)
    assert await blocks.of(2) == [1]


async def test_a_socket_that_opens_while_the_store_is_away(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a socket opens after a moment, gets nothing until the blocks are known, and then resumes."""
    monkeypatch.setattr("models.chat.blocks.HELD_WITHIN", 0.01)
    blocks = Blocks(fake, fake, fake, lambda *_: None)
    blocks.hold(2)
    await blocks.wait_held(2)
    assert not blocks.passes(Typing(1, 2))
    assert blocks.withholds(message(1))
    task = asyncio.ensure_future(blocks.sweep.run())
    await until(lambda: blocks.passes(Typing(1, 2)))
    assert fake.resumed == [(2, 1)]  # there was no block, so the withheld message can be read
    blocks.release(2)
    await end(task)


async def test_users_with_sockets_here_need_no_look_at_the_store(fake: Any) -> None:
    """That there is no block is known while the blocks of both were read a moment ago, and neither has a block."""
    blocks, conversation = Blocks(fake, fake, fake, lambda *_: None), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = asyncio.ensure_future(blocks.sweep.run())
    blocks.hold(1)
    await blocks.wait_held(1)
    await until(lambda: blocks.passes(Typing(3, 1)))
    assert blocks.known_open_until(conversation) < now()  # the other user has no socket here
    blocks.hold(2)
    await blocks.wait_held(2)
    await until(lambda: blocks.known_open_until(conversation) > now())
    fake.kept = {2: {1: 5}}
    blocks.heard(2, 1)  # another process has stored it
    assert blocks.known_open_until(conversation) < now()
    await until(lambda: not blocks.passes(Typing(1, 2)))
    assert blocks.known_open_until(conversation) < now()
    await blocks.unblock(2, 1)
    await until(lambda: blocks.known_open_until(conversation) > now())
    assert not fake.asked
    blocks.release(2)
    assert blocks.known_open_until(conversation) < now()
    await end(task)


async def test_a_block_that_comes_while_all_blocks_are_read(fake: Any) -> None:
    """What was read before an event does not count after it, also if the answer comes later."""
    blocks, conversation = Blocks(fake, fake, fake, lambda *_: None), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = asyncio.ensure_future(blocks.sweep.run())
    for user in (1, 2):
        blocks.hold(user)
    await blocks.wait_held(user)
    await until(lambda: blocks.known_open_until(conversation) > now())
    await end(task)
    fake.read.clear()
    looking = asyncio.ensure_future(blocks.unblock(2, 1))  # reads the blocks of user 2
    await until(lambda: fake.reads)
    fake.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    fake.read.set()
    await looking
    assert blocks.known_open_until(conversation) < now()


async def test_a_read_that_ends_after_a_later_one(fake: Any) -> None:
    """Blocks that were read before an event do not replace those that were read after it."""
    blocks, conversation = Blocks(fake, fake, fake, lambda *_: None), Conversation(1, 2)
    now = asyncio.get_running_loop().time
    task = asyncio.ensure_future(blocks.sweep.run())
    for user in (1, 2):
        blocks.hold(user)
    await blocks.wait_held(user)
    await until(lambda: blocks.known_open_until(conversation) > now())
    gate = fake.read = asyncio.Event()
    early = asyncio.ensure_future(blocks.unblock(2, 3))  # reads the blocks of user 2
    await until(lambda: fake.reads)
    fake.read = asyncio.Event()
    fake.read.set()
    fake.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    await until(lambda: not blocks.passes(Typing(1, 2)))  # a later read has ended
    fake.read = asyncio.Event()  # no further one ends
    gate.set()
    await early
    assert not blocks.passes(Typing(1, 2))
    assert blocks.known_open_until(conversation) < now()
    await end(task)


async def test_a_read_from_before_the_first_connection(fake: Any) -> None:
    """What was read for earlier connections does not count for a user who has come back since."""
    blocks = Blocks(fake, fake, fake, lambda *_: None)
    task = asyncio.ensure_future(blocks.sweep.run())
    blocks.hold(2)
    await blocks.wait_held(2)
    gate = fake.read = asyncio.Event()
    early = asyncio.ensure_future(blocks.unblock(2, 3))  # reads the blocks of user 2
    await until(lambda: fake.reads)
    blocks.release(2)
    fake.kept = {2: {1: 5}}
    blocks.heard(2, 1)
    await end(task)
    blocks.hold(2)
    gate.set()
    await early
    assert not blocks.passes(Typing(1, 2))
    assert blocks.withholds(message(6))
    task = asyncio.ensure_future(blocks.sweep.run())
    await blocks.wait_held(2)
    assert (await blocks.shown_upto(2, 1), fake.resumed) == (5, [])
    await end(task)
