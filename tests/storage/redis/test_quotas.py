"""Tests of quotas in Redis: strangers in an hour and bytes in a day, for each account."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from models.errors import QuotaReached, StorageUnavailable
from storage.redis.client import RedisServer
from storage.redis.quotas import DAY, HOUR, RedisQuotas
from tests.support.redis_process import redis_process, url_of

ANN, BOB = 7, 9
MOST = 3


@pytest.fixture
def quotas(redis_server: RedisServer, prefix: str) -> RedisQuotas:
    """Quotas of three strangers and a hundred bytes."""
    return RedisQuotas(redis_server, prefix, strangers=MOST, size=100)


async def test_as_many_strangers_as_allowed(quotas: RedisQuotas) -> None:
    """Strangers up to the quota pass, each counted once, and the error for another one has the time to wait."""
    for recipient in (1, 2, 1, 3, 3, 2):
        await quotas.take_stranger(ANN, recipient)
    with pytest.raises(QuotaReached) as caught:
        await quotas.take_stranger(ANN, 4)
    assert 0 < caught.value.retry_after <= HOUR
    await quotas.take_stranger(ANN, 3)
    await quotas.take_stranger(BOB, 4)


async def test_many_strangers_at_once(quotas: RedisQuotas, redis_server: RedisServer, prefix: str) -> None:
    """Concurrent strangers are limited, also through two processes."""
    other = RedisQuotas(redis_server, prefix, strangers=MOST, size=100)
    calls = (each.take_stranger(ANN, number) for number in range(50) for each in (quotas, other))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), QuotaReached}
    assert outcomes.count(None) == 2 * MOST


async def test_a_time_that_is_over(quotas: RedisQuotas, redis: Redis, prefix: str) -> None:
    """Strangers of an hour ago do not count."""
    for recipient in range(MOST):
        await quotas.take_stranger(ANN, recipient)
    await redis.delete(f"{prefix}:strangers:{ANN}")  # as if it had expired
    for recipient in range(MOST):
        await quotas.take_stranger(ANN, recipient + MOST)
    with pytest.raises(QuotaReached):
        await quotas.take_stranger(ANN, 0)


async def test_bytes(quotas: RedisQuotas, redis_server: RedisServer, prefix: str) -> None:
    """Bytes count together in all processes, and an account without bytes left is known after that."""
    other = RedisQuotas(redis_server, prefix, strangers=MOST, size=100)
    for each in (quotas, other):
        for size in (20, 30):
            each.note(ANN, size)
        each.note(BOB, 10)
        await each.close()
    assert set(quotas.spent) == set()
    other.note(ANN, 1)
    await other.close()
    assert set(other.spent) == {ANN}
    with pytest.raises(QuotaReached, match="bytes") as caught:
        other.require_bytes_left(ANN)
    assert 0 < caught.value.retry_after <= DAY
    other.require_bytes_left(BOB)
    quotas.note(ANN, 1)  # another process learns this when it counts bytes itself
    await quotas.close()
    assert set(quotas.spent) == {ANN}


async def test_a_day_that_is_over(quotas: RedisQuotas) -> None:
    """A day later the account has bytes again."""
    quotas.note(ANN, 101)
    await quotas.close()
    quotas.spent[ANN] = asyncio.get_running_loop().time() - 1
    quotas.require_bytes_left(ANN)
    assert not quotas.spent


async def test_every_key_expires(quotas: RedisQuotas, redis: Redis, prefix: str) -> None:
    """Every key has a lifetime, which is restored if it was lost."""
    await quotas.take_stranger(ANN, 1)
    quotas.note(ANN, 5)
    await quotas.close()
    assert 0 < await redis.ttl(f"{prefix}:strangers:{ANN}") <= HOUR
    await redis.persist(f"{prefix}:bytes:{ANN}")
    quotas.note(ANN, 5)
    await quotas.close()
    assert 0 < await redis.ttl(f"{prefix}:bytes:{ANN}") <= DAY


async def test_without_bounds(redis_server: RedisServer, redis: Redis, prefix: str) -> None:
    """With quotas of 0 nothing is counted."""
    quotas = RedisQuotas(redis_server, prefix, strangers=0, size=0)
    for number in range(20):
        await quotas.take_stranger(ANN, number)
    quotas.note(ANN, 10**9)
    await quotas.close()
    assert [key async for key in redis.scan_iter(f"{prefix}*")] == []


async def test_redis_away(tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is unavailable no stranger is written to, and a limited number of accounts' bytes is gathered."""
    monkeypatch.setattr("storage.redis.quotas.MAX_GATHERED", 50)
    server = RedisServer(url_of(tmp_path / "r.sock"), timeout=5, connections=1)
    quotas = RedisQuotas(server, prefix, strangers=MOST, size=100)
    with pytest.raises(StorageUnavailable):
        await quotas.take_stranger(ANN, 1)
    for sender in range(60):
        quotas.note(sender, 1)
    quotas.note(1, 1)
    await quotas.close()
    with redis_process(tmp_path, "r"):
        await quotas.close()
        counted = [key async for key in server.client.scan_iter(f"{prefix}:bytes:*", count=1000)]
        assert (len(counted), await server.client.get(f"{prefix}:bytes:1")) == (50, "2")
        await server.close()
