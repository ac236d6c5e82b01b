"""Redis, as all stores in it share it: connections, checks that it is suitable, and its errors.

After a failover, connections to the old primary may stay open, and it refuses to write. So an error that says this ends
the connections, and new ones are made to the address, which leads to the new primary.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common.tasks import end
from models.errors import DatabaseRefused, StorageUnavailable
from storage.outages import Outages

__all__ = ["MOVED", "RedisServer", "UnsuitableRedisError", "redis_client", "redis_errors", "subscriber_client"]

READY_FOR = 1000  # lifetime of the key that `ping` writes, in milliseconds
# Temporary errors: Redis is loading its data, or a cluster or the replicas of a primary are changing.
PASSING = ("LOADING", "BUSY", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN", "READONLY")
MOVED = "MOVED"  # the error of a Redis Cluster, in which each node has a part of the keys
DENIED = ("can't run this command", "can't access", "can't publish", "no permissions")  # texts for NOPERM in scripts

_source = Path(__file__).parent


class UnsuitableRedisError(Exception):
    """This Redis cannot be used. The text says why, and what to do."""


def redis_client(url: str, timeout: float, connections: int) -> Redis:
    """Return a client for `url`, with at most `connections`, and `timeout` seconds for a call or a free connection."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        # A repeated command could count a message twice. The pool itself replaces connections that have died.
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        decode_responses=True,
    )
    return Redis.from_pool(pool)


def subscriber_client(url: str, timeout: float) -> Redis:
    """Return a client for a subscription. It waits for messages without a timeout, and does not reconnect by itself."""
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=timeout,
        protocol=2,  # with protocol 3, redis-py makes a log record of each pushed message
        # For a supported error redis-py connects again before it raises, also while another task reads.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
        health_check_interval=0,
    )


class RedisServer:
    """A Redis, with `client` for commands on up to `connections`, and `subscriber` for a subscription.

    `timeout` is in seconds, for each call. Raises ValueError for an invalid URL.
    """

    def __init__(self, url: str, timeout: float, connections: int) -> None:
        self.client = redis_client(url, timeout, connections)
        self.subscriber = subscriber_client(url, timeout)
        self._timeout = timeout
        self._outages = Outages("redis", time.monotonic)
        self._dropping: asyncio.Task[None] | None = None
        self._check = self.client.register_script((_source / "rights.lua").read_text("utf-8"))

    async def close(self) -> None:
        """End all connections."""
        if self._dropping is not None:
            await end(self._dropping)
        await self.client.aclose()
        await self.subscriber.aclose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the driver's errors, log outages, and drop connections to a Redis that is not primary any more."""
        try:
            with self._outages.watch(), redis_errors():
                yield
        except StorageUnavailable as error:
            if isinstance(error.__cause__, (ReadOnlyError, AskError)):  # MOVED is a kind of ASK
                self._drop()
            raise

    def _drop(self) -> None:
        """End the connections, so that new ones are made to the Redis that has the address now."""
        if self._dropping is None or self._dropping.done():
            self._dropping = asyncio.get_running_loop().create_task(self._disconnect())

    async def _disconnect(self) -> None:
        pool = self.client.connection_pool
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py leaves it so
        await pool.disconnect(inuse_connections=False)

    async def prepare(self) -> None:
        """Check that this Redis is suitable. Raises UnsuitableRedisError, StorageUnavailable."""
        try:
            with self.errors():
                found = await self.client.info()
        except DatabaseRefused as error:
            raise _unsuitable(error, "INFO") from None
        if found.get("redis_mode") == "sentinel":
            raise UnsuitableRedisError("this is a Sentinel; set --redis to the address of the primary itself")
        if found.get("cluster_enabled") or found.get("redis_mode") == "cluster":
            raise UnsuitableRedisError(
                "this is a node of a Redis Cluster, which is not supported; use a single primary"
            )
        if found.get("role", "master") != "master":
            raise UnsuitableRedisError(
                f"this is a replica, which cannot be written to; its primary is at "
                f"{found.get('master_host')}:{found.get('master_port')}"
            )
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise UnsuitableRedisError(f"maxmemory-policy is {policy}; set it to noeviction for the limit rule")

    async def check_rights(self, prefix: str) -> None:
        """Try each command that the stores use, with keys below `prefix`, since Redis does not tell a user's rights.

        Raises UnsuitableRedisError, StorageUnavailable.
        """
        key, channel = f"{prefix}:check:{secrets.token_hex(8)}", f"{prefix}:check"
        what = "EVALSHA, SCRIPT LOAD"
        try:
            with self.errors():
                refused: list[list[str]] = await self._check(keys=[key], args=[channel])
            denied = sorted({name for name, text in refused if any(word in text for word in DENIED)})
            if denied:
                raise UnsuitableRedisError(_rights(", ".join(denied)))
            if refused:
                raise UnsuitableRedisError("; ".join(f"{name}: {text}" for name, text in refused[:3]))
            what = "SUBSCRIBE"
            with self.errors():
                await self._subscribe_once(channel)
        except DatabaseRefused as error:
            raise _unsuitable(error, what) from None

    async def _subscribe_once(self, channel: str) -> None:
        pubsub = self.subscriber.pubsub()
        try:
            async with asyncio.timeout(self._timeout):
                await pubsub.subscribe(channel)
                while await pubsub.get_message(timeout=self._timeout) is None:
                    pass
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it so

    async def ping(self, prefix: str) -> None:
        """Raise StorageUnavailable unless Redis answers and can be written to."""
        with self.errors():
            await self.client.set(f"{prefix}:ready", 1, px=READY_FOR)


def _rights(what: str) -> str:
    return f"this user of Redis may not use {what}; docs/operations.md has the rights that it needs"


def _unsuitable(error: DatabaseRefused, what: str) -> UnsuitableRedisError:
    return UnsuitableRedisError(_rights(what) if error.kind == "NOPERM" else str(error))


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn the driver's errors into StorageUnavailable, or DatabaseRefused for permanent ones."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        reason, kind = type(error).__name__ + (f": {error}" if str(error) else ""), _kind_of(error)
        if kind:
            raise DatabaseRefused("redis", reason, kind) from error
        raise StorageUnavailable("redis", reason) from error


def _kind_of(error: Exception) -> str:
    """Return Redis's code for a permanent error, which an operator has to fix; "" for a temporary one."""
    if isinstance(error, AuthenticationError):
        return "NOAUTH"
    if isinstance(error, (OSError, TimeoutError, RedisConnectionError, RedisTimeoutError, InvalidResponse)):
        return ""
    if isinstance(error, NoPermissionError) or any(word in str(error) for word in DENIED):
        return "NOPERM"
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    if isinstance(error, (ReadOnlyError, TryAgainError)) or (isinstance(error, ResponseError) and code in PASSING):
        return ""
    if isinstance(error, AskError | ClusterError):
        return MOVED if isinstance(error, AskError) else ""
    return str(code) if str(code).isupper() else type(error).__name__
