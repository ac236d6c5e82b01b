"""Blocks as a process knows them: what is heard while the store is asked, and what was withheld."""

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


class House:
    """A store, sockets and a cluster."""

    single_process = False

    def __init__(self) -> None:
        self.kept: dict[int, dict[int, int]] = {}
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
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
        return {user: dict(self.kept[user]) for user in users if user in self.kept}

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
def house(io_loop: Any) -> Any:
    return House()


async def test_a_block_that_comes_while_the_store_is_asked(house: Any) -> None:
    """Is not forgotten for the moment that an answer is remembered."""
    conversation = Conversation(1, 2)

    def changed(user: int, peer: int) -> None:
        conversation.unblocked_until = -1.0

    blocks = Blocks(house, house, house, changed)
    house.gate.clear()
    asking = asyncio.ensure_future(blocks.require_open(conversation))
    await until(lambda: house.asked)
    await blocks.block(2, 1)
    house.gate.set()
    await asking  # that message was on its way before
    assert conversation.unblocked_until < 0
    with pytest.raises(Blocked):
        await blocks.require_open(conversation)
    await blocks.unblock(2, 1)
    await blocks.require_open(conversation)
    assert conversation.unblocked_until > asyncio.get_running_loop().time()  # remembered
    assert house.told == [BlockChanged(2, 1)] * 2


async def test_what_is_withheld(house: Any) -> None:
    """Of whom one has blocked, what came after the block; when it is lifted, the sockets have to resume."""
    blocks = Blocks(house, house, house, lambda *_: None)
    task = asyncio.ensure_future(blocks.sweep.run())
    opening = asyncio.ensure_future(blocks.opening(2))
    await asyncio.sleep(0)
    assert not blocks.passes(Typing(3, 2))  # it is not known yet
    await opening
    assert blocks.passes(Typing(3, 2))
    await blocks.block(2, 1)
    assert [blocks.withholds(message(seq)) for seq in (5, 6)] == [False, True]
    assert not blocks.passes(Typing(1, 2))
    assert not blocks.passes(Typing(2, 1))
    assert (await blocks.shown_upto(2, 1), await blocks.shown_upto(2, 3) > 10**18) == (5, True)
    await blocks.unblock(2, 1)
    await until(lambda: house.resumed)
    assert house.resumed == [(2, 1)]
    assert not blocks.withholds(message(7))
    await blocks.block(2, 1)
    await blocks.unblock(2, 1)
    assert blocks.passes(Typing(1, 2))
    assert house.resumed == [(2, 1)]  # nothing was withheld this time
    blocks.closed(2)
    assert blocks.passes(Typing(1, 2))
    await end(task)


async def test_without_sockets(house: Any) -> None:
    """Nothing is held, and the store is asked."""
    blocks = Blocks(house, house, house, lambda *_: None)
    await blocks.block(2, 1)
    assert await blocks.shown_upto(2, 1) == 5
    assert await blocks.apart(1, 2)
    assert await blocks.of(2) == [1]


async def test_a_socket_that_opens_while_the_store_is_away(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens after a moment, and gets nothing until the blocks are known; then it resumes."""
    monkeypatch.setattr("models.chat.blocks.HELD_WITHIN", 0.01)
    blocks = Blocks(house, house, house, lambda *_: None)
    await blocks.opening(2)
    assert not blocks.passes(Typing(1, 2))
    assert blocks.withholds(message(1))
    task = asyncio.ensure_future(blocks.sweep.run())
    await until(lambda: blocks.passes(Typing(1, 2)))
    assert house.resumed == [(2, 1)]  # there was no block: what was withheld is to be had
    blocks.closed(2)
    await end(task)
