"""Tests of the limit rule in Redis: the script beside the pure function, and lost data."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.asyncio import Redis

from models.chat.ports import Admission
from models.chat.stranger_limit import ACCEPTED_DAYS, REFUSED_DAYS, decide
from models.errors import LimitReached, QuotaReached, StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.redis.client import RedisServer
from storage.redis.counters import MESSAGE, RedisCounters
from storage.redis.quotas import RedisQuotas
from tests.support.redis_process import redis_process, url_of

DAY = 86_400


async def nothing(until: int) -> tuple[int, int]:
    """A recount that finds no messages."""
    return 0, 0


async def admit(counters: RedisCounters, sender: int, recipient: int) -> bool:
    try:
        await counters.admit(sender, recipient, nothing)
    except LimitReached:
        return False
    return True


async def key_of(redis: Redis, sender: int, recipient: int) -> str | None:
    """Return the key that counts the messages from one user to the other, which names them at its end."""
    found = [key async for key in redis.scan_iter(f"*:{sender}->{recipient}", count=10_000)]
    assert len(found) <= 1
    return found[0] if found else None


async def count(redis: Redis, sender: int, recipient: int) -> int | None:
    key = await key_of(redis, sender, recipient)
    return None if key is None else int(await redis.get(key))


async def lifetime(redis: Redis, sender: int, recipient: int) -> int:
    key = await key_of(redis, sender, recipient)
    assert key is not None
    return await redis.ttl(key)


def without_quotas(server: RedisServer, prefix: str) -> RedisCounters:
    return RedisCounters(server, prefix, RedisQuotas(server, prefix, strangers=0, size=0))


fresh = itertools.count(10**9)


def limit_rule_machine(url: str) -> type[RuleBasedStateMachine]:
    """The state machine on a real Redis."""

    class LimitRule(RuleBasedStateMachine):
        """Two users write and answer, and counts expire and are given back, beside the pure function."""

        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.server = RedisServer(url, 5, 2)
            self.counters = without_quotas(self.server, "machine")
            self.users = (next(fresh), next(fresh))
            self.model = {0: 0, 1: 0}
            self.admissions: list[tuple[int, Admission]] = []

        def run(self, work: Coroutine[Any, Any, Any]) -> Any:
            return self.loop.run_until_complete(work)

        def teardown(self) -> None:
            self.run(self.server.close())
            self.loop.close()

        @rule(side=st.sampled_from([0, 1]))
        def send(self, side: int) -> None:
            pair = self.users[side], self.users[1 - side]
            verdict = decide(self.model[side], self.model[1 - side])
            try:
                admission = self.run(self.counters.admit(*pair, nothing))
            except LimitReached:
                assert not verdict.accepted
            else:
                assert verdict.accepted
                self.admissions.append((side, admission))
            self.model[side] = verdict.count_after
            left = self.run(lifetime(self.server.client, *pair))
            assert verdict.days * DAY - 60 <= left <= verdict.days * DAY

        @rule(data=st.data())
        def give_back(self, data: st.DataObject) -> None:
            if self.admissions:
                index = data.draw(st.integers(0, len(self.admissions) - 1))
                side, admission = self.admissions.pop(index)
                self.run(self.counters.give_back(admission))
                self.model[side] = max(0, self.model[side] - 1)

        @rule(side=st.sampled_from([0, 1]))
        def expire(self, side: int) -> None:
            key = self.run(key_of(self.server.client, self.users[side], self.users[1 - side]))
            if key is not None:
                self.run(self.server.client.delete(key))
            self.model[side] = 0
            self.admissions = [entry for entry in self.admissions if entry[0] != side]

        @invariant()
        def counts_agree(self) -> None:
            for side in (0, 1):
                held = self.run(count(self.server.client, self.users[side], self.users[1 - side]))
                assert (held or 0) == self.model[side]

    return LimitRule


def test_the_script_is_the_rule(addresses: Addresses) -> None:
    """Redis and the pure function agree on every verdict, count and lifetime."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        limit_rule_machine(addresses.redis), settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )


async def test_twenty_at_once(counters: RedisCounters, redis: Redis, pair: tuple[int, int]) -> None:
    """Exactly three of twenty concurrent messages pass."""
    verdicts = await asyncio.gather(*(admit(counters, *pair) for _ in range(20)))
    assert sum(verdicts) == 3
    assert await count(redis, *pair) == 3


