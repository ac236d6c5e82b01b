"""Redis, as all stores in it share it: connections, checks that it is suitable, and its errors.

After a failover, connections to the old primary may stay open, and it refuses to write. So an error that says this ends
the connections, and new ones are made to the address, which leads to the new primary.
"""

from __future__ import annotations

import asyncio
import re
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
from models.errors import DatabaseReadOnly, DatabaseRefused, StorageUnavailable
from storage.outages import Outages

__all__ = [
    "CHECK",
    "MOVED",
    "RedisServer",
    "UnsuitableRedisError",
    "redis_client",
    "redis_errors",
    "rule_of",
    "subscriber_client",
]

# The commands that the stores use, as ACL rules name them. docs/operations.md has the same list.
RIGHTS: tuple[str, ...]
RIGHTS = ("info", "evalsha", "script|load", "script|exists", "publish", "subscribe", "unsubscribe", "pubsub|numsub")
RIGHTS += ("ping", "time", "get", "set", "getdel", "del", "exists", "rename", "incrby", "decr", "expire", "pttl")
RIGHTS += ("sadd", "scard", "sismember")
CHECK = "check"  # the last part of the names of the key and the channel that `check` uses
# Temporary errors: Redis is loading its data, or a cluster or the replicas of a primary are changing.
PASSING = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
NOT_WRITABLE = ("READONLY", "NOREPLICAS")  # temporary too, but reads are answered
MOVED = "MOVED"  # the error of a Redis Cluster, in which each node has a part of the keys
DENIED = ("can't run this command", "can't access", "can't publish", "no permissions")  # texts for NOPERM in scripts
# Why Redis does not do what it is asked, by the code of its error, and what an operator can do.
CAUSES = {
    "NOPERM": ("its user lacks rights", "give it the rights in docs/operations.md"),
    "NOAUTH": ("it refuses the user or the password", "correct them in --redis"),
    "OOM": ("its memory is full", "raise its maxmemory, or remove what other programs store there"),
    "MISCONF": ("it cannot save its data and refuses writes", "its log has the cause; the disk may be full"),
    "MOVED": ("it is a node of a Redis Cluster", "use a single primary"),
    "READONLY": ("it is a replica and refuses writes", "set --redis to the address of its primary"),
    "NOREPLICAS": ("it has too few replicas and refuses writes", "start them, or lower its min-replicas-to-write"),
}
OTHERWISE = ("it refuses what the server asks", "the error has the cause")

_denied_command = re.compile(r"to run the '([^']+)' command")
_source = Path(__file__).parent


class UnsuitableRedisError(Exception):
    """This Redis cannot be used. The text says why, and what to do."""


def rule_of(prefix: str) -> str:
    """Return the ACL rule that is enough for keys and channels below `prefix`."""
    return " ".join((f"~{prefix}:*", f"&{prefix}:*", *(f"+{right}" for right in RIGHTS)))


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
        driver_info=None,  # or each connection tells the driver's name, which takes a right of its own
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
        driver_info=None,  # or each connection tells the driver's name, which takes a right of its own
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
        self._rights = self.client.register_script((_source / "rights.lua").read_text("utf-8"))
        self.subscription_failure: StorageUnavailable | None = None
        """Why the last attempt to subscribe failed; Subscription sets it."""

    async def close(self) -> None:
        """End all connections."""
        if self._dropping is not None:
            await end(self._dropping)
        await self.client.aclose()
        await self.subscriber.aclose()

    @contextmanager
    def errors(self, *, complete: bool = False) -> Iterator[None]:
        """Translate the driver's errors, log outages, and drop connections to a Redis that is not primary any more.

        `complete` is for `check`, which tries all that the stores do (storage/outages.py).
        """
        try:
            with self._outages.watch(complete=complete), redis_errors():
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

    async def prepare(self, prefix: str) -> None:
        """Check that this Redis is suitable. Raises UnsuitableRedisError, StorageUnavailable."""
        with _suitability(rule_of(prefix)), redis_errors():
            found = await self.client.info()
        if found.get("redis_mode") == "sentinel":
            raise UnsuitableRedisError("this is a Sentinel; set --redis to the address of the primary itself")
        if found.get("cluster_enabled") or found.get("redis_mode") == "cluster":
            raise UnsuitableRedisError(
                "this is a node of a Redis Cluster, which is not supported; use a single primary"
            )
        if found.get("role", "master") != "master":
            raise UnsuitableRedisError(
                f"this is a replica, which cannot be written to; set --redis to its primary, which is at "
                f"{found.get('master_host')}:{found.get('master_port')}"
            )
        policy = found.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise UnsuitableRedisError(f"maxmemory-policy is {policy}; set it to noeviction for the limit rule")

    async def check_rights(self, prefix: str) -> None:
        """Try all that the stores do, with keys and channels below `prefix`.

        Raises UnsuitableRedisError, StorageUnavailable.
        """
        with _suitability(rule_of(prefix)), redis_errors():
            await self._try_commands(prefix)
            await self._subscribe_once(prefix)

    async def _subscribe_once(self, prefix: str) -> None:
        channel, pubsub = f"{prefix}:{CHECK}", self.subscriber.pubsub()
        try:
            async with asyncio.timeout(self._timeout):
                await pubsub.subscribe(channel)
                await pubsub.unsubscribe(channel)
                confirmed = 0
                while confirmed < 2:
                    confirmed += await pubsub.get_message(timeout=self._timeout) is not None
        except NoPermissionError as error:
            raise _lacking({_missing(prefix, str(error))}) from error
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it so

    async def ping(self, prefix: str) -> None:
        """Check Redis as `check` does, and the subscription. Raises StorageUnavailable, also for a refusal."""
        await self.check(prefix)
        if self.subscription_failure is not None:
            raise self.subscription_failure.with_traceback(None)  # raised often; each time would add to it

    async def check(self, prefix: str) -> None:
        """Try all that the stores do, with keys below `prefix`. Raises StorageUnavailable, also for a refusal."""
        with self.errors(complete=True):
            await self._try_commands(prefix)
            if isinstance(self.subscription_failure, DatabaseRefused):
                raise self.subscription_failure.with_traceback(None)

    async def _try_commands(self, prefix: str) -> None:
        """Try each command in one round trip. Raises the driver's error; for rights one error that names all."""
        key = channel = f"{prefix}:{CHECK}"
        script = self._rights
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.script_load(script.script)
            pipe.script_exists(script.sha)
            pipe.evalsha(script.sha, 1, key, channel)
            loaded, listed, refused = await pipe.execute(raise_on_error=False)
        failed = [error for error in (loaded, listed, refused) if isinstance(error, Exception)]
        if not isinstance(refused, Exception):
            failed += (_command_error(name, text) for name, text in refused)
        if denied := [error for error in failed if isinstance(error, NoPermissionError)]:
            raise _lacking({_missing(prefix, str(error)) for error in denied})
        if failed:
            raise failed[0]


