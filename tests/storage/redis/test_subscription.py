"""Tests of a subscription: its channels, and how its connection is checked and renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from common.tasks import end
from models.errors import StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.redis.client import RedisServer, subscriber_client
from storage.redis.subscription import CHUNK, Subscriber, Subscription
from tests.support.patience import PATIENCE
from tests.support.redis_process import redis_process, url_of
from tests.support.sockets import until

HOME = "home"


class Ear:
    """A subscriber that records its calls."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.confirmed: list[str] = []
        self.connections = 0
        self.checks = 0
        self.trouble: Exception | None = None

    async def check(self) -> None:
        self.checks += 1
        if self.trouble is not None:
            raise self.trouble

    def connected(self) -> None:
        self.connections += 1


Open = Callable[..., tuple[Subscription, Ear]]
Count = Callable[[str], Awaitable[int]]


@pytest.fixture
def open_subscription(io_loop: IOLoop, redis_server: RedisServer, prefix: str) -> Iterator[Open]:
    """Make subscriptions that are not started."""
    opened: list[Subscription] = []

    def make(server: RedisServer = redis_server) -> tuple[Subscription, Ear]:
        ear = Ear()
        subscriber = Subscriber(ear.check, ear.connected, ear.confirmed.append, ear.received.append)
        opened.append(Subscription(server, prefix, HOME, subscriber))
        return opened[-1], ear

    async def close() -> None:
        for subscription in opened:
            await subscription.close()

    yield make
    io_loop.run_sync(close)


@pytest.fixture
def count(redis: Redis, prefix: str) -> Count:
    """Count the subscribers of a channel."""

    async def count_of(channel: str) -> int:
        return int((await redis.pubsub_numsub(f"{prefix}:{channel}"))[0][1])

    return count_of


async def test_channels_come_and_go(open_subscription: Open, redis: Redis, prefix: str) -> None:
    """What is published on a wanted channel is received, whether it was wanted before the start or later."""
    subscription, ear = open_subscription()
    subscription.want("early")
    await subscription.start()
    subscription.want("late")
    await subscription.settle(["early", "late"])
    assert (ear.connections, set(ear.confirmed)) == (1, {HOME, "early", "late"})
    for channel in (HOME, "early", "late", "other"):
        await redis.publish(f"{prefix}:{channel}", channel)
    await until(lambda: len(ear.received) == 3)
    subscription.unwant("early")
    await subscription.settle(["early"])
    for channel in ("early", "late"):
        await redis.publish(f"{prefix}:{channel}", channel)
    await until(lambda: len(ear.received) == 4)
    assert ear.received == [b"home", b"early", b"late", b"late"]


async def test_a_channel_that_is_wanted_twice(open_subscription: Open, count: Count) -> None:
    """Wanting a channel again changes nothing, and so does unwanting it again."""
    subscription, ear = open_subscription()
    await subscription.start()
    for _ in range(2):
        subscription.want("a")
        await subscription.settle(["a"])
        assert (subscription.has("a"), await count("a")) == (True, 1)
    for _ in range(2):
        subscription.unwant("a")
        await subscription.settle(["a"])
        assert (subscription.has("a"), await count("a")) == (False, 0)
    assert ear.confirmed == [HOME, "a"]


async def test_a_channel_that_changes_and_changes_back(open_subscription: Open, count: Count) -> None:
    """A channel that is unwanted and wanted again at once stays subscribed."""
    subscription, ear = open_subscription()
    await subscription.start()
    subscription.want("a")
    await subscription.settle(["a"])
    subscription.unwant("a")
    subscription.want("a")
    subscription.want("b")
    await subscription.settle(["a", "b"])
    assert ear.confirmed == [HOME, "a", "b"]
    assert await count("a") == 1


async def test_many_channels(open_subscription: Open) -> None:
    """More channels than one command takes are subscribed and unsubscribed."""
    subscription, _ = open_subscription()
    early, late = ([f"{name}:{number}" for number in range(2 * CHUNK + 1)] for name in ("early", "late"))
    for channel in early:
        subscription.want(channel)
    await subscription.start()
    for channel in late:
        subscription.want(channel)
    await subscription.settle(early + late)
    assert all(map(subscription.has, early + late))
    for channel in early + late:
        subscription.unwant(channel)
    await subscription.settle(early + late)
    assert not any(map(subscription.has, early + late))


async def test_a_connection_that_breaks(open_subscription: Open, redis: Redis, prefix: str) -> None:
    """A broken connection is renewed with the channels that are wanted then, also if these change at that moment."""
    subscription, ear = open_subscription()
    for channel in ("kept", "dropped"):
        subscription.want(channel)
    await subscription.start()
    await subscription.settle(["kept", "dropped"])
    ear.confirmed.clear()
    await redis.client_kill_filter(_type="pubsub")
    subscription.unwant("dropped")
    subscription.want("new")
    await until(lambda: ear.connections == 2)
    await subscription.settle(["kept", "dropped", "new"])
    assert set(ear.confirmed) >= {HOME, "kept", "new"}
    assert not subscription.has("dropped")
    await redis.publish(f"{prefix}:new", "x")
    await until(lambda: ear.received == [b"x"])


