"""Tests of publish and subscribe between processes, with several brokers on one Redis."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from models.chat.events import MessageStored, PositionsChanged, Typing
from models.errors import StorageUnavailable
from models.records import Message, key_of
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import MongoMessages
from storage.mongo.peers import MongoPeers
from storage.redis.broker import RedisBroker
from storage.redis.client import RedisServer
from tests.support.chats import Ear
from tests.support.patience import PATIENCE
from tests.support.processes import stop
from tests.support.sockets import until

ANN, BOB = 7, 9
CALL = 5.0  # seconds for a call to Redis; tests of a hanging Redis wait for so long


class Process(NamedTuple):
    """The parts of a process that these tests use."""

    broker: RedisBroker
    ear: Ear
    peers: MongoPeers


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def prefix() -> str:
    """The prefix of the test's channels."""
    return "test-" + secrets.token_hex(4)


@pytest.fixture
def start(io_loop: IOLoop, addresses: Addresses, prefix: str, messages: MongoMessages, mongo: Any) -> Iterator[Start]:
    """Start processes, which by default are registered in the database of `messages`."""
    started: list[tuple[RedisBroker, RedisServer]] = []

    async def start_one(*, known: bool = True, url: str = addresses.redis) -> Process:
        server = RedisServer(url, timeout=CALL, connections=4)
        peers = MongoPeers(mongo.servers, MongoErrors())
        if known:
            await peers.join()
        broker, ear = RedisBroker(server, prefix, peers), Ear()
        started.append((broker, server))
        await broker.start(ear)
        return Process(broker, ear, peers)

    async def stop() -> None:
        for broker, server in started:
            await broker.close()
            await server.close()

    yield start_one
    io_loop.run_sync(stop)


def message(seq: int, content: str = "hi") -> Message:
    """Return a message from Ann to Bob."""
    return Message(ANN, BOB, seq, 1000 + seq, content, key_of(ANN, str(seq)), str(seq))


Settled = Callable[[str, int], Awaitable[None]]


@pytest.fixture
def settled(redis: Redis, prefix: str) -> Settled:
    """Return a function that waits until so many processes subscribe to a channel."""

    async def wait(channel: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await redis.pubsub_numsub(f"{prefix}:{channel}"))[0][1] != count:
                await asyncio.sleep(0.005)

    return wait


async def follow(process: Process, user: int, peer: int) -> None:
    """Follow, and wait until the subscription is confirmed."""
    process.broker.follow(user, peer)
    await until(lambda: (user, peer) in process.ear.channels)


async def test_one_process_is_alone_until_there_is_another(start: Start) -> None:
    """`single_process` is false in both processes as soon as there are two, and true after one has ended."""
    first = await start()
    assert first.broker.single_process
    second = await start()
    assert not second.broker.single_process
    await until(lambda: not first.broker.single_process)
    await second.broker.close()
    await until(lambda: first.broker.single_process)


async def test_what_happens_reaches_those_who_follow(start: Start) -> None:
    """Each event reaches other processes that follow, in order and once, though several channels lead to a process."""
    here, pair, inbox, both, stranger = [await start() for _ in range(5)]
    await follow(here, ANN, BOB)
    await follow(pair, BOB, ANN)
    await follow(inbox, BOB, 0)
    await follow(both, BOB, ANN)
    await follow(both, BOB, 0)
    await follow(stranger, ANN, 11)
    events = [MessageStored(message(seq)) for seq in range(1, 4)] + [Typing(ANN, BOB), PositionsChanged(ANN, BOB, 3, 2)]
    for event in events:
        here.broker.publish(event)
    for process in (pair, inbox, both):
        await until(lambda ear=process.ear: len(ear.events) >= len(events))
        assert process.ear.events == events
    assert here.ear.events == stranger.ear.events == []


