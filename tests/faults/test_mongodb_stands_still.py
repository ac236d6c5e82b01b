"""mongod is stopped with inserts in its sockets and continued: no message is lost, doubled or left out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from handlers.websocket.connection import SocketConnection
from handlers.websocket.handler import ChatSocket
from models.records import conversation_of
from server import Server
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages
from tests.conftest import Connect, Connect2, StartServer
from tests.faults.conftest import Stopped
from tests.support.patience import PATIENCE, answer_within
from tests.support.processes import external
from tests.support.sockets import Client2, until

Pair = tuple[int, int]

QUICK = ["--engine-timeout=1", "--answer-timeout=1"]
PING = 1000.0  # seconds: longer than any test, which sets the time itself


@pytest.fixture
def flags() -> list[str]:
    return ["--engine-timeout=1", f"--ping-interval={PING}", f"--ping-timeout={PING}", "--window=8"]


async def insist(client: Client2, kind: int, **fields: Any) -> dict[str, Any]:
    """Repeat a request until the databases answer in time, as clients do."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await client.ask(kind, **fields))["code"] == 40001:
            pass
    return answer


async def test_a_late_commit(connect2: Connect2, stopped: Stopped, pair: Pair, messages: MongoMessages) -> None:
    """A message answered 40001 is stored after all: the sender and a resend are told, and the peer gets it once."""
    one = await connect2(*pair)
    await one.say("early", 50005)
    with stopped("mongod"):
        answer_within(3)  # the insert is in progress by then; a message that is late before that is never tried
        assert (await one.say("late", id="late"))["code"] == 40001
        answer_within(PATIENCE)
    await one.receive(50005, id="late", seq=2, dup=None)
    assert (await one.say("late", id="late"))["dup"]
    assert (await one.say("next"))["seq"] == 3
    two = await connect2(*pair[::-1])
    assert [m["content"] for m in (await two.ask(6, after=0))["messages"]] == ["early", "late", "next"]
    assert [m.seq for m in await messages.page(conversation_of(*pair), 1, 100)] == [1, 2, 3]


async def test_a_late_commit_of_a_server_that_was_killed(
    start_server: StartServer, addresses: Addresses, stopped: Stopped, pair: Pair, messages: MongoMessages
) -> None:
    """A message of a killed server may be stored. After a resend it is there once, without a hole or a repeated seq."""
    flags = [*QUICK, *external(addresses)]
    first = start_server(*flags)
    one = await Client2.open(first.ready(), *pair)
    assert (await insist(one, 1, id="early", content="early"))["seq"] == 1
    with stopped("mongod"):
        await one.write(1, id="late", content="late")
        assert (await one.read())["code"] == 40001
        first.kill()
        one.close()
    second = start_server(*flags)
    one, two = await Client2.open(second.ready(), *pair), await Client2.open(second.port, *pair[::-1])
    assert (await insist(one, 1, id="late", content="late"))["seq"] == 2
    assert [(m["seq"], m["id"]) for m in (await insist(two, 6, after=1))["messages"]] == [(2, "late")]
    assert [m.id for m in await messages.page(conversation_of(*pair), 1, 100)] == ["early", "late"]
    for client in (one, two):
        client.close()


async def test_resending_to_a_new_server_and_an_empty_redis(
    start_server: StartServer, addresses: Addresses, pair: Pair
) -> None:
    """Resent messages get their first answers again, and the limit rule still counts."""
    first = start_server(*external(addresses))
    one = await Client2.open(first.ready(), *pair)
    told = [await one.say(name, 50005, id=name) for name in "abc"]
    first.kill()
    one.close()
    async with Redis.from_url(addresses.redis) as client:
        await client.flushall()
    second = start_server(*external(addresses))
    one = await Client2.open(second.ready(), *pair)
    for answer, name in zip(told, "abc", strict=True):
        again = await one.say(name, 50005, id=name)
        assert (again["seq"], again["time"], again["dup"]) == (answer["seq"], answer["time"], True)
        assert (await one.say("other content", id=name))["code"] == 400
    assert (await one.say("d", id="d"))["code"] == 50006
    one.close()


async def test_no_healthy_client_is_closed(
    connect: Connect, http_server: Server, stopped: Stopped, people: Callable[[int], list[int]]
) -> None:
    """A client with a full window and a silent one stay open for many times the timeout of a pong."""
    full_pair, idle_pair = tuple(people(2)), tuple(people(2))
    full, idle = await connect(*full_pair), await connect(*idle_pair)
    (waiting,), (pinged,) = ChatSocket.hub.sockets_of(full_pair), ChatSocket.hub.sockets_of(idle_pair)
    assert isinstance(waiting, SocketConnection)
    assert isinstance(pinged, SocketConnection)

    async def several_pings() -> None:
        now = asyncio.get_running_loop().time()
        for number in range(1, 5):
            ChatSocket.hub.check_peers(now + number * 2 * PING, ChatSocket.hub.users())
            await until(lambda: not pinged.liveness.asked)

    with stopped("mongod"):
        for number in range(30):
            await full.send(1, str(number))
        await until(lambda: waiting.window.full)
        reading = asyncio.gather(*(full.read() for _ in range(30)))
        await several_pings()
        assert ChatSocket.hub.count == 2
        assert not reading.done()
    await reading
    await idle.say("still here", 50005)
    await full.say("still here")
    assert ChatSocket.hub.count == 2
