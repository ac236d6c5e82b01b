"""Tests of two servers on the same databases, one in this process and one in its own."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pymysql
import pytest
from redis.asyncio import Redis
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop

from models.chat.events import Event, MessageStored
from models.records import Message, conversation_of
from server import Server
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages, mongo_client
from tests.conftest import Ask, Connect2, StartServer
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE
from tests.support.processes import ServerProcess, external
from tests.support.sockets import Client2, until, websocket

Pair = tuple[int, int]
There = Callable[..., Awaitable[Client2]]
Further = Callable[[], Awaitable[None]]  # waits until more messages are stored

FLAGS = ["--sweep-interval=0.3", "--session-check=0.3", "--offline-after=0.2"]


@pytest.fixture
def flags() -> list[str]:
    return FLAGS


@pytest.fixture
def other(start_server: StartServer, http_server: Server, addresses: Addresses, io_loop: IOLoop) -> ServerProcess:
    """The other server. Each of the two knows about the other."""
    process = start_server(*FLAGS, *external(addresses))
    process.ready()

    async def known() -> None:
        async with asyncio.timeout(PATIENCE):
            while http_server.stores.broker.single_process:
                await asyncio.sleep(0.01)

    io_loop.run_sync(known)
    return process


@pytest.fixture
def there(other: ServerProcess, io_loop: IOLoop) -> Iterator[There]:
    """Open sockets of protocol v2 at the other server."""
    clients: list[Client2] = []

    async def open_socket(uid: int, to: int | None = None) -> Client2:
        clients.append(await Client2.open(other.port, uid, to))
        return clients[-1]

    yield open_socket
    for client in clients:
        client.close()


@pytest.fixture(params=["a database of its own", "a copy of the database"])
def foreign(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    http_server: Server,
    addresses: Addresses,
    io_loop: IOLoop,
) -> Iterator[ServerProcess]:
    """A server of another installation on the same Redis, with another database number, and on the same user table."""
    name, client = f"test-{uuid4().hex[:12]}", mongo_client(addresses.mongo, timeout=5)

    async def copy() -> None:
        if request.param == "a copy of the database":
            for each in ("meta", "servers"):
                await client[name][each].insert_many(await client["tandem"][each].find().to_list(None))

    io_loop.run_sync(copy)
    database = addresses._replace(redis=f"{addresses.redis}?db=1")
    process = start_server(*FLAGS, f"--mongo-database={name}", *external(database))
    process.ready()
    yield process
    process.kill()
    io_loop.run_sync(lambda: client.drop_database(name))
    client.close()


async def befriend(one: Client2, two: Client2) -> int:
    """Let both users write and read. Return the last seq."""
    await two.ask(6, after=0)  # from this answer on it gets every message, also those of the other server
    await one.say("hello")
    await two.receive(50001, seq=1)
    await two.say("hello yourself")
    return (await one.receive(50001))["seq"]


# Faults while users write


@asynccontextmanager
async def nothing(**_: Any) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def delays(http_server: Server, monkeypatch: pytest.MonkeyPatch, **_: Any) -> AsyncIterator[None]:
    """Delay the calls of one server to MongoDB by some milliseconds, before or after each call."""
    chance, store = random.Random(3), http_server.stores.messages

    def delayed(call: Callable[..., Awaitable[Any]]) -> Callable[..., asyncio.Future[Any]]:
        async def late(*args: Any) -> Any:
            await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
            result = await call(*args)
            await asyncio.sleep(chance.choice((0, 0.001, 0.01)))
            return result

        return lambda *args: asyncio.ensure_future(late(*args))

    for name in ("insert", "after", "page", "newest", "head", "unread_start"):
        monkeypatch.setattr(store, name, delayed(getattr(store, name)))
    yield


@asynccontextmanager
async def dropped_events(http_server: Server, monkeypatch: pytest.MonkeyPatch, **_: Any) -> AsyncIterator[None]:
    """Drop half of the events that one server receives from the other."""
    chance, arrived = random.Random(4), http_server.chat.arrived

    def hard_of_hearing(event: Event) -> None:
        if not isinstance(event, MessageStored) or chance.random() < 0.5:
            arrived(event)

    monkeypatch.setattr(http_server.chat, "arrived", hard_of_hearing)
    yield


@asynccontextmanager
async def broken_subscriptions(addresses: Addresses, further: Further, **_: Any) -> AsyncIterator[None]:
    """Close all subscribers' connections in Redis, repeatedly."""

    async def close_them() -> None:
        async with Redis.from_url(addresses.redis) as client:
            while True:
                await further()
                await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    closing = asyncio.create_task(close_them())
    try:
        yield
    finally:
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)


