"""Tests of limits on attempts in Redis."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from models.accounts.ports import Rule
from models.errors import StorageUnavailable, TooFast
from storage.redis.attempts import MINUTES, RedisAttempts
from storage.redis.client import RedisServer

MOST = {Rule.ACCOUNT: 3, Rule.CONFIRMATION: 2, Rule.ADDRESS: 3, Rule.REGISTRATION: 1}


@pytest.fixture
def attempts(redis_server: RedisServer, prefix: str) -> RedisAttempts:
    """Attempts with low limits."""
    return RedisAttempts(redis_server, prefix, MOST)


async def taken(attempts: RedisAttempts, rule: Rule, subject: str, tries: int = 50) -> int:
    """Return how many of many concurrent attempts are admitted."""
    outcomes = await asyncio.gather(*(attempts.take(rule, subject) for _ in range(tries)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), TooFast}
    return outcomes.count(None)


@pytest.mark.parametrize("rule", Rule)
async def test_as_many_as_allowed(attempts: RedisAttempts, rule: Rule) -> None:
    """Attempts up to the limit pass, and the error for further ones has the time to wait."""
    for _ in range(MOST[rule]):
        await attempts.take(rule, "somebody")
    for _ in range(3):
        with pytest.raises(TooFast, match=rule.value) as caught:
            await attempts.take(rule, "somebody")
        assert 1 <= caught.value.retry_after <= MINUTES[rule] * 60


@pytest.mark.parametrize("rule", Rule)
async def test_many_at_once(attempts: RedisAttempts, rule: Rule) -> None:
    """Concurrent attempts are admitted up to the limit."""
    assert await taken(attempts, rule, "somebody") == MOST[rule]


async def test_processes_count_together(attempts: RedisAttempts, redis_server: RedisServer, prefix: str) -> None:
    """Processes with the same prefix count together, and other prefixes apart."""
    others = RedisAttempts(redis_server, prefix, MOST)
    both = await asyncio.gather(*(taken(each, Rule.ACCOUNT, "somebody") for each in (attempts, others)))
    assert sum(both) == MOST[Rule.ACCOUNT]
    elsewhere = RedisAttempts(redis_server, f"{prefix}x", MOST)
    assert await taken(elsewhere, Rule.ACCOUNT, "somebody") == MOST[Rule.ACCOUNT]


async def test_subjects_are_apart(attempts: RedisAttempts) -> None:
    """Each subject has its own count, whatever its name."""
    for subject in ("", "somebody", "Somebody", "somebody/3", "*", "字\0", "::1", "x" * 100_000):
        assert await taken(attempts, Rule.ACCOUNT, subject, 10) == MOST[Rule.ACCOUNT]


async def test_rules_are_apart(attempts: RedisAttempts) -> None:
    """Each rule has its own count."""
    for rule in Rule:
        assert await taken(attempts, rule, "somebody", 10) == MOST[rule]


async def test_attempts_are_forgiven(attempts: RedisAttempts) -> None:
    """`forgive` resets the count of one subject by one rule, and does nothing if there is none."""
    await attempts.forgive(Rule.ACCOUNT, "somebody")
    for rule, subject in ((Rule.ACCOUNT, "somebody"), (Rule.ACCOUNT, "other"), (Rule.ADDRESS, "somebody")):
        await taken(attempts, rule, subject, 10)
    await attempts.forgive(Rule.ACCOUNT, "somebody")
    assert await taken(attempts, Rule.ACCOUNT, "somebody") == MOST[Rule.ACCOUNT]
    assert await taken(attempts, Rule.ACCOUNT, "other") == 0
    assert await taken(attempts, Rule.ADDRESS, "somebody") == 0


async def test_every_key_expires(attempts: RedisAttempts, redis: Redis, prefix: str) -> None:
    """Each key expires within two windows, and none contains its subject."""
    for rule in Rule:
        await taken(attempts, rule, "somebody", 10)
    found = [key async for key in redis.scan_iter("*") if prefix in key]
    assert len(found) == len(Rule)
    for key in found:
        assert "somebody" not in key
        assert 0 < await redis.ttl(key) <= 2 * 60 * max(MINUTES.values())


async def test_redis_away(redis_away: RedisServer, prefix: str) -> None:
    """An attempt fails while Redis is unavailable."""
    attempts = RedisAttempts(redis_away, prefix, MOST)
    for call in (attempts.take(Rule.ACCOUNT, "somebody"), attempts.forgive(Rule.ACCOUNT, "somebody")):
        with pytest.raises(StorageUnavailable):
            await call
