"""Fixtures with the terminal client, for users of the test's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pymysql
import pytest
from tornado.ioloop import IOLoop

from server import Server
from tests.clients.device import Device, Proxy, names_of
from tests.support.sockets import until

Open = Callable[[int, str], Awaitable[Device]]
Through = Callable[[int], Awaitable[Proxy]]


@pytest.fixture
def names(database: pymysql.Connection, people: Callable[[int], list[int]]) -> list[str]:
    """The names of three users who have never talked."""
    return names_of(database, people(3))


@pytest.fixture
def device(io_loop: IOLoop, tmp_path: Path) -> Iterator[Open]:
    """Return a function that connects the client of a user, at a port."""
    devices: list[Device] = []

    async def open_device(port: int, name: str) -> Device:
        devices.append(await Device.open(port, name, tmp_path))
        return devices[-1]

    yield open_device
    for each in devices:
        io_loop.run_sync(each.close)


@pytest.fixture
def through(io_loop: IOLoop) -> Iterator[Through]:
    """Return a function that makes a proxy to a port."""
    proxies: list[Proxy] = []

    async def listen(target: int) -> Proxy:
        proxies.append(await Proxy(target).listen())
        return proxies[-1]

    yield listen
    for each in proxies:
        io_loop.run_sync(each.close)


Pair = tuple[Device, Device]


@pytest.fixture
def friends(
    io_loop: IOLoop, http_server: Server, device: Open, through: Through, names: list[str]
) -> tuple[Pair, Proxy]:
    """The clients of two users who have both written, and the proxy between the first of them and the server."""

    async def meet() -> tuple[Pair, Proxy]:
        proxy = await through(http_server.port)
        one, two = await device(proxy.port, names[0]), await device(http_server.port, names[1])
        await one.talk(two)
        await two.talk(one)
        one.say(two, "hello")
        await until(lambda: len(two.given(one)) == 1)
        two.say(one, "hello yourself")
        await until(lambda: len(one.given(two)) == len(two.given(one)) == 2)
        return (one, two), proxy

    return io_loop.run_sync(meet)