@asynccontextmanager
async def clock_set_back(clock: Clock, further: Further, **_: Any) -> AsyncIterator[None]:
    """Set one server's clock back by an hour during the test."""

    async def set_back() -> None:
        await further()
        clock.offset -= 3600

    setting = asyncio.create_task(set_back())
    yield
    await setting


@pytest.mark.parametrize("trouble", [nothing, delays, dropped_events, broken_subscriptions, clock_set_back])
async def test_one_order(
    trouble: Callable[..., Any],
    connect2: Connect2,
    there: There,
    http_server: Server,
    addresses: Addresses,
    clock: Clock,
    pair: Pair,
    messages: MongoMessages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both users write through different servers, and all four sockets get the same messages in order without a gap."""
    one, two = await connect2(*pair), await there(*pair[::-1])
    last = await befriend(one, two)
    sockets = [one, two, await there(*pair), await connect2(*pair[::-1])]
    for socket in sockets:
        socket.unread.clear()
        await socket.ask(6, after=last)
    conversation = http_server.chat.conversations.get(conversation_of(*pair))
    assert conversation is not None

    async def further() -> None:
        seen = conversation.delivered_seq or 0
        await until(lambda: (conversation.delivered_seq or 0) > seen + 50)

    troubles = trouble(
        http_server=http_server, addresses=addresses, clock=clock, monkeypatch=monkeypatch, further=further
    )
    last += 500 + 100

    async def write(socket: Client2, count: int) -> None:
        for number in range(count):
            await socket.write(1, id=f"{number}", content=f"{number}")

    async def seen(socket: Client2) -> list[tuple[int, int, str]]:
        """Return seq, time and content of a socket's messages, those of its own from their answers."""
        found: list[tuple[int, int, str]] = []
        while not found or found[-1][0] < last:
            frame = await socket.read()
            if frame["code"] in (50001, 50004, 50005):
                found.append((frame["seq"], frame["time"], frame["content"] if frame["code"] == 50001 else frame["id"]))
        return found

    async with troubles:
        *everyone, _, _ = await asyncio.gather(*map(seen, sockets), write(one, 500), write(two, 100))
    stored: list[Message] = await messages.page(conversation_of(*pair), 3, 10_000)
    assert [message.seq for message in stored] == list(range(3, last + 1))
    assert [message.time for message in stored] == sorted(message.time for message in stored)
    for sender in pair:  # each sender's messages keep their order
        contents = [message.content for message in stored if message.sender == sender]
        assert contents == [str(number) for number in range(len(contents))]
    for what in everyone:
        assert what == [(message.seq, message.time, message.content) for message in stored]


async def test_the_same_id_through_both(connect2: Connect2, there: There, pair: Pair, messages: MongoMessages) -> None:
    """Twenty concurrent messages with one id, ten at each server, are stored and delivered once."""
    one, two = await connect2(*pair), await there(*pair[::-1])
    last = await befriend(one, two)
    devices = [await connect2(*pair) for _ in range(10)] + [await there(*pair) for _ in range(10)]
    name = str(uuid4())
    answers = await asyncio.gather(*(device.say("once", id=name) for device in devices))
    assert {(answer["seq"], answer["time"]) for answer in answers} == {(last + 1, answers[0]["time"])}
    assert sum(not answer.get("dup") for answer in answers) == 1
    again = await there(*pair)
    assert (await again.say("once", id=name))["dup"]
    assert (await again.say("other content", id=name))["code"] == 400
    await two.receive(50001, seq=last + 1, content="once")
    await one.say("next")
    await two.receive(50001, seq=last + 2)
    assert len(await messages.page(conversation_of(*pair), 1, 100)) == 4


async def test_another_installation_on_the_same_redis(
    foreign: ServerProcess, connect2: Connect2, opened: list[Any], pair: Pair
) -> None:
    """Another installation's messages, typing, positions and blocks are not delivered here, and take no seq."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    inbox = await connect2(pair[0])
    theirs = await Client2.open(foreign.port, *pair[::-1])
    opened.append(theirs)
    for number in range(3):
        assert (await theirs.say(f"of another installation {number}"))["code"] in (50004, 50005)
    await theirs.write(5)
    await theirs.ask(4, received=3, read=3)
    for client in (one, two, inbox):
        assert await client.silent()
    await two.say("hello", 50004)
    for client in (one, inbox):
        await client.receive(50001, seq=1, content="hello")
    assert [message["content"] for message in (await one.ask(2))["messages"]] == ["hello"]


async def test_presence(connect2: Connect2, there: There, other: ServerProcess, pair: Pair) -> None:
    """A user with a socket at either server is online, and not after a server with their sockets was killed."""
    one, two = await connect2(*pair), await there(*pair[::-1])
    await befriend(one, two)
    two.close()
    await one.receive(50009, online=False)
    phone = await connect2(*pair[::-1])
    await one.receive(50009, online=True)
    tablet = await there(*pair[::-1])
    await tablet.ask(6, after=0)  # from now on it gets all messages
    phone.close()
    await one.say("still there", 50004)
    await tablet.receive(50001, content="still there")
    assert await one.silent()
    other.signal(signal.SIGKILL)
    await one.receive(50009, online=False)
    await one.say("gone?", 50005)


async def test_typing_and_positions(connect2: Connect2, there: There, pair: Pair) -> None:
    """Typing and positions reach the peer at the other server."""
    one, two = await connect2(*pair), await there(*pair[::-1])
    last = await befriend(one, two)
    await two.write(5)
    await one.receive(50008)
    await two.ask(4, received=last, read=last - 1)
    await one.receive(50007, received=last, read=last - 1)
    await two.ask(4, read=1)  # a position never moves back
    assert await one.silent()


async def test_signing_out_at_the_other_server(
    there: There, connect2: Connect2, other: ServerProcess, http_server: Server, pair: Pair, ask: Ask
) -> None:
    """Signing out at the other server ends sockets here at once, and the token when the cache has expired."""
    user = (await http_server.stores.users.active_now([pair[0]]))[pair[0]]
    token = http_server.access.issue(user)
    headers = {"Authorization": f"Bearer {token}"}
    socket = Client2(await websocket(http_server.port, "/ws?v=2", headers))
    await socket.receive(50002)
    client = AsyncHTTPClient(force_instance=True)
    answer = await client.fetch(f"http://127.0.0.1:{other.port}/user/logout", method="POST", headers=headers, body="")
    client.close()
    assert answer.code == 200
    assert await socket.connection.read_message() is None
    assert socket.connection.close_code == 1008
    socket.close()
    async with asyncio.timeout(PATIENCE):
        while (await ask("GET", "/user/me", token=token)).status != 401:
            pass


async def test_blocking_at_the_other_server(there: There, connect2: Connect2, other: ServerProcess, pair: Pair) -> None:
    """A block at the other server soon refuses the sender here, and hides messages from in between from the blocker."""
    one, two = await connect2(*pair), await there(*pair[::-1])
    last = await befriend(one, two)
    client = AsyncHTTPClient(force_instance=True)
    path = f"http://127.0.0.1:{other.port}/user/blocks/{pair[0]}?uid={pair[1]}"
    assert (await client.fetch(path, method="PUT", body="")).code == 200
    sent = 0
    async with asyncio.timeout(PATIENCE):
        while (await one.say("still heard?"))["code"] != 403:
            sent += 1
    assert [message["seq"] for message in (await two.ask(2))["messages"]] == list(range(1, last + 1))
    assert not any(frame["code"] == 50001 for frame in two.unread)
    assert (await client.fetch(path, method="DELETE")).code == 200
    client.close()
    later = await there(*pair[::-1])
    assert len((await later.ask(6, after=last))["messages"]) == sent


@pytest.mark.parametrize("assignment", ["status = 'banned'", "deleted_at = NOW()"])
async def test_an_account_that_another_program_ends(
    assignment: str, there: There, connect2: Connect2, pair: Pair, database: pymysql.Connection
) -> None:
    """An account that another program ends loses its sockets at both servers, and no other account does."""
    here, elsewhere, peer = await connect2(*pair), await there(*pair), await there(*pair[::-1])
    with database.cursor() as cursor:
        cursor.execute(f"UPDATE `user` SET {assignment} WHERE id = %s", (pair[0],))
    for client in (here, elsewhere):
        async with asyncio.timeout(PATIENCE):
            while await client.connection.read_message() is not None:
                pass
        assert client.connection.close_code == 1008
    await peer.say("still here", 50005)