async def test_lifetimes(counters: RedisCounters, redis: Redis, pair: tuple[int, int]) -> None:
    """A count lives for 90 days after an acceptance, and 30 after a refusal."""
    for _ in range(3):
        assert await admit(counters, *pair)
        assert abs(await lifetime(redis, *pair) - ACCEPTED_DAYS * DAY) < 60
    assert not await admit(counters, *pair)
    assert abs(await lifetime(redis, *pair) - REFUSED_DAYS * DAY) < 60


async def test_every_key_expires(counters: RedisCounters, redis: Redis, pair: tuple[int, int]) -> None:
    """Every key has a lifetime."""
    await admit(counters, *pair)
    lives = {key: await redis.pttl(key) async for key in redis.scan_iter("tandem*")}
    assert await key_of(redis, *pair) in lives
    assert [key for key, milliseconds in lives.items() if milliseconds == -1] == []


async def test_a_count_is_rebuilt_from_what_mongodb_held(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """After a flush a used-up limit is rebuilt from MongoDB, once."""
    await admit(counters, 1, 2)
    await redis.flushdb()
    asked = []

    async def recount(until: int) -> tuple[int, int]:
        asked.append(until)
        return 3, 0

    for _ in range(3):
        with pytest.raises(LimitReached):
            await counters.admit(*pair, recount)
    assert len(asked) == 1


async def test_an_answer_is_remembered_through_a_flush(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """An answer before a flush still counts after it."""
    await redis.flushdb()

    async def recount(until: int) -> tuple[int, int]:
        return 3, 1

    assert (await counters.admit(*pair, recount)).theirs == 1


async def test_a_rebuilt_count_that_expires_stays_expired(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """A rebuilt count that has expired is not rebuilt again, though MongoDB still has its messages."""

    async def recount(until: int) -> tuple[int, int]:
        return 3, 0

    with pytest.raises(LimitReached):
        await counters.admit(*pair, recount)
    key = await key_of(redis, *pair)
    assert key is not None
    await redis.delete(key)
    assert (await counters.admit(*pair, recount)).theirs == 0
    assert await count(redis, *pair) == 1


async def test_counts_of_another_redis_are_not_believed(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """Counts that an old dump restores are not used, since they have another run id."""
    await admit(counters, *pair)
    key = await key_of(redis, *pair)
    assert key is not None
    await redis.flushdb()
    old = key.replace((await redis.info("server"))["run_id"], "0123456789abcdef")
    assert old != key
    sender, recipient = pair
    await redis.set(old, 0)
    await redis.set(old.replace(f"{sender}->{recipient}", f"{recipient}->{sender}"), 9)

    async def recount(until: int) -> tuple[int, int]:
        return 3, 0

    with pytest.raises(LimitReached):
        await counters.admit(*pair, recount)


async def test_giving_back_creates_nothing(counters: RedisCounters, redis: Redis, pair: tuple[int, int]) -> None:
    """Giving back creates no key, after expiry or a flush, and does not go below zero."""
    admission = await counters.admit(*pair, nothing)
    await counters.give_back(admission)
    assert await count(redis, *pair) == 0
    await counters.give_back(admission)
    assert await count(redis, *pair) == 0
    await redis.flushdb()
    await counters.give_back(admission)
    assert await count(redis, *pair) is None


async def test_a_count_from_before_a_flush_is_not_given_back_after_it(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """A message from before a flush is not given back after it, since the rebuilt count does not include it."""
    admission = await counters.admit(*pair, nothing)
    await redis.flushdb()

    async def recount(until: int) -> tuple[int, int]:
        return 2, 0

    await counters.admit(*pair, recount)
    await counters.give_back(admission)
    assert await count(redis, *pair) == 3


async def test_gathered_counts_arrive(counters: RedisCounters, redis: Redis, pair: tuple[int, int]) -> None:
    """Gathered messages are counted soon, after a rebuild if needed."""

    async def recount(until: int) -> tuple[int, int]:
        return 1, 2

    for _ in range(5):
        counters.gather(*pair, recount, "hi")
    await counters.close()
    assert (await count(redis, *pair), await count(redis, *pair[::-1])) == (6, 2)


async def test_gathered_counts_that_cannot_be_rebuilt_yet(
    counters: RedisCounters, redis: Redis, pair: tuple[int, int]
) -> None:
    """Counts that cannot be rebuilt are gathered again, and others of the same batch are not counted twice."""
    lost, failures = (next(fresh), next(fresh)), [StorageUnavailable("mongodb", "away")]
    await counters.admit(*pair, nothing)

    async def recount(until: int) -> tuple[int, int]:
        if failures:
            counters.gather(*lost, recount, "hi")
            raise failures.pop()
        return 4, 2

    counters.gather(*pair, nothing, "hi")
    counters.gather(*lost, recount, "hi")
    await counters.close()
    await counters.close()
    assert (await count(redis, *pair), await count(redis, *lost)) == (2, 6)


async def test_closing_while_counts_are_raised(
    redis_server: RedisServer, redis: Redis, prefix: str, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` while counts are being written writes all of them."""
    monkeypatch.setattr("storage.redis.counters.GATHER", 0)
    counters, begun = without_quotas(redis_server, prefix), asyncio.Event()

    async def recount(until: int) -> tuple[int, int]:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return 1, 0

    counters.gather(*pair, recount, "hi")
    await begun.wait()
    counters.gather(*pair, recount, "hi")
    await counters.close()
    assert await count(redis, *pair) == 3


async def test_a_stranger_too_many(redis_server: RedisServer, redis: Redis, prefix: str, pair: tuple[int, int]) -> None:
    """A message to one stranger too many is refused and not counted, and other conversations go on."""
    counters = RedisCounters(redis_server, prefix, RedisQuotas(redis_server, prefix, strangers=2, size=0))
    sender, first, second, third, friend = (next(fresh) for _ in range(5))
    for recipient in (first, second, first):
        await counters.admit(sender, recipient, nothing)
    outcomes = await asyncio.gather(*(counters.admit(sender, third, nothing) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {QuotaReached, LimitReached}  # either check may refuse first
    assert await count(redis, sender, third) in (None, 0)
    await counters.admit(friend, sender, nothing)
    await counters.admit(sender, friend, nothing)
    await counters.admit(sender, second, nothing)
    await counters.admit(third, sender, nothing)  # each account has its own quota
    assert (await counters.admit(sender, third, nothing)).theirs == 1


async def test_bytes_that_are_used_up(
    redis_server: RedisServer, redis: Redis, prefix: str, pair: tuple[int, int]
) -> None:
    """An account without bytes left is refused before anything is counted."""
    counters = RedisCounters(redis_server, prefix, RedisQuotas(redis_server, prefix, strangers=0, size=10))
    await counters.admit(*pair, nothing)
    counters.weigh(pair[0], "hello")
    await counters.close()
    assert pair[0] in counters.spent
    with pytest.raises(QuotaReached, match="bytes"):
        await counters.admit(*pair, nothing)
    assert await count(redis, *pair) == 1
    await counters.admit(*pair[::-1], nothing)


async def test_bytes_of_gathered_messages(redis_server: RedisServer, prefix: str, pair: tuple[int, int]) -> None:
    """Bytes of gathered messages count once, in UTF-8 and with the overhead, even if counting failed first."""
    quotas = RedisQuotas(redis_server, prefix, strangers=0, size=10**6)
    counters, failures = RedisCounters(redis_server, prefix, quotas), [StorageUnavailable("mongodb", "away")]

    async def recount(until: int) -> tuple[int, int]:
        if failures:
            raise failures.pop()
        return 0, 0

    for content in ("abc", "字", ""):
        counters.gather(*pair, recount, content)
    await counters.close()
    counters.gather(*pair[::-1], recount, "abc")
    await counters.close()
    sizes = [await redis_server.client.get(f"{prefix}:bytes:{user}") for user in pair]
    assert sizes == [str(3 * MESSAGE + 6), str(MESSAGE + 3)]


async def test_redis_away(tmp_path: Path, prefix: str, pair: tuple[int, int]) -> None:
    """While Redis is unavailable, `admit` raises StorageUnavailable; gathered counts are kept until it is back."""
    server = RedisServer(url_of(tmp_path / "r.sock"), 5, 1)
    counters = without_quotas(server, prefix)
    with pytest.raises(StorageUnavailable):
        await counters.admit(*pair, nothing)
    counters.gather(*pair, nothing, "hi")
    await counters.close()
    with redis_process(tmp_path, "r"):
        await counters.close()
        assert await count(server.client, *pair) == 1
        await server.close()
