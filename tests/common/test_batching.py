"""Group commit: batches, order, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from common.batching import GroupCommit
from tests.support.patience import PATIENCE


class Committer:
    """Commits batches when the gate opens, and notes them."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.batches: list[list[int]] = []

    async def __call__(self, batch: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(batch))
        await self.gate.wait()
        return [ValueError(item) if item < 0 else item * 10 for item in batch]


async def test_what_gathers_travels_together() -> None:
    """The first item leaves at once, the rest when a batch lands, at most `max_batch` at a time."""
    committer = Committer()
    commit = GroupCommit(committer, max_batch=3, max_flights=1)
    waiting = [asyncio.ensure_future(commit(item)) for item in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    committer.gate.set()
    assert await asyncio.gather(*waiting) == [0, 10, 20, 30, 40, 50]
    assert all(len(batch) <= 3 for batch in committer.batches)
    assert list(range(6)) == [item for batch in committer.batches for item in batch]
    assert len(committer.batches) < 6


async def test_each_caller_gets_its_own_outcome() -> None:
    """An exception is raised to the caller whose item it belongs to."""
    committer = Committer()
    committer.gate.set()
    commit = GroupCommit(committer, max_batch=10, max_flights=1)
    outcomes = await asyncio.gather(commit(1), commit(-2), commit(3), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (10, 30)
    assert isinstance(outcomes[1], ValueError)


async def test_a_failed_batch_fails_its_callers_alone() -> None:
    """The next batch is committed."""
    failures = [OSError("lost")]

    async def commit_batch(batch: Sequence[int]) -> list[int | Exception]:
        if failures:
            raise failures.pop()
        return list(batch)

    commit = GroupCommit(commit_batch, max_batch=10, max_flights=1)
    with pytest.raises(OSError, match="lost"):
        await commit(1)
    assert await commit(2) == 2


async def test_flights_are_limited() -> None:
    """No more than `max_flights` batches at once."""
    committer = Committer()
    commit = GroupCommit(committer, max_batch=1, max_flights=2)
    waiting = [asyncio.ensure_future(commit(item)) for item in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(committer.batches) == 2
    committer.gate.set()
    await asyncio.gather(*waiting)


async def test_a_cancelled_caller_is_left_out() -> None:
    """An item that nobody waits for any more is not committed."""
    committer = Committer()
    commit = GroupCommit(committer, max_batch=10, max_flights=1)
    first, second, third = (asyncio.ensure_future(commit(item)) for item in (1, 2, 3))
    for _ in range(3):
        await asyncio.sleep(0)
    taken = {item for batch in committer.batches for item in batch}
    assert 1 in taken
    late = asyncio.ensure_future(commit(4))
    await asyncio.sleep(0)
    late.cancel()
    committer.gate.set()
    assert await asyncio.gather(first, second, third) == [10, 20, 30]
    assert all(4 not in batch for batch in committer.batches)


async def test_a_caller_right_behind_the_last_flight_gets_its_own() -> None:
    """The moment between a flight's end and its task's callbacks strands nobody."""
    committer = Committer()
    committer.gate.set()
    commit = GroupCommit(committer, max_batch=1, max_flights=1)
    async with asyncio.timeout(PATIENCE):
        for item in range(100):
            assert await commit(item) == 10 * item


async def test_items_have_sizes() -> None:
    """A batch holds what fits; what fits into none travels alone."""
    committer = Committer()
    commit = GroupCommit(committer, max_batch=10, max_flights=1, size=lambda item: item)
    waiting = [asyncio.ensure_future(commit(item)) for item in (1, 4, 6, 5, 30, 2)]
    committer.gate.set()
    assert await asyncio.gather(*waiting) == [10, 40, 60, 50, 300, 20]
    assert [list(batch) for batch in committer.batches] == [[1, 4], [6], [5], [30], [2]]
