"""What FrameProtocol offers its subclasses, on real connections: on the loop's transport and on Tornado's stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from handlers.websocket.rfc6455 import BINARY, CLOSE, PING, PONG, TEXT
from tests.support.echo import EchoConnection, serve_echo
from tests.support.patience import PATIENCE
from tests.support.sockets import RawSocket, until
from tests.support.transports import close_frame

Accept = Callable[..., Any]


class Connection(EchoConnection):
    """Records how it ended; `opening` is called with it in `on_open`."""

    def __init__(self, longest: int, opening: Callable[[Connection], Any]) -> None:
        super().__init__(longest)
        self._opening = opening
        self.ended: list[tuple[int | None, str | None]] = []
        self.pongs: list[bytes] = []
        self.errors: list[BaseException] = []

    def on_open(self) -> None:
        self._opening(self)

    def on_pong(self, data: bytes) -> None:
        self.pongs.append(data)

    def on_error(self, error: BaseException) -> None:
        self.errors.append(error)

    def on_close(self) -> None:
        self.ended.append((self.close_code, self.close_reason))


@pytest.fixture(params=["bulk", "tornado"])
def accept(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Accept]:
    """Open a connection. Return it, after `opening` was called with it, and the client's end."""
    servers, raws = [], []

    async def open_one(opening: Callable[[Connection], Any] = lambda connection: None) -> tuple[Connection, RawSocket]:
        connections: list[Connection] = []

        def connect(longest: int) -> Connection:
            connections.append(Connection(longest, opening))
            return connections[0]

        server, port = serve_echo(0, frames=request.param, connection=connect)
        servers.append(server)
        raw = await RawSocket.open(port)
        raws.append(raw)
        assert (await raw.request("/", upgrade=True))[0] == 101
        return connections[0], raw

    yield open_one

    async def end() -> None:
        for raw in raws:
            raw.abort()
        for server in servers:
            server.stop()
            await server.close_all_connections()

    io_loop.run_sync(end)


async def test_messages(accept: Accept) -> None:
    """Text and binary messages are written in order."""
    connection, raw = await accept()
    assert connection.write("字".encode())
    assert connection.write(b"\xff", BINARY)
    assert [await raw.frame() for _ in range(2)] == [(TEXT, "字".encode()), (BINARY, b"\xff")]


async def test_a_message_that_fills_what_may_be_unsent(accept: Accept) -> None:
    """Waiting ends when the client has read enough, so a subclass can write as fast as that."""
    connection, raw = await accept()
    await until(lambda: connection.get_extra_info("socket") is not None)
    connection.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    raw.writer.transport.pause_reading()
    connection.write(b"x" * 5_000_000)
    sent = asyncio.ensure_future(connection.wait_sent())
    await asyncio.sleep(0)
    assert not sent.done()
    raw.writer.transport.resume_reading()
    assert len((await raw.frame())[1]) == 5_000_000
    await asyncio.wait_for(sent, PATIENCE)


async def test_messages_that_come_too_late(accept: Accept) -> None:
    """Waiting ends when the connection is lost, and writing says that it is too late."""
    connection, raw = await accept()
    await until(lambda: connection.get_extra_info("socket") is not None)
    connection.write(b"x" * 50_000_000)
    sent = asyncio.ensure_future(connection.wait_sent())
    raw.abort()
    await asyncio.wait_for(sent, PATIENCE)
    await until(lambda: connection.ended)
    assert (connection.is_closing(), connection.write(b"late"), connection.ping(b"")) == (True, False, False)


async def test_pings(accept: Accept) -> None:
    """A ping takes up to 125 bytes; more is an error. Pongs are handed on."""
    connection, raw = await accept()
    assert connection.ping("字".encode())
    assert await raw.frame() == (PING, "字".encode())
    assert connection.ping(b"x" * 125)
    assert await raw.frame() == (PING, b"x" * 125)
    with pytest.raises(ValueError, match="125 bytes"):
        connection.ping(b"x" * 126)
    raw.write_frame(PONG, b"here")
    await until(lambda: connection.pongs == [b"here"])


async def test_a_reason_that_is_too_long(accept: Accept) -> None:
    """A reason that is too long is an error, and the connection stays open."""
    connection, raw = await accept()
    with pytest.raises(ValueError, match="123 bytes"):
        connection.close(1000, "字" * 42)
    connection.write(b"still here")
    assert await raw.frame() == (TEXT, b"still here")
    connection.close(1000, "字" * 41)
    assert await raw.frame() == (CLOSE, b"\x03\xe8" + "字".encode() * 41)


def close(connection: Connection) -> None:
    connection.close(4000, "why")


def close_later(connection: Connection) -> None:
    asyncio.get_running_loop().call_soon(close, connection)


@pytest.mark.parametrize("opening", [close, close_later])
@pytest.mark.parametrize("answer", [(4000, None), (4001, "because")])
async def test_closing_while_opening(opening: Any, answer: tuple[int, str | None], accept: Accept) -> None:
    """The client gets the code, and the connection's own code is the client's answer."""
    connection, raw = await accept(opening)
    assert await raw.frame() == (CLOSE, b"\x0f\xa0why")
    raw.writer.write(close_frame(answer[0], answer[1] or ""))
    assert await raw.reader.read() == b""
    await until(lambda: connection.ended == [answer])


async def test_writing_while_opening(accept: Accept) -> None:
    """Messages that are written while the connection opens are sent before any answer to the client."""

    def opening(connection: Connection) -> None:
        connection.write(b"first")
        asyncio.get_running_loop().call_soon(connection.write, b"second")

    _, raw = await accept(opening)
    raw.write_frame(TEXT, b"hi")
    assert [(await raw.frame())[1] for _ in range(3)] == [b"first", b"second", b"hi"]


async def test_a_failure_while_opening(accept: Accept) -> None:
    """An error ends the connection, and is reported before its end is."""
    connection, raw = await accept(lambda connection: 1 / 0)
    assert await raw.reader.read() == b""
    await until(lambda: connection.ended == [(None, None)])
    assert [type(error) for error in connection.errors] == [ZeroDivisionError]


async def test_nodelay(accept: Accept) -> None:
    """Nagle's algorithm can be turned off and on."""
    connection, raw = await accept()
    raw.write_frame(TEXT, b"hi")
    await raw.frame()
    for value in (True, False, True):
        connection.set_nodelay(value)
        assert bool(connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is value
