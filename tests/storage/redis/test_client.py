"""Tests of what all stores in Redis share: errors, unsuitable servers, rights, and a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from models.accounts.ports import Rule
from models.chat.events import Typing
from models.errors import DatabaseRefused, StorageUnavailable
from models.records import Identity
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages
from storage.redis.attempts import RedisAttempts
from storage.redis.broker import RedisBroker
from storage.redis.client import RedisServer, UnsuitableRedisError, redis_client, redis_errors, subscriber_client
from storage.redis.counters import RedisCounters
from storage.redis.quotas import RedisQuotas
from storage.redis.tickets import RedisTickets
from tests.storage.redis.test_broker import ANN, BOB
from tests.support.chats import Ear
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE
from tests.support.redis_process import free_port, redis_process, url_of
from tests.support.sockets import until

# The rights that docs/operations.md lists.
ENOUGH = ["+@scripting", "+@pubsub", "+@connection", "+info", "+ping", "+time", "+get", "+mget", "+set", "+getdel"]
ENOUGH += ["+del", "+exists", "+rename", "+incr", "+incrby", "+decr", "+expire", "+pexpire", "+ttl", "+pttl"]
ENOUGH += ["+sadd", "+scard", "+sismember"]

As = Callable[..., Awaitable[RedisServer]]


@pytest.mark.parametrize("make", [lambda url: redis_client(url, 1, 2), lambda url: subscriber_client(url, 1)])
async def test_no_redis(make: object, tmp_path: object) -> None:
    """The driver's error becomes StorageUnavailable, which names Redis."""
    client = make(f"unix://{tmp_path}/nobody.sock")  # type: ignore[operator]
    with pytest.raises(StorageUnavailable, match="redis"), redis_errors():
        await client.ping()
    await client.aclose()


def test_an_invalid_url() -> None:
    """An invalid URL raises ValueError before anything is connected."""
    for make in (lambda: RedisServer("mysql://x", 1, 2), lambda: subscriber_client("mysql://x", 1)):
        with pytest.raises(ValueError, match="scheme"):
            make()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RedisConnectionError("gone"), None),
        (TimeoutError(), None),
        (OSError("no route"), None),
        (ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"), None),
        (ResponseError("LOADING Redis is loading the dataset in memory"), None),
        (ResponseError("BUSY Redis is busy running a script"), None),
        (NoPermissionError("no permissions to run the 'set' command", status_code="NOPERM"), "NOPERM"),
        (ResponseError("ERR The user executing the script can't run this command or subcommand"), "NOPERM"),
        (OutOfMemoryError("command not allowed", status_code="OOM"), "OOM"),
        (ResponseError("MISCONF Redis is unable to persist to disk"), "MISCONF"),
        (ResponseError("WRONGTYPE Operation against a key"), "WRONGTYPE"),
        (MovedError("3999 127.0.0.1:6381"), "MOVED"),
    ],
)
def test_permanent_and_temporary_errors(error: Exception, kind: str | None) -> None:
    """Only a permanent error is a refusal, with Redis's own code."""
    with pytest.raises(StorageUnavailable) as caught, redis_errors():
        raise error
    assert getattr(caught.value, "kind", None) == kind
    assert isinstance(caught.value, DatabaseRefused) == (kind is not None)


async def test_readiness_writes(redis_server: RedisServer, redis: Redis, prefix: str) -> None:
    """A Redis that cannot be written to is not ready, and the cause is logged once."""
    await redis_server.ping(prefix)
    await redis.config_set("maxmemory", "1000")
    try:
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(DatabaseRefused, match="maxmemory"):
                    await redis_server.ping(prefix)
        assert [(entry["event"], entry["database"]) for entry in logs] == [("database_refused", "redis")]
    finally:
        await redis.config_set("maxmemory", "0")
    await redis_server.ping(prefix)


