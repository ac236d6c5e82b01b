"""A database goes away while users chat: 40001 comes in time, sockets stay open, and the server recovers by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from tornado.ioloop import IOLoop

from common.tasks import end
from handlers.websocket.handler import ChatSocket
from models.records import conversation_of
from server import Server
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from tests.conftest import Connect
from tests.support.database import answers, redis_client
from tests.support.patience import PATIENCE, answer_within
from tests.support.processes import stop
from tests.support.sockets import RawSocket, socket_path, until

Pair = tuple[int, int]


@pytest.fixture
def flags() -> list[str]:
    return ["--engine-timeout=3", "--lookup-ttl=0.001"]


class Away:
    """Takes databases away, by SIGSTOP or by SIGKILL, and brings them back."""

    def __init__(self, embedded: EmbeddedDatabases, *, killed: bool) -> None:
        self._embedded = embedded
        self._killed = killed
        self._gone: dict[str, int] = {}  # process ids by name

    def take(self, name: str) -> None:
        """Take a database away."""
        self._gone[name] = pid = self._embedded.pids[name]
        if self._killed:
            os.kill(pid, signal.SIGKILL)
        else:
            stop(pid)
        answer_within(2)

    async def back(self) -> None:
        """Bring back what was taken, and wait until it answers."""
        supervising = asyncio.create_task(self._embedded.supervise())  # it restarts what has ended
        try:
            while self._gone:
                name, pid = self._gone.popitem()
                if self._killed:
                    await until(lambda: self._embedded.pids[name] != pid)  # noqa: B023  # awaited in this round
                else:
                    os.kill(pid, signal.SIGCONT)
                await until(lambda: answers(self._embedded.addresses, name))  # noqa: B023
        finally:
            await end(supervising)
        answer_within(PATIENCE)


@pytest.fixture(params=["stopped", "killed"])
def away(request: pytest.FixtureRequest, io_loop: IOLoop, embedded: EmbeddedDatabases) -> Iterator[Away]:
    """Take databases away; bring them back when asked, or at the end of the test."""
    taken = Away(embedded, killed=request.param == "killed")
    yield taken
    io_loop.run_sync(taken.back)


def pair_of(people: Callable[[int], list[int]]) -> Pair:
    one, other = people(2)
    return one, other


async def readiness(port: int) -> tuple[int, dict[str, object]]:
    raw = await RawSocket.open(port)
    status, body = await raw.request("/readyz")
    raw.abort()
    return status, dict(json.loads(body)["data"])


async def healed(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await readiness(port))[0] != 200:
            await asyncio.sleep(0.05)


async def test_mongodb_away(
    away: Away, http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """No message is acknowledged or lost meanwhile; afterwards the conversation goes on without a hole."""
    pair = pair_of(people)
    one, two = await connect(*pair), await connect(*reversed(pair))
    await two.say("before", 50004)
    await one.receive(50001)
    away.take("mongod")
    await one.send(1, "during")
    await one.receive(40001)
    await one.send(2)
    await one.receive(40001)
    await two.send(3)
    await two.receive(40001)
    status, databases = await readiness(http_server.port)
    assert (status, databases["mongodb"], databases["mysql"]) == (503, "unavailable", "ok")
    assert ChatSocket.hub.count == 2
    await away.back()
    await healed(http_server.port)
    await one.say("after", 50004)
    shown = [await two.receive(50001)]
    while shown[-1] != "after":
        shown.append(await two.receive(50001))
    assert shown in (["after"], ["during", "after"])
    await two.send(2)
    assert ["before", *shown] == [await two.receive(50002) for _ in range(len(shown) + 1)]


async def test_redis_away(
    away: Away, http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """Strangers get 40001, conversations that were answered go on, and the limit rule still counts."""
    friends, strangers = pair_of(people), pair_of(people)
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
    away.take("redis")
    for sender, recipient in ((one, two), (two, one)):
        await sender.say("still here", 50004)
        await recipient.receive(50001, "still here")
    await stranger.say("and now?", 40001)
    status, databases = await readiness(http_server.port)
    assert (status, databases["redis"], databases["mongodb"]) == (503, "unavailable", "ok")
    await away.back()
    await healed(http_server.port)
    await stranger.say("and now?", 50006)
    await one.say("after", 50004)
    assert len(await http_server.stores.messages.page(conversation_of(*strangers), 1, 100)) == 3


async def test_redis_emptied(
    http_server: Server, addresses: Addresses, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """When Redis is flushed during a conversation, users notice nothing, and the limit rule still counts."""
    stranger_pair, pair = pair_of(people), pair_of(people)
    stranger, one, two = await connect(*stranger_pair), await connect(*pair), await connect(*reversed(pair))
    await one.say("hello", 50004)
    await two.receive(50001)
    for _ in range(3):
        await stranger.say("hello?", 50005)
    async with redis_client(addresses.redis) as redis:
        await redis.flushall()
    await stranger.say("and now?", 50006)
    await two.say("hello", 50004)
    await one.receive(50001)
    for _ in range(5):
        await one.say("open", 50004)
        await two.receive(50001)


async def test_mysql_away(
    away: Away, http_server: Server, connect: Connect, people: Callable[[int], list[int]]
) -> None:
    """New sockets get 503, and open sockets go on."""
    pair = pair_of(people)
    one, two = await connect(*pair), await connect(*reversed(pair))
    away.take("mariadbd")
    raw = await RawSocket.open(http_server.port)
    assert (await raw.request(socket_path(*pair), upgrade=True))[0] == 503
    raw.abort()
    await one.say("still here", 50004)
    await two.receive(50001, "still here")
    status, databases = await readiness(http_server.port)
    assert (status, databases["mysql"], databases["mongodb"]) == (503, "unavailable", "ok")
    await away.back()
    await healed(http_server.port)
    await connect(*pair)
    await until(lambda: ChatSocket.hub.count == 3)
