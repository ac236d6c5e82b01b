"""What Tornado's WebSocketHandler offers its subclasses, on a connection that was taken over."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketClosedError

from handlers.websocket.handler import ChatSocket
from handlers.websocket.handshake import OF_THE_HANDSHAKE
from server import Server
from tests.conftest import Connect
from tests.support.echo import EchoHandler, serve_echo
from tests.support.sockets import PATIENCE, RawSocket, end_of, until
from tests.support.transports import BINARY, CLOSE, PING, PONG, TEXT, close_frame

Accept = Callable[..., Any]


class Handler(EchoHandler):
    """Notes how it ended; `opening` is called with it in `open`."""

    def open(self) -> Any:
        self.ended: list[tuple[int | None, str | None]] = []
        self.pongs: list[bytes] = []
        return self.settings["opening"](self)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[-1] if subprotocols else None

    def on_pong(self, data: bytes) -> None:
        self.pongs.append(data)

    def on_close(self) -> None:
        self.ended.append((self.close_code, self.close_reason))


@pytest.fixture(params=["bulk", "tornado"])
def accept(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Accept]:
    """Opens a connection; its handler, which has run `opening`, and the client's end."""
    servers, raws = [], []

    async def open_one(
        opening: Callable[[Handler], Any] = lambda handler: None, headers: dict[str, str] | None = None
    ) -> tuple[Handler, RawSocket]:
        handlers: list[Handler] = []

        def note(handler: Handler) -> Any:
            handlers.append(handler)
            return opening(handler)

        server, port = serve_echo(0, frames=request.param, handler=Handler, opening=note)
        servers.append(server)
        raw = await RawSocket.open(port)
        raws.append(raw)
        assert (await raw.request("/", upgrade=True, headers=headers))[0] == 101
        return handlers[0], raw

    yield open_one

    async def end() -> None:
        for raw in raws:
            raw.abort()
        for server in servers:
            server.stop()
            await server.close_all_connections()

    io_loop.run_sync(end)


async def test_messages(accept: Accept) -> None:
    """Text, bytes and objects are written, each as Tornado writes it, and the futures are done."""
    handler, raw = await accept()
    await asyncio.gather(
        handler.write_message("字"), handler.write_message(b"\xff", binary=True), handler.write_message({"a": [1]})
    )
    handler.write_message(b"text in bytes")
    frames = [await raw.frame() for _ in range(4)]
    assert frames[:2] == [(TEXT, "字".encode()), (BINARY, b"\xff")]
    assert (frames[2][0], json.loads(frames[2][1]), frames[3]) == (TEXT, {"a": [1]}, (TEXT, b"text in bytes"))


async def test_a_message_that_fills_what_may_be_unsent(accept: Accept) -> None:
    """Its future is done when the client has read enough, so a handler can write as fast as that."""
    handler, raw = await accept()
    await until(lambda: end_of(handler.ws_connection) is not None)
    end_of(handler.ws_connection).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    raw.writer.transport.pause_reading()
    written = handler.write_message("x" * 5_000_000)
    await asyncio.sleep(0)
    assert not written.done()
    raw.writer.transport.resume_reading()
    assert len((await raw.frame())[1]) == 5_000_000
    await asyncio.wait_for(written, PATIENCE)


async def test_messages_that_come_too_late(accept: Accept) -> None:
    """Writing to what is closed raises WebSocketClosedError, and so does the future of what was lost."""
    handler, raw = await accept()
    await until(lambda: end_of(handler.ws_connection) is not None)
    written = handler.write_message("x" * 50_000_000)
    raw.abort()
    with pytest.raises(WebSocketClosedError):
        await asyncio.wait_for(written, PATIENCE)
    for late in (lambda: handler.write_message("late"), handler.ping):
        with pytest.raises(WebSocketClosedError):
            late()


async def test_pings(accept: Accept) -> None:
    """A ping takes text and up to 125 bytes; more is an error, as in Tornado."""
    handler, raw = await accept()
    handler.ping("字")
    assert await raw.frame() == (PING, "字".encode())
    handler.ping(b"x" * 125)
    assert await raw.frame() == (PING, b"x" * 125)
    with pytest.raises(ValueError, match="125 bytes"):
        handler.ping(b"x" * 126)
    raw.write_frame(PONG, b"here")
    await until(lambda: handler.pongs == [b"here"])