def _command_error(name: str, text: str) -> RedisError:
    """Return the driver's error for a command that failed in a script."""
    if text.startswith("NOPERM") or any(word in text for word in DENIED):
        what = f"to run the '{name}' command" if "run this command" in text else ""
        return NoPermissionError(f"{text} {what}")
    return ReadOnlyError(text, status_code="READONLY") if text.startswith("READONLY") else ResponseError(text)


def _missing(prefix: str, text: str) -> str:
    """Return the part of the ACL rule that is missing, by Redis's text."""
    if found := _denied_command.search(text):
        return f"+{found[1]}"
    return f"&{prefix}:*" if "channel" in text else f"~{prefix}:*"


def _lacking(missing: set[str]) -> NoPermissionError:
    return NoPermissionError(f"missing in its ACL: {' '.join(sorted(missing))}", status_code="NOPERM")


@contextmanager
def _suitability(rule: str) -> Iterator[None]:
    """Turn an error into UnsuitableRedisError, which says what to do. `rule` is the ACL rule that is enough."""
    try:
        yield
    except (DatabaseReadOnly, DatabaseRefused) as error:
        kind = error.kind if isinstance(error, DatabaseRefused) else _code_of(error.__cause__)
        why, remedy = CAUSES.get(kind, OTHERWISE)
        if kind == "NOPERM":
            remedy = f"this rule is enough: {rule}"
        raise UnsuitableRedisError(f"{why} ({error.__cause__}); {remedy}") from None


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn the driver's errors into StorageUnavailable, DatabaseReadOnly, or DatabaseRefused for permanent ones."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        reason, kind = type(error).__name__ + (f": {error}" if str(error) else ""), _kind_of(error)
        if kind in NOT_WRITABLE:
            raise DatabaseReadOnly("redis", reason, CAUSES[kind][0]) from error
        if kind:
            raise DatabaseRefused("redis", reason, kind, CAUSES.get(kind, OTHERWISE)[0]) from error
        raise StorageUnavailable("redis", reason) from error


def _kind_of(error: Exception) -> str:
    """Return Redis's code for a refusal; "" for an outage."""
    # A refusal while the driver connects is the cause of its own error.
    if isinstance(error, RedisConnectionError) and isinstance(error.__context__, NoPermissionError):
        return "NOPERM"
    if any(isinstance(each, AuthenticationError) for each in (error, error.__context__)):
        return "NOAUTH"
    if isinstance(error, (OSError, TimeoutError, RedisConnectionError, RedisTimeoutError, InvalidResponse)):
        return ""
    if isinstance(error, NoPermissionError) or any(word in str(error) for word in DENIED):
        return "NOPERM"
    if isinstance(error, AskError):
        return MOVED
    code = _code_of(error)
    if isinstance(error, TryAgainError | ClusterError) or (isinstance(error, ResponseError) and code in PASSING):
        return ""
    return code if code.isupper() else type(error).__name__


def _code_of(error: BaseException | None) -> str:
    """Return Redis's code of an error, which is the first word of its text."""
    return str(getattr(error, "status_code", None) or str(error).partition(" ")[0])
