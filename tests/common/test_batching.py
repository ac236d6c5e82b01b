"""Tests of `Batcher`: batches, order and outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from common.batching import Batcher
from tests.support.patience import PATIENCE


class Executor:
    """Records batches, and executes them once the gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[int]] = []

    async def __call__(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        await self.gate.wait()
        return [ValueError(item) if item < 0 else item * 10 for item in batch]


async def test_queued_items_share_batches() -> None:
    """The first item is executed at once; those queued behind it share batches of at most `max_batch`."""
    executor = Executor()
    batcher = Batcher(executor, max_batch=3, max_concurrent=1)
    waiting = [asyncio.ensure_future(batcher(item)) for item in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    executor.gate.set()
    assert await asyncio.gather(*waiting) == [0, 10, 20, 30, 40, 50]
    assert all(len(batch) <= 3 for batch in executor.batches)
    assert list(range(6)) == [item for batch in executor.batches for item in batch]
    assert len(executor.batches) < 6


async def test_each_caller_gets_its_own_outcome() -> None:
    """An exception among the outcomes is raised to the caller of its item alone."""
    executor = Executor()
    executor.gate.set()
    batcher = Batcher(executor, max_batch=10, max_concurrent=1)
    outcomes = await asyncio.gather(batcher(1), batcher(-2), batcher(3), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (10, 30)
    assert isinstance(outcomes[1], ValueError)


async def test_a_failed_batch_fails_its_callers_alone() -> None:
    """An exception that a batch raises reaches its callers, and the next batch is executed."""
    failures = [OSError("lost")]

    async def execute(batch: Sequence[int]) -> list[int | Exception]:
        if failures:
            raise failures.pop()
        return list(batch)

    batcher = Batcher(execute, max_batch=10, max_concurrent=1)
    with pytest.raises(OSError, match="lost"):
        await batcher(1)
    assert await batcher(2) == 2


async def test_concurrent_batches_are_limited() -> None:
    """At most `max_concurrent` batches are in progress."""
    executor = Executor()
    batcher = Batcher(executor, max_batch=1, max_concurrent=2)
    waiting = [asyncio.ensure_future(batcher(item)) for item in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(executor.batches) == 2
    executor.gate.set()
    await asyncio.gather(*waiting)


async def test_a_cancelled_caller_is_left_out() -> None:
    """An item whose caller was cancelled while it was queued is not executed."""
    executor = Executor()
    batcher = Batcher(executor, max_batch=10, max_concurrent=1)
    first, second, third = (asyncio.ensure_future(batcher(item)) for item in (1, 2, 3))
    for _ in range(3):
        await asyncio.sleep(0)
    taken = {item for batch in executor.batches for item in batch}
    assert 1 in taken
    late = asyncio.ensure_future(batcher(4))
    await asyncio.sleep(0)
    late.cancel()
    executor.gate.set()
    assert await asyncio.gather(first, second, third) == [10, 20, 30]
    assert all(4 not in batch for batch in executor.batches)


async def test_an_item_right_after_the_last_batch_is_executed() -> None:
    """An item submitted between a batch's end and its task's callbacks is executed."""
    executor = Executor()
    executor.gate.set()
    batcher = Batcher(executor, max_batch=1, max_concurrent=1)
    async with asyncio.timeout(PATIENCE):
        for item in range(100):
            assert await batcher(item) == 10 * item


async def test_items_have_sizes() -> None:
    """A batch holds items of up to `max_batch` in all; a larger item is a batch of its own."""
    executor = Executor()
    batcher = Batcher(executor, max_batch=10, max_concurrent=1, size=lambda item: item)
    waiting = [asyncio.ensure_future(batcher(item)) for item in (1, 4, 6, 5, 30, 2)]
    executor.gate.set()
    assert await asyncio.gather(*waiting) == [10, 40, 60, 50, 300, 20]
    assert [list(batch) for batch in executor.batches] == [[1, 4], [6], [5], [30], [2]]