async def test_a_check_that_fails(open_subscription: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails ends the connection, and there is no other one until it passes."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.5)
    subscription, ear = open_subscription()
    await subscription.start()
    ear.trouble = StorageUnavailable("redis", "away")
    await until(lambda: not subscription.connected)
    checks = ear.checks
    await until(lambda: ear.checks >= checks + 2)
    assert not subscription.connected
    ear.trouble = None
    await until(lambda: subscription.connected)
    assert ear.connections == 2


async def test_a_bug_does_not_end_the_subscription(open_subscription: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is logged, and the connection is renewed."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.5)
    subscription, ear = open_subscription()
    await subscription.start()
    with capture_logs() as logs:
        ear.trouble = KeyError("a")
        await until(lambda: logs)
    ear.trouble = None
    await until(lambda: ear.connections == 2)
    assert logs[0]["event"] == "subscription_failed"


async def test_a_start_that_takes_too_long(open_subscription: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """`start` gives up after its time, with the reason, and leaves nothing running."""
    monkeypatch.setattr("storage.redis.subscription.START_WITHIN", 0.2)
    subscription, ear = open_subscription()
    ear.trouble = StorageUnavailable("redis", "too busy")
    with pytest.raises(StorageUnavailable, match=r"no subscription within 0.2 s: .*too busy"):
        await subscription.start()
    ear.trouble = None
    assert not subscription.connected
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_redis(open_subscription: Open, redis_away: RedisServer) -> None:
    """`start` raises StorageUnavailable at once without Redis."""
    subscription, _ = open_subscription(redis_away)
    with pytest.raises(StorageUnavailable, match="redis"):
        await subscription.start()


async def test_a_connection_that_falls_silent(
    open_subscription: Open,
    addresses: Addresses,
    redis: Redis,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a ping is not answered, the connection is renewed."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.2)
    silent: set[asyncio.StreamWriter] = set()
    lines: set[asyncio.StreamWriter] = set()
    pumps: set[asyncio.Future[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if writer not in silent:
                    writer.write(data)
        finally:
            writer.close()
            await writer.wait_closed()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.add(writer)
        upstream, downstream = await asyncio.open_unix_connection(unquote(urlsplit(addresses.redis).path))
        pumps.update(map(asyncio.ensure_future, (pump(reader, downstream), pump(upstream, writer))))

    async with await asyncio.start_unix_server(connected, tmp_path / "line.sock"):
        server = RedisServer(addresses.redis, timeout=5, connections=4)
        server.subscriber = subscriber_client(f"unix://{tmp_path}/line.sock", timeout=5)
        subscription, ear = open_subscription(server)
        subscription.want("a")
        await subscription.start()
        await until(lambda: "a" in ear.confirmed)
        connections, confirmed = ear.connections, len(ear.confirmed)
        silent |= lines
        await until(lambda: ear.connections > connections and "a" in ear.confirmed[confirmed:])
        while not ear.received:
            await redis.publish(f"{prefix}:a", "x")
        await subscription.close()
        await server.close()
    await end(*pumps)


async def test_a_connection_that_is_quiet(open_subscription: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without messages goes on while pings are answered."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.01)
    subscription, _ = open_subscription()
    pings = 0

    class Answering:
        async def ping(self) -> None:
            nonlocal pings
            pings += 1
            subscription._heard_at = asyncio.get_running_loop().time()  # noqa: SLF001  # as a real answer does

    task = asyncio.ensure_future(subscription._beat(Answering()))  # noqa: SLF001  # Redis would miss so short a beat
    await until(lambda: pings == 5 or task.done())
    assert not task.done()
    await end(task)


async def test_a_subscription_that_cannot_be_renewed(
    io_loop: IOLoop, open_subscription: Open, tmp_path: Path, prefix: str
) -> None:
    """A Redis that takes commands but no subscription is not ready. The subscription is renewed once it can be."""
    with redis_process(tmp_path, "full") as path:
        server = RedisServer(url_of(path), timeout=PATIENCE, connections=2)
        subscription, ear = open_subscription(server)
        await subscription.start()
        await asyncio.gather(*(server.ping(prefix) for _ in range(4)))  # as many connections as there may be
        async with Redis.from_url(url_of(path)) as admin:
            with capture_logs() as logs:
                await admin.config_set("maxclients", 1)
                await admin.client_kill_filter(_type="pubsub")
                async with asyncio.timeout(PATIENCE):
                    while (why := await summary(server, prefix)) == "":
                        await asyncio.sleep(0.01)
                assert why == "it accepts no subscription"
                await admin.config_set("maxclients", 100)
                await until(lambda: ear.connections == 2)
            assert await summary(server, prefix) == ""
        assert [entry["event"] for entry in logs] == ["subscription_lost"]
        await subscription.close()
        await server.close()


async def summary(server: RedisServer, prefix: str) -> str:
    """Return why Redis is not ready, or nothing."""
    try:
        await server.ping(prefix)
    except StorageUnavailable as error:
        return error.summary
    return ""
