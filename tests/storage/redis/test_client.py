"""Tests of what all stores in Redis share: errors, unsuitable servers, rights, and a failover."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from models.errors import DatabaseReadOnly, DatabaseRefused, StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages
from storage.redis.broker import RedisBroker
from storage.redis.client import (
    RedisServer,
    UnsuitableRedisError,
    redis_client,
    redis_errors,
    rule_of,
    subscriber_client,
)
from tests.storage.redis.test_broker import ANN, BOB
from tests.support.chats import Ear
from tests.support.patience import PATIENCE
from tests.support.redis_process import free_port, redis_process, url_of
from tests.support.sockets import until

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


@pytest.mark.parametrize(
    "error",
    [
        ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_writes_that_are_refused_for_a_time(error: Exception) -> None:
    """A replica, and a primary with too few replicas, may take writes later, but answer reads meanwhile."""
    with pytest.raises(DatabaseReadOnly) as caught, redis_errors():
        raise error
    assert caught.value.summary.endswith("refuses writes")


async def test_a_wrong_password(io_loop: IOLoop, addresses: Addresses, prefix: str) -> None:
    """A user or a password that Redis refuses is a permanent error, although the driver calls it a connection error."""
    path = addresses.redis.removeprefix("unix://")
    server = RedisServer(f"unix://unknown:secret@{path}", timeout=PATIENCE, connections=2)
    with pytest.raises(DatabaseRefused) as caught:
        await server.ping(prefix)
    assert (caught.value.kind, caught.value.summary) == ("NOAUTH", "it refuses the user or the password")
    await server.close()


async def test_readiness_writes(redis_server: RedisServer, redis: Redis, prefix: str) -> None:
    """A Redis that cannot be written to is neither ready nor suitable. Its refusal is logged once, and its end too."""
    await redis_server.ping(prefix)
    await redis.config_set("maxmemory", "1000")
    try:
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(DatabaseRefused, match="maxmemory"):
                    await redis_server.ping(prefix)
        with pytest.raises(UnsuitableRedisError, match=r"its memory is full .* raise its maxmemory"):
            await redis_server.check_rights(prefix)
    finally:
        await redis.config_set("maxmemory", "0")
    with capture_logs() as later:
        await redis_server.ping(prefix)
    assert [(entry["event"], entry["database"]) for entry in logs] == [("database_refused", "redis")]
    assert [(entry["event"], entry["database"]) for entry in later] == [("refusal_ended", "redis")]


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


async def test_passwords(io_loop: IOLoop, tmp_path: Path, prefix: str) -> None:
    """The default user or another one signs in with a password of any characters, as docs/operations.md spells them."""
    password = "/:@?#% of a URL"
    with redis_process(tmp_path, "own") as path:
        async with Redis.from_url(url_of(path)) as admin:
            await admin.execute_command("ACL", "SETUSER", "chat", "on", f">{password}", *rule_of(prefix).split())
            await admin.config_set("requirepass", password)
        for user in ("", "chat"):
            server = RedisServer(f"unix://{user}:{quote(password, safe='')}@{quote(str(path))}", PATIENCE, 2)
            await server.prepare(prefix)
            await server.check_rights(prefix)
            await server.close()


@pytest.mark.parametrize(
    ("setting", "value"), [("maxmemory-policy", "allkeys-lru"), ("maxmemory-policy", "volatile-ttl")]
)
async def test_a_redis_that_evicts(redis_server: RedisServer, redis: Redis, setting: str, value: str) -> None:
    """A Redis that evicts keys is refused, since a lost counter would allow too many messages."""
    await redis_server.prepare("tandem")
    await redis.config_set(setting, value)
    try:
        with pytest.raises(UnsuitableRedisError, match="noeviction"):
            await redis_server.prepare("tandem")
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_a_replica(redis_server: RedisServer, redis: Redis) -> None:
    """A replica is refused at start, and the error has the address of its primary."""
    await redis.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(UnsuitableRedisError, match=r"replica.*127\.0\.0\.1:1"):
            await redis_server.prepare("tandem")
    finally:
        await redis.replicaof("NO", "ONE")


async def test_a_node_of_a_cluster(io_loop: IOLoop, tmp_path: Path) -> None:
    """A node of a cluster is refused at start, since it would refuse most keys."""
    port, bus = free_port(), free_port()
    arguments = ("--port", str(port), "--cluster-enabled", "yes", "--cluster-port", str(bus), "--bind", "127.0.0.1")
    with redis_process(tmp_path, "node", *arguments) as path:
        server = RedisServer(url_of(path), timeout=5, connections=2)
        with pytest.raises(UnsuitableRedisError, match="Cluster"):
            await server.prepare("tandem")
        await server.close()


async def test_a_sentinel(io_loop: IOLoop, tmp_path: Path) -> None:
    """A Sentinel is refused at start, since it stores no data."""
    with redis_process(tmp_path, "sentinel", "--port", str(free_port()), "--sentinel") as path:
        server = RedisServer(url_of(path), timeout=5, connections=2)
        with pytest.raises(UnsuitableRedisError, match="Sentinel"):
            await server.prepare("tandem")
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


def without(rule: str, right: str) -> list[str]:
    """Return the parts of an ACL rule except one."""
    return [part for part in rule.split() if part != right]


async def test_the_rights_that_are_enough(as_user: As, prefix: str) -> None:
    """A user with the documented rights passes all checks; tests/test_redis.py runs a server with them."""
    server = await as_user(*rule_of(prefix).split())
    await server.prepare(prefix)
    await server.check_rights(prefix)
    await server.ping(prefix)


@pytest.mark.parametrize("right", rule_of("{}").split())
async def test_a_right_that_is_missing(as_user: As, prefix: str, right: str) -> None:
    """A missing right is named at start, together with the rule that is enough, and the start does not hang."""
    rule, right = rule_of(prefix), right.format(prefix)
    server = await as_user(*without(rule, right))
    with pytest.raises(UnsuitableRedisError) as caught:
        await server.prepare(prefix)
        await server.check_rights(prefix)
    assert re.search(rf"missing in its ACL: .*{re.escape(right)}|'{right[1:]}' command", str(caught.value))
    assert str(caught.value).endswith(f"this rule is enough: {rule}")


async def test_another_database_number(
    as_user: As, io_loop: IOLoop, addresses: Addresses, redis: Redis, prefix: str
) -> None:
    """A database number other than 0 needs one right more, which is named."""
    await as_user(*rule_of(prefix).split())
    url = f"unix://{prefix}:secret@{addresses.redis.removeprefix('unix://')}?db=1"
    server = RedisServer(url, timeout=PATIENCE, connections=2)
    with pytest.raises(UnsuitableRedisError, match=r"its user lacks rights .*'select' command"):
        await server.prepare(prefix)
    await redis.execute_command("ACL", "SETUSER", prefix, "+select")
    await server.prepare(prefix)
    await server.check_rights(prefix)
    await server.close()


async def test_a_channel_of_another_program(as_user: As, prefix: str) -> None:
    """Rights to other channels are not enough."""
    server = await as_user(*without(rule_of(prefix), f"&{prefix}:*"), "&another:*")
    with pytest.raises(UnsuitableRedisError, match=f"ACL: &{prefix}:"):
        await server.check_rights(prefix)


@pytest.mark.parametrize("right", ["incrby", "script|exists", "publish"])
async def test_a_right_that_is_lost_while_it_runs(as_user: As, redis: Redis, prefix: str, right: str) -> None:
    """A right that is lost later is a refusal that is logged, and not a bug."""
    rule = rule_of(prefix)
    server = await as_user(*rule.split())
    await server.ping(prefix)
    with capture_logs() as logs:
        for rules in (without(rule, f"+{right}"), rule.split()):
            await redis.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">secret", *rules)
            for _ in range(2):
                try:
                    await server.ping(prefix)
                except DatabaseRefused as error:
                    assert (error.kind, error.summary) == ("NOPERM", "its user lacks rights")
    assert [entry["event"] for entry in logs] == ["database_refused", "refusal_ended"]
    assert f"missing in its ACL: +{right}" in logs[0]["reason"]


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