async def test_an_outage(io_loop: IOLoop, tmp_path: Path, prefix: str) -> None:
    """An outage is logged once with its cause when it begins, and once when it ends."""
    server = RedisServer(url_of(tmp_path / "r.sock"), timeout=5, connections=4)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await server.ping(prefix)
        with redis_process(tmp_path, "r"):
            await server.ping(prefix)
            await server.ping(prefix)
            await server.close()
    assert [entry["event"] for entry in logs] == ["outage_began", "outage_ended"]


@pytest.mark.parametrize(
    ("setting", "value"), [("maxmemory-policy", "allkeys-lru"), ("maxmemory-policy", "volatile-ttl")]
)
async def test_a_redis_that_evicts(redis_server: RedisServer, redis: Redis, setting: str, value: str) -> None:
    """A Redis that evicts keys is refused, since a lost counter would allow too many messages."""
    await redis_server.prepare()
    await redis.config_set(setting, value)
    try:
        with pytest.raises(UnsuitableRedisError, match="noeviction"):
            await redis_server.prepare()
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_a_replica(redis_server: RedisServer, redis: Redis) -> None:
    """A replica is refused at start, and the error has the address of its primary."""
    await redis.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(UnsuitableRedisError, match=r"replica.*127\.0\.0\.1:1"):
            await redis_server.prepare()
    finally:
        await redis.replicaof("NO", "ONE")


async def test_a_node_of_a_cluster(io_loop: IOLoop, tmp_path: Path) -> None:
    """A node of a cluster is refused at start, since it would refuse most keys."""
    port, bus = free_port(), free_port()
    arguments = ("--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus), "--bind", "127.0.0.1")
    with redis_process(tmp_path, "node", *arguments) as path:
        server = RedisServer(url_of(path), timeout=5, connections=2)
        with pytest.raises(UnsuitableRedisError, match="Cluster"):
            await server.prepare()
        await server.close()


async def test_a_sentinel(io_loop: IOLoop, tmp_path: Path) -> None:
    """A Sentinel is refused at start, since it stores no data."""
    with redis_process(tmp_path, "sentinel", "--port", str(free_port()), "--sentinel") as path:
        server = RedisServer(url_of(path), timeout=5, connections=2)
        with pytest.raises(UnsuitableRedisError, match="Sentinel"):
            await server.prepare()
        await server.close()


# Rights


@pytest.fixture
def as_user(io_loop: IOLoop, addresses: Addresses, redis: Redis, prefix: str) -> Iterator[As]:
    """Return Redis with the rights of a user with these rules."""
    opened: list[RedisServer] = []

    async def make(*rules: str) -> RedisServer:
        await redis.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">secret", *rules)
        path = addresses.redis.removeprefix("unix://")
        opened.append(RedisServer(f"unix://{prefix}:secret@{path}", timeout=2, connections=4))
        return opened[-1]

    yield make
    for server in opened:
        io_loop.run_sync(server.close)
    io_loop.run_sync(lambda: redis.execute_command("ACL", "DELUSER", prefix))


async def test_the_rights_that_are_enough(
    as_user: As, prefix: str, messages: MongoMessages, clock: Clock, pair: tuple[int, int]
) -> None:
    """A user with the documented rights can do all that the stores do."""
    server = await as_user(f"~{prefix}:*", f"&{prefix}:*", *ENOUGH)
    await server.prepare()
    await server.check_rights(prefix)
    await server.ping(prefix)

    async def nothing(until: int) -> tuple[int, int]:
        return 0, 0

    counters = RedisCounters(server, prefix, RedisQuotas(server, prefix, strangers=1, size=1))
    await counters.give_back(await counters.admit(*pair, nothing))
    counters.gather(*pair, nothing, "hi")
    counters.weigh(pair[0], "hi")
    await counters.close()
    tickets = RedisTickets(server, prefix, messages.peers, lifetime=30, clock=clock)
    assert await tickets.redeem(await tickets.issue(Identity(7))) == Identity(7)
    attempts = RedisAttempts(server, prefix, dict.fromkeys(Rule, 2))
    for rule in Rule:
        await attempts.take(rule, "subject")
        await attempts.forgive(rule, "subject")
    broker, ear = RedisBroker(server, prefix, messages.peers), Ear()
    await broker.start(ear)
    broker.follow(*pair)
    await until(lambda: pair in ear.channels)
    assert await broker.online([pair[1]]) == set()
    broker.publish(Typing(*pair))
    await broker.close()


