"""Clients of Redis: one for requests, one for the subscription; and the driver's errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.errors import EngineUnavailable

__all__ = ["redis_client", "subscriber_client", "translated"]


def redis_client(url: str, timeout: float, connections: int) -> Redis:
    """A client for `url`: at most `connections`, `timeout` seconds for a call or for a free connection."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        # A repeated count would be one too many. The pool itself replaces connections that have died.
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=True,
    )
    return Redis.from_pool(pool)


def subscriber_client(url: str, timeout: float) -> Redis:
    """A client for a subscription to `url`: it waits for messages as long as it takes, and connects again when told."""
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=timeout,
        protocol=2,  # of what is pushed in the other one redis-py makes a log record each
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise EngineUnavailable("redis", f"{type(error).__name__}: {error}") from error