async def test_whether_the_peer_is_there(start: Start, settled: Settled) -> None:
    """The peer is in another process if that has a socket of the peer, but not for a socket of the sender there."""
    here, there = await start(), await start()
    await follow(there, ANN, BOB)
    await follow(here, BOB, ANN)
    assert not await here.broker.publish_and_count(message(1))
    assert not await here.broker.reaches(BOB, ANN)
    await follow(there, BOB, 0)
    assert await here.broker.publish_and_count(message(2))
    assert await here.broker.reaches(BOB, ANN)
    there.broker.unfollow(BOB, 0)
    await settled(f"inbox:{BOB}", 0)
    assert not await here.broker.publish_and_count(message(3))


async def test_many_at_once_keep_their_order(start: Start) -> None:
    """Many concurrent events keep their order, whatever their batches are."""
    here, there = await start(), await start()
    await follow(there, BOB, ANN)
    for seq in range(1, 1001):
        here.broker.publish(MessageStored(message(seq)))
    await until(lambda: len(there.ear.events) == 1000)
    assert [event.message.seq for event in there.ear.events] == list(range(1, 1001))


async def test_who_is_online_elsewhere(start: Start, settled: Settled) -> None:
    """A user with sockets in another process is online, once, and processes that watch the user learn of it."""
    here, there = await start(), await start()
    here.broker.watch(BOB)
    await settled(f"watch:{BOB}", 1)
    here.broker.mark_online(ANN)
    there.broker.mark_online(BOB)
    assert await here.broker.online([ANN, BOB]) in (set(), {BOB})
    await settled(f"here:{BOB}", 1)
    assert await here.broker.online([ANN, BOB]) == {BOB}
    there.broker.publish_presence_change(BOB)
    there.broker.publish_presence_change(ANN)  # without a watcher
    there.broker.publish_presence_change(BOB)
    await until(lambda: here.ear.changes == [BOB, BOB])
    there.broker.mark_offline(BOB)
    await settled(f"here:{BOB}", 0)
    assert await here.broker.online([ANN, BOB]) == set()


async def test_a_subscription_that_breaks(start: Start, redis: Redis) -> None:
    """A broken subscription is renewed with all its channels, and the listener is told that events may be missing."""
    here, there = await start(), await start()
    await follow(there, BOB, ANN)
    assert there.ear.interruptions == 1
    there.ear.channels.clear()
    await redis.client_kill_filter(_type="pubsub")
    await until(lambda: there.ear.interruptions == here.ear.interruptions == 2)
    await until(lambda: (BOB, ANN) in there.ear.channels)
    assert await here.broker.publish_and_count(message(1))
    await until(lambda: there.ear.events == [MessageStored(message(1))])


async def test_foreign_data_on_a_channel(start: Start, redis: Redis, prefix: str) -> None:
    """Data that is not an event is ignored, and the next event is received."""
    here, there = await start(), await start()
    await follow(there, BOB, ANN)
    for data in (b"", b"hello", b"\xc1", b"\x93\xa1x\x01\x80"):
        await redis.publish(f"{prefix}:pair:{BOB}->{ANN}", data)
    here.broker.publish(Typing(ANN, BOB))
    await until(lambda: there.ear.events == [Typing(ANN, BOB)])


