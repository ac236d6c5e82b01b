"""Turns of reads: how many at once, and in which order."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from common.turns import Turns


class Reads:
    """Reads that hold their turn until they are let go; `begun` says who had one."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def read(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.begun.append(name)
            await self.gates[name].wait()

    async def start(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        self.gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(self.read(name, turn))
        await settled()

    async def let_go(self, name: str) -> None:
        self.gates[name].set()
        await self.tasks[name]
        await settled()


async def settled() -> None:
    """Lets all tasks go as far as they can: nothing here waits for anything but its turn."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def reads() -> Reads:
    return Reads()


async def test_short_reads_are_bounded(reads: Reads) -> None:
    """The third waits until one of two is done, and long reads have turns of their own."""
    turns = Turns(2, 1)
    for name in "abc":
        await reads.start(name, turns.short())
    await reads.start("long", turns.long(1))
    assert reads.begun == ["a", "b", "long"]
    await reads.let_go("b")
    assert reads.begun == ["a", "b", "long", "c"]


async def test_one_long_read_of_a_user(reads: Reads) -> None:
    """However many a user asks for, the others keep their turns."""
    turns = Turns(1, 2)
    for name in ("a1", "a2", "a3"):
        await reads.start(name, turns.long(1))
    await reads.start("b1", turns.long(2))
    assert reads.begun == ["a1", "b1"]
    await reads.let_go("b1")
    assert reads.begun == ["a1", "b1"]
    await reads.let_go("a1")
    await reads.let_go("a2")
    assert reads.begun == ["a1", "b1", "a2", "a3"]
    await reads.let_go("a3")
    assert turns.waiting == 0


async def test_who_stops_waiting(reads: Reads) -> None:
    """Leaves its place to the next one, before a turn or with one."""
    turns = Turns(1, 1)
    for name in ("a1", "a2", "a3"):
        await reads.start(name, turns.long(1))
    for name in ("a2", "a1"):
        reads.tasks[name].cancel()
        await settled()
    assert reads.begun == ["a1", "a3"]
    assert turns.waiting == 0
    await reads.let_go("a3")
    assert turns.waiting == 0
