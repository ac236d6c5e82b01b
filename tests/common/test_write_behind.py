"""Tests of write-behind: changes that are merged, written together, and written again after an outage."""

from __future__ import annotations

import asyncio
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from common.write_behind import WriteBehind
from tests.support.sockets import until

LATER = 1000.0  # seconds: an interval that does not end within a test


class Outage(Exception):
    """The store is unavailable."""


class Store:
    """A store of sums that can be unavailable, can fail halfway, and can be slow."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.batches: list[dict[str, int]] = []
        self.outages: list[int] = []
        self.away = False
        self.fails_at = ""  # the key at which a write fails
        self.bug: Exception | None = None
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def write(self, batch: dict[str, int]) -> None:
        self.batches.append(dict(batch))
        self.begun.set()
        await self.go_on.wait()
        if self.bug is not None:
            raise self.bug
        for key, value in tuple(batch.items()):
            if self.away or key == self.fails_at:
                raise Outage
            self.sums[key] = self.sums.get(key, 0) + value
            del batch[key]

    def behind(
        self, interval: float = LATER, max_batch: int = 100, max_keys: int = 100, rounds: int = 1, least: int = 1
    ) -> WriteBehind[str, int]:
        """Return a buffer in front of this store."""
        return WriteBehind(
            self.write,
            add,
            interval=interval,
            rounds=rounds,
            least=least,
            max_batch=max_batch,
            max_keys=max_keys,
            outage=Outage,
            on_outage=lambda count, error: self.outages.append(count),
        )


async def test_changes_of_a_key_are_merged_and_written_soon() -> None:
    """Changes of a key become one change, which is written after the interval."""
    store = Store()
    behind = store.behind(interval=0)
    for _ in range(3):
        behind.add("a", 1)
    behind.add("b", 5)
    assert (len(behind), behind.get("a"), behind.get("c")) == (2, 3, None)
    await until(lambda: not len(behind))
    assert store.batches == [{"a": 3, "b": 5}]
    behind.add("a", 1)  # after all was written, the next change starts another interval
    await until(lambda: not len(behind))
    assert store.sums == {"a": 4, "b": 5}


async def test_nothing_is_written_before_the_interval_has_passed() -> None:
    """Changes wait for the interval, and `close` writes them at once."""
    store = Store()
    behind = store.behind()
    behind.add("a", 1)
    await asyncio.sleep(0)
    assert store.batches == []
    await behind.close()
    assert store.sums == {"a": 1}


async def test_close_without_changes_writes_nothing() -> None:
    """`close` does not call `write` if nothing is pending."""
    store = Store()
    await store.behind().close()
    assert store.batches == []


async def test_many_keys_are_written_in_batches() -> None:
    """No batch has more than `max_batch` keys, and all keys are written, in the order of their first change."""
    store = Store()
    behind = store.behind(max_batch=3)
    for number in range(8):
        behind.add(str(number), number)
    await behind.close()
    assert [list(map(int, batch)) for batch in store.batches] == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_a_round_writes_the_oldest_keys() -> None:
    """A round writes a part of many keys, in the order of their first change. Later changes are merged meanwhile."""
    store = Store()
    behind = store.behind(interval=0, rounds=3, least=2)
    for number in range(9):
        behind.add(str(number), 1)
    store.go_on.clear()
    await store.begun.wait()
    behind.add("0", 1)
    behind.add("8", 1)
    store.go_on.set()
    await until(lambda: not len(behind))
    assert [list(batch.items()) for batch in store.batches] == [
        [("0", 1), ("1", 1), ("2", 1)],
        [("3", 1), ("4", 1), ("5", 1)],
        [("6", 1), ("7", 1), ("8", 2)],
        [("0", 1)],
    ]


async def test_few_keys_are_written_in_one_round() -> None:
    """A round writes all keys if they are at most `least`."""
    store = Store()
    behind = store.behind(interval=0, rounds=10, least=5)
    for number in range(5):
        behind.add(str(number), 1)
    await until(lambda: not len(behind))
    assert [len(batch) for batch in store.batches] == [5]


@given(
    turns=st.lists(st.lists(st.integers(0, 40), max_size=60), max_size=25),
    rounds=st.integers(1, 6),
    least=st.integers(1, 8),
)
def test_every_change_is_written_within_the_rounds(turns: list[list[int]], rounds: int, least: int) -> None:
    """Each change is written once and within `rounds` rounds, and no round writes more than that needs."""

    async def scenario() -> None:
        store = Store()
        behind = store.behind(interval=0, rounds=rounds, least=least)
        waiting: dict[str, int] = {}  # by key, how many rounds there had been when it changed first
        begun, most = 0, 0
        for turn in [*turns, *[[]] * (rounds + 1)]:
            for number in turn:
                behind.add(str(number), 1)
                waiting.setdefault(str(number), begun)
            most = max(most, len(waiting))
            await asyncio.sleep(0)  # a round, but for the first turn after all was written
            for batch in store.batches[begun:]:
                assert list(batch) == list(waiting)[: len(batch)]
                assert min(len(waiting), least) <= len(batch) <= max(least, -(-most // rounds))
                for key in batch:
                    assert begun - waiting.pop(key) < rounds
                begun += 1
        assert not waiting
        assert sum(store.sums.values()) == sum(map(len, turns))

    asyncio.run(scenario())


async def test_what_an_outage_leaves_stays_in_front() -> None:
    """Changes that were not written are written before those that came later, merged with later ones of their keys."""
    store = Store()
    behind = store.behind(interval=0, rounds=2)
    store.away = True
    for key in ("a", "b"):
        behind.add(key, 1)
    await until(lambda: store.outages)
    for key in ("c", "a"):
        behind.add(key, 1)
    store.away = False
    store.batches.clear()
    await until(lambda: not len(behind))
    assert [key for batch in store.batches for key in batch] == ["a", "b", "c"]
    assert store.sums == {"a": 2, "b": 1, "c": 1}


async def test_closing_writes_more_than_a_round() -> None:
    """`close` writes all changes at once, however many a round would write."""
    store = Store()
    behind = store.behind(rounds=10)
    for number in range(30):
        behind.add(str(number), 1)
    await behind.close()
    assert (len(store.sums), len(store.batches)) == (30, 1)


async def test_the_number_of_keys_is_limited() -> None:
    """Beyond `max_keys` changes of further keys are dropped, and those of known keys are kept."""
    store = Store()
    behind = store.behind(max_keys=2)
    for key in ("a", "b", "c", "a"):
        behind.add(key, 1)
    await behind.close()
    assert store.sums == {"a": 2, "b": 1}


async def test_the_limit_includes_what_is_being_written() -> None:
    """What is being written counts for the limit, since it is pending again if the write fails."""
    store = Store()
    behind = store.behind(interval=0, max_keys=2)
    store.away = True
    store.go_on.clear()
    behind.add("a", 1)
    behind.add("b", 1)
    await store.begun.wait()
    for key in ("a", "c", "d"):
        behind.add(key, 1)
    assert len(behind) == 2
    store.go_on.set()
    await until(lambda: store.outages)
    store.away = False
    await behind.close()
    assert store.sums == {"a": 2, "b": 1}


async def test_what_is_being_written_is_still_known() -> None:
    """`get` includes a change that is being written, merged with later ones, which are written next."""
    store = Store()
    behind = store.behind(interval=0)
    store.go_on.clear()
    behind.add("a", 1)
    await store.begun.wait()
    assert behind.get("a") == 1
    behind.add("a", 2)
    assert behind.get("a") == 3
    store.go_on.set()
    await until(lambda: not len(behind))
    assert store.batches == [{"a": 1}, {"a": 2}]


async def test_what_can_still_be_altered() -> None:
    """`pending` returns the change that the next write will take, and not what is being written."""
    store = Store()
    behind = store.behind(interval=0)
    store.go_on.clear()
    behind.add("a", 1)
    assert behind.pending("a") == 1
    await store.begun.wait()
    assert behind.pending("a") is None
    behind.add("a", 2)
    assert behind.pending("a") == 2
    store.go_on.set()
    await behind.close()


async def test_changes_are_written_after_an_outage() -> None:
    """What an outage keeps from being written is reported and written later, merged with what came meanwhile."""
    store = Store()
    behind = store.behind(interval=0, max_batch=1)
    store.away = True
    behind.add("a", 1)
    behind.add("b", 1)
    await until(lambda: len(store.outages) >= 2)
    assert set(store.outages) == {2}
    behind.add("a", 1)
    store.away = False
    await until(lambda: not len(behind))
    assert store.sums == {"a": 2, "b": 1}


async def test_closing_in_an_outage_is_one_attempt() -> None:
    """`close` makes one attempt, and keeps what it could not write."""
    store = Store()
    behind = store.behind()
    store.away = True
    behind.add("a", 1)
    await behind.close()
    assert (store.outages, len(store.batches), behind.get("a")) == ([1], 1, 1)


async def test_a_write_that_fails_halfway() -> None:
    """What a failed write has deleted from its batch is not written again."""
    store = Store()
    behind = store.behind()
    for key in ("a", "b", "c"):
        behind.add(key, 1)
    store.fails_at = "b"
    await behind.close()
    assert (store.sums, store.outages) == ({"a": 1}, [2])
    store.fails_at = ""
    await behind.close()
    assert store.sums == {"a": 1, "b": 1, "c": 1}


async def test_closing_during_a_write() -> None:
    """`close` ends a write that is in progress, and writes all of it again with what came meanwhile."""
    store = Store()
    behind = store.behind(interval=0)
    store.go_on.clear()
    behind.add("a", 1)
    await store.begun.wait()
    behind.add("a", 1)
    closing = asyncio.ensure_future(behind.close())
    await until(lambda: len(store.batches) == 2)
    store.go_on.set()
    await closing
    assert store.sums == {"a": 2}


async def test_a_bug_does_not_end_the_writes() -> None:
    """An unexpected error is logged, and its changes are written later."""
    store = Store()
    behind = store.behind(interval=0)
    store.bug = KeyError("a")
    with capture_logs() as logs:
        behind.add("a", 1)
        await until(lambda: len(store.batches) >= 2)
    assert {entry["event"] for entry in logs} == {"changes_not_written"}
    store.bug = None
    await until(lambda: store.sums == {"a": 1})


async def test_a_bug_while_closing_is_raised() -> None:
    """`close` raises an unexpected error."""
    store = Store()
    behind = store.behind()
    store.bug = KeyError("a")
    behind.add("a", 1)
    with pytest.raises(KeyError):
        await behind.close()
