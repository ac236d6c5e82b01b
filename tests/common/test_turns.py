"""Tests of turns: how many reads are in progress, and in which order they start."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from common.turns import Turns


class Reads:
    """Reads that hold their turn until `let_go`. `begun` lists those that have had a turn."""

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
    """Let all tasks run until they wait for a turn or a gate."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def reads() -> Reads:
    return Reads()


async def test_short_reads_are_bounded(reads: Reads) -> None:
    """With two turns, a third short read waits until one of the two has ended. Long reads have turns of their own."""
    turns = Turns(2, 1)
    for name in "abc":
        await reads.start(name, turns.short())
    await reads.start("long", turns.long(1))
    assert reads.begun == ["a", "b", "long"]
    await reads.let_go("b")
    assert reads.begun == ["a", "b", "long", "c"]


async def test_one_long_read_of_a_user(reads: Reads) -> None:
    """A user has one long read in progress, so the other users keep their turns."""
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


async def test_a_cancelled_read(reads: Reads) -> None:
    """A read that is cancelled, before its turn or with it, lets the next one start."""
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