async def test_a_redis_that_hangs(start: Start, embedded: EmbeddedDatabases, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Redis hangs, one message waits for it and the next ones do not, and its return is noticed."""
    monkeypatch.setattr("storage.redis.subscription.HEARTBEAT", 0.5)
    here, there = await start(), await start()
    await follow(there, BOB, ANN)
    stop(embedded.pids["redis"])
    try:
        with capture_logs() as logs:
            assert not await here.broker.publish_and_count(message(1))
            assert not any(await asyncio.gather(*(here.broker.publish_and_count(message(seq)) for seq in range(2, 10))))
            await until(lambda: [entry["event"] for entry in logs].count("subscription_lost") == 2)
        assert not here.broker.single_process
        assert not await here.broker.reaches(BOB, ANN)
        with pytest.raises(StorageUnavailable):
            await here.broker.online([BOB])
    finally:
        os.kill(embedded.pids["redis"], signal.SIGCONT)
    await until(lambda: here.ear.interruptions == there.ear.interruptions == 2)
    await until(lambda: (BOB, ANN) in there.ear.channels[1:])
    async with asyncio.timeout(PATIENCE):  # until an event was published again, no caller waits for an answer
        while not await here.broker.publish_and_count(message(10)):
            await asyncio.sleep(0)
    await until(lambda: there.ear.events and there.ear.events[-1] == MessageStored(message(10)))


async def test_no_redis(start: Start, tmp_path: object) -> None:
    """`start` raises StorageUnavailable without Redis."""
    with pytest.raises(StorageUnavailable, match="redis"):
        await start(url=f"unix://{tmp_path}/nobody.sock")


async def test_a_process_that_the_database_does_not_know(start: Start, settled: Settled) -> None:
    """Events of a process that is not registered in the database are ignored, and those of others are not."""
    here, peer = await start(), await start()
    await follow(here, BOB, ANN)
    here.broker.mark_online(BOB)
    await settled(f"here:{BOB}", 1)
    with capture_logs() as logs:
        foreign = await start(known=False)
        foreign.broker.publish(MessageStored(message(1, "of another installation")))
        foreign.broker.publish(Typing(ANN, BOB))
        foreign.broker.publish_presence_change(ANN)
        foreign.broker.publish_account_change(BOB)
        peer.broker.publish(Typing(ANN, BOB))
        await until(lambda: [entry["event"] for entry in logs].count("event_not_believed") == 2)
        await until(lambda: here.ear.events)
    foreign.broker.publish(MessageStored(message(2, "once more")))
    peer.broker.publish(MessageStored(message(3)))
    await until(lambda: len(here.ear.events) == 2)
    assert here.ear.events == [Typing(ANN, BOB), MessageStored(message(3))]
    assert here.ear.changes == here.ear.accounts == []


async def test_an_event_under_the_name_of_a_peer(
    start: Start, redis_server: RedisServer, redis: Redis, prefix: str
) -> None:
    """An event with a peer's id is ignored without that peer's seal, with the seal of another event, or if repeated."""
    here, there = await start(), await start()
    await follow(there, BOB, ANN)
    here.broker.publish(MessageStored(message(1)))
    await until(lambda: there.ear.events)
    async with redis_server.subscriber.pubsub(ignore_subscribe_messages=True) as overhearing:
        await overhearing.subscribe(f"{prefix}:pair:{BOB}->{ANN}")
        await overhearing.get_message(timeout=PATIENCE)  # the confirmation
        here.broker.publish(MessageStored(message(2)))
        await until(lambda: len(there.ear.events) == 2)
        genuine = (await overhearing.get_message(timeout=PATIENCE))["data"]
    forged = msgspec.msgpack.encode((10**9, MessageStored(message(3, "never said"))))
    for data in (genuine, genuine[:32] + forged, genuine[:16] + bytes(16) + forged, genuine[:16], bytes(64)):
        await redis.publish(f"{prefix}:pair:{BOB}->{ANN}", data)
    here.broker.publish(MessageStored(message(4)))  # a forged number does not make the peer's own event be dropped
    await until(lambda: len(there.ear.events) == 3)
    assert there.ear.events == [MessageStored(message(seq)) for seq in (1, 2, 4)]


async def test_events_that_come_before_their_process_is_known(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a process that is being looked up are handled in order afterwards."""
    there = await start()
    await follow(there, BOB, ANN)
    meet, asked, gate = there.peers.meet, asyncio.Event(), asyncio.Event()

    async def slowly(server: bytes) -> bool:
        asked.set()
        await gate.wait()
        return await meet(server)

    monkeypatch.setattr(there.peers, "meet", slowly)
    here = await start()  # it says hello
    await asked.wait()
    for seq in range(1, 101):
        here.broker.publish(MessageStored(message(seq)))
    assert await here.broker.publish_and_count(message(101))  # Redis has had them all
    assert there.ear.events == []
    gate.set()
    await until(lambda: len(there.ear.events) == 101)
    assert [event.message.seq for event in there.ear.events] == list(range(1, 102))
