"""A database goes away while users chat: 40001 comes in time, sockets stay open, and the server recovers by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from handlers.websocket.handler import ChatSocket
from models.records import conversation_of
from server import Server
from storage.embedded.supervisor import EmbeddedDatabases
from tests.conftest import Connect
from tests.support.patience import PATIENCE, answer_within
from tests.support.processes import stop
from tests.support.sockets import RawSocket, socket_path, until

Pair = tuple[int, int]


@pytest.fixture
def flags() -> list[str]:
    return ["--engine-timeout=3", "--lookup-ttl=0.001"]


@pytest.fixture(params=["stopped", "killed"])
def away(request: pytest.FixtureRequest, embedded: EmbeddedDatabases) -> Iterator[Callable[[str], None]]:
    """Take a database away, by SIGSTOP or by SIGKILL; bring it back when asked, or at the end of the test."""
    gone: list[str] = []

    def take(name: str) -> None:
        if request.param == "stopped":
            stop(embedded.pids[name])
        else:
            os.kill(embedded.pids[name], signal.SIGKILL)
        gone.append(name)
        answer_within(2)

    def bring_back() -> None:
        while gone:
            name = gone.pop()
            process = next(each for each in embedded._processes if each.name == name)
            if request.param == "stopped":
                os.kill(embedded.pids[name], signal.SIGCONT)
            else:
                process.process.wait()
                embedded._spawn(process)
            embedded._await_ready(process)
        answer_within(PATIENCE)

    take.back = bring_back
    yield take
    bring_back()


async def readiness(port: int) -> tuple[int, dict[str, object]]:
    raw = await RawSocket.open(port)
    status, body = await raw.request("/readyz")
    raw.abort()
    return status, json.loads(body)["data"]


async def healed(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await readiness(port))[0] != 200:
            await asyncio.sleep(0.05)


async def test_mongodb_away(
    away: Callable[[str], None], http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """No message is acknowledged or lost meanwhile; afterwards the conversation goes on without a hole."""
    pair = tuple(people(2))
    one, two = await connect(*pair), await connect(*reversed(pair))
    await two.say("before", 50004)
    await one.receive(50001)
    away("mongod")
    await one.send(1, "during")
    await one.receive(40001)
    await one.send(2)
    await one.receive(40001)
    await two.send(3)
    await two.receive(40001)
    status, databases = await readiness(http_server.port)
    assert (status, databases["mongodb"], databases["mysql"]) == (503, "unavailable", "ok")
    assert ChatSocket.hub.count == 2
    away.back()
    await healed(http_server.port)
    await one.say("after", 50004)
    shown = [await two.receive(50001)]
    while shown[-1] != "after":
        shown.append(await two.receive(50001))
    assert shown in (["after"], ["during", "after"])
    await two.send(2)
    assert ["before", *shown] == [await two.receive(50002) for _ in range(len(shown) + 1)]


async def test_redis_away(
    away: Callable[[str], None], http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """Strangers get 40001, conversations that were answered go on, and the limit rule still counts."""
    friends, strangers = tuple(people(2)), tuple(people(2))
    one, two = await connect(*friends), await connect(*reversed(friends))
    await one.say("hello", 50004)
    await two.receive(50001)
    await two.say("hello", 50004)
    await one.receive(50001)
    await one.say("known to be open from here on", 50004)
    await two.receive(50001)
    stranger = await connect(*strangers)
    for _ in range(3):
        await stranger.say("hello?", 50005)
    away("redis")
    for sender, recipient in ((one, two), (two, one)):
        await sender.say("still here", 50004)
        await recipient.receive(50001, "still here")
    await stranger.say("and now?", 40001)
    status, databases = await readiness(http_server.port)
    assert (status, databases["redis"], databases["mongodb"]) == (503, "unavailable", "ok")
    away.back()
    await healed(http_server.port)
    await stranger.say("and now?", 50006)
    await one.say("after", 50004)
    assert len(await http_server.stores.messages.page(conversation_of(*strangers), 1, 100)) == 3


async def test_redis_emptied(http_server: Server, connect: Connect, people: Callable[[int], list[int]]) -> None:
    """When Redis is flushed during a conversation, users notice nothing, and the limit rule still counts."""
    stranger_pair, pair = tuple(people(2)), tuple(people(2))
    stranger, one, two = await connect(*stranger_pair), await connect(*pair), await connect(*reversed(pair))
    await one.say("hello", 50004)
    await two.receive(50001)
    for _ in range(3):
        await stranger.say("hello?", 50005)
    await http_server.stores.counters._client.flushall()
    await stranger.say("and now?", 50006)
    await two.say("hello", 50004)
    await one.receive(50001)
    for _ in range(5):
        await one.say("open", 50004)
        await two.receive(50001)


async def test_mysql_away(
    away: Callable[[str], None], http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """New sockets get 503, and open sockets go on."""
    pair = tuple(people(2))
    one, two = await connect(*pair), await connect(*reversed(pair))
    away("mariadbd")
    raw = await RawSocket.open(http_server.port)
    assert (await raw.request(socket_path(*pair), upgrade=True))[0] == 503
    raw.abort()
    await one.say("still here", 50004)
    await two.receive(50001, "still here")
    status, databases = await readiness(http_server.port)
    assert (status, databases["mysql"], databases["mongodb"]) == (503, "unavailable", "ok")
    away.back()
    await healed(http_server.port)
    await connect(*pair)
    await until(lambda: ChatSocket.hub.count == 3)