async def test_a_reason_that_is_too_long(accept: Accept) -> None:
    """Is an error, as in Tornado, and the connection stays open."""
    handler, raw = await accept()
    with pytest.raises(ValueError, match="123 bytes"):
        handler.ws_connection.close(1000, "字" * 42)
    handler.write_message("still here")
    assert await raw.frame() == (TEXT, b"still here")
    handler.close(1000, "字" * 41)
    assert await raw.frame() == (CLOSE, b"\x03\xe8" + "字".encode() * 41)


def close(handler: Handler) -> None:
    handler.close(4000, "why")


async def close_later(handler: Handler) -> None:
    await asyncio.sleep(0)
    handler.close(4000, "why")


@pytest.mark.parametrize("opening", [close, close_later])
@pytest.mark.parametrize("answer", [(4000, None), (4001, "because")])
async def test_closing_in_open(opening: Any, answer: tuple[int, str | None], accept: Accept) -> None:
    """The client is told, and on_close is told what the client answered."""
    handler, raw = await accept(opening)
    assert await raw.frame() == (CLOSE, b"\x0f\xa0why")
    raw.writer.write(close_frame(answer[0], answer[1] or ""))
    assert await raw.reader.read() == b""
    await until(lambda: handler.ended == [answer])


async def test_writing_in_open(accept: Accept) -> None:
    """What a coroutine writes in `open` leaves while it still runs; messages are handed on when it is done."""
    go = asyncio.Event()

    async def opening(handler: Handler) -> None:
        handler.write_message("first")
        await go.wait()
        handler.write_message("second")

    _, raw = await accept(opening)
    raw.write_frame(TEXT, b"hi")
    assert await raw.frame() == (TEXT, b"first")
    go.set()
    assert [(await raw.frame())[1] for _ in range(2)] == [b"second", b"hi"]


@pytest.mark.parametrize("failing", [lambda handler: 1 / 0, lambda handler: asyncio.gather(asyncio.sleep(-1), lost())])
async def test_a_failure_in_open(failing: Callable[[Handler], Any], accept: Accept) -> None:
    """Ends the connection, and on_close is called, so that nothing of it stays behind."""
    handler, raw = await accept(failing)
    assert await raw.reader.read() == b""
    await until(lambda: handler.ended == [(None, None)])


async def lost() -> None:
    raise RuntimeError("as a bug does")


async def test_the_rest(accept: Accept) -> None:
    """The subprotocol that was chosen is known, and Nagle's algorithm can be turned off and on."""
    handler, raw = await accept(headers={"Sec-WebSocket-Protocol": "one, two"})
    raw.write_frame(TEXT, b"hi")
    await raw.frame()
    assert handler.selected_subprotocol == "two"
    for value in (True, False, True):
        handler.set_nodelay(value)
        assert bool(end_of(handler.ws_connection).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is value


async def test_what_is_gone_says_so(connect: Connect, pair: tuple[int, int]) -> None:
    """What belonged to the handshake is let go, and whatever asks for it is told why; other names are as unknown."""
    await connect(*pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    for name in OF_THE_HANDSHAKE - set(dir(ChatSocket)):
        with pytest.raises(AttributeError, match="of the handshake"):
            getattr(chat, name)
    with pytest.raises(AttributeError, match="'ChatSocket' object has no attribute 'unknown'"):
        _ = chat.unknown


async def test_http_methods_say_why(connect: Connect, pair: tuple[int, int]) -> None:
    """Those of an HTTP answer cannot be used on a WebSocket."""
    await connect(*pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    for call in (
        lambda: chat.set_header("X", "y"),
        lambda: chat.get_query_argument("uid"),
        lambda: chat.get_cookie("x"),
        lambda: chat.write("x"),
        chat.finish,
    ):
        with pytest.raises((AttributeError, RuntimeError), match=r"of the handshake|finish\(\)"):
            call()


async def test_a_chat_socket_writes_messages(http_server: Server, pair: tuple[int, int]) -> None:
    """As any handler does."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    with closing(raw.writer.transport):
        (chat,) = ChatSocket.hub.sockets_of(pair[:1])
        await chat.write_message({"code": 0})
        assert await raw.frame() == (TEXT, b'{"code": 0}')