@pytest.mark.parametrize("right", [rule for rule in ENOUGH if not rule.startswith("+@")])
async def test_a_right_that_is_missing(as_user: As, prefix: str, right: str) -> None:
    """A missing right is named at start."""
    server = await as_user(f"~{prefix}:*", f"&{prefix}:*", *ENOUGH, right.replace("+", "-"))
    with pytest.raises(UnsuitableRedisError, match=right[1:].upper()):
        await server.prepare()
        await server.check_rights(prefix)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["~{}:*", "&{}:*", "-@scripting"], "EVALSHA"),
        (["~{}:*", "&{}:*", "-subscribe"], "SUBSCRIBE"),
        (["~{}:*", "resetchannels"], "PUBLISH"),
        (["~{}:*", "&another:*"], "PUBLISH"),
        (["~another:*", "&{}:*"], "EVALSHA"),
    ],
)
async def test_rights_that_are_too_few(as_user: As, prefix: str, rules: list[str], said: str) -> None:
    """Without rights for channels, keys or scripts, the start fails with one line and does not hang."""
    server = await as_user(*ENOUGH, *(rule.format(prefix) for rule in rules))
    with pytest.raises(UnsuitableRedisError, match=said):
        await server.check_rights(prefix)


async def test_a_right_that_is_lost_while_it_runs(as_user: As, redis: Redis, prefix: str) -> None:
    """A right that is lost later is a refusal that is logged, and not a bug."""
    server = await as_user(f"~{prefix}:*", f"&{prefix}:*", *ENOUGH)
    await server.ping(prefix)
    await redis.execute_command("ACL", "SETUSER", prefix, "-set")
    with capture_logs() as logs, pytest.raises(DatabaseRefused) as caught:
        await server.ping(prefix)
    assert caught.value.kind == "NOPERM"
    assert [entry["event"] for entry in logs] == ["database_refused"]


# Failover


async def test_a_primary_that_becomes_a_replica(
    io_loop: IOLoop, tmp_path: Path, prefix: str, messages: MongoMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections and subscriptions to a primary that became a replica are dropped, and made to the new primary."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.2)
    link = tmp_path / "redis.sock"
    with redis_process(tmp_path, "old") as old, redis_process(tmp_path, "new") as new:
        link.symlink_to(old)
        server = RedisServer(url_of(link), timeout=5, connections=4)
        broker, ear = RedisBroker(server, prefix, messages.peers), Ear()
        await broker.start(ear)
        broker.follow(ANN, BOB)
        await until(lambda: (ANN, BOB) in ear.channels)
        await asyncio.gather(*(server.ping(prefix) for _ in range(4)))  # as many connections as there may be
        old_client, new_client = (Redis.from_url(url_of(path), decode_responses=True) for path in (old, new))
        link.unlink()
        link.symlink_to(new)
        await old_client.replicaof("127.0.0.1", "1")
        channel = f"{prefix}:pair:{ANN}->{BOB}"

        async def arrived() -> bool:
            return (await new_client.pubsub_numsub(channel))[0][1] == 1 and ear.interruptions > 1

        async with asyncio.timeout(PATIENCE):
            while not await arrived():
                await asyncio.sleep(0.01)
        await asyncio.gather(*(server.ping(prefix) for _ in range(8)))
        assert len(await old_client.client_list()) == 1  # the test's own
        await broker.close()
        for client in (old_client, new_client):
            await client.aclose()
        await server.close()
