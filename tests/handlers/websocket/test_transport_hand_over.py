"""Between Tornado's stream and the loop's transport nothing is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import socket
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.iostream import IOStream

from handlers.websocket.connection import SocketConnection
from handlers.websocket.handler import ChatSocket
from handlers.websocket.tornado_transport import StreamTransport
from handlers.websocket.transport import FrameProtocol
from server import Server
from tests.conftest import Connect
from tests.support.sockets import RawSocket, socket_path, until
from tests.support.transports import TEXT, close_frame, frame

Pair = tuple[int, int]


@pytest.fixture
def flags() -> list[str]:
    return ["--frames=bulk"]


@pytest.fixture
def handing_over(monkeypatch: pytest.MonkeyPatch) -> Callable[[], SimpleNamespace]:
    """Let the hand-over of the next connections wait for `go`, after which it may fail with `error`."""

    def hold(error: Exception | None = None) -> SimpleNamespace:
        loop = asyncio.get_running_loop()
        connect = loop.connect_accepted_socket
        held = SimpleNamespace(go=asyncio.Event())

        async def later(*arguments: Any) -> Any:
            await held.go.wait()
            if error is not None:
                arguments[-1].close()
                raise error
            return await connect(*arguments)

        monkeypatch.setattr(loop, "connect_accepted_socket", later)
        return held

    return hold


async def ended(raw: RawSocket) -> None:
    """End the client, and wait until nothing is left of the socket in the server."""
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)
    assert not ChatSocket.hub.users()


async def test_frames_together_with_the_handshake(http_server: Server, pair: Pair) -> None:
    """Frames that come with the request are handled in order; a client need not wait for the answer."""
    raw = await RawSocket.open(http_server.port)
    write = raw.writer.write
    good, bad = frame(TEXT, '{"type":1,"content":"hi"}'), frame(TEXT, "hi")
    raw.writer.write = lambda data: write(data + good + bad + good + good + bad[:3])  # type: ignore[method-assign]
    assert (await raw.request(socket_path(*pair), upgrade=True))[0] == 101
    write(bad[3:])
    codes = [json.loads((await raw.frame())[1])["code"] for _ in range(6)]
    assert codes == [50002, 50005, 400, 50005, 50005, 400]
    await ended(raw)


async def test_messages_during_the_hand_over(
    http_server: Server, pair: Pair, connect: Connect, handing_over: Callable[[], SimpleNamespace]
) -> None:
    """Messages during and after the hand-over are delivered in order."""
    other = await connect(*reversed(pair))
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    assert chat.unsent == 0
    for number in range(2):
        await other.say(str(number), 50004)
    held.go.set()
    await other.say("2", 50004)
    said = [json.loads((await raw.frame())[1])["content"] for _ in range(3)]
    assert said == list("012")
    other.close()
    await ended(raw)


async def test_a_close_before_the_hand_over(http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that closes while it opens gets the client's answer."""
    join, ended_with = SocketConnection.on_open, []

    def close(self: SocketConnection) -> None:
        join(self)
        self.close(4000, "why")

    def note(self: SocketConnection) -> None:
        ended_with.append((self.close_code, self.close_reason))
        leave(self)

    leave = SocketConnection.on_close
    monkeypatch.setattr(SocketConnection, "on_open", close)
    monkeypatch.setattr(SocketConnection, "on_close", note)
    raw = await RawSocket.upgraded(http_server.port, *pair)
    assert await raw.frame() == (8, b"\x0f\xa0why")
    raw.writer.write(close_frame(4001, "because"))
    assert await raw.reader.read() == b""
    await ended(raw)
    assert ended_with == [(4001, "because")]


async def test_a_close_during_the_hand_over(
    http_server: Server, pair: Pair, handing_over: Callable[[], SimpleNamespace]
) -> None:
    """A close frame during the hand-over is sent, and its answer is waited for."""
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    chat.write_frame(b"last")
    chat.close(4000, "why")
    assert not chat.write_frame(b"late")
    held.go.set()
    assert [await raw.frame(), await raw.frame()] == [(TEXT, b"last"), (8, b"\x0f\xa0why")]
    raw.writer.write(close_frame(4000))
    assert await raw.reader.read() == b""
    await ended(raw)


async def test_an_abort_during_the_hand_over(
    http_server: Server, pair: Pair, handing_over: Callable[[], SimpleNamespace]
) -> None:
    """A connection that is aborted during the hand-over ends with it."""
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    chat.abort()
    held.go.set()
    assert await raw.reader.read() == b""
    await ended(raw)


async def test_a_hand_over_that_fails(
    http_server: Server, pair: Pair, handing_over: Callable[..., SimpleNamespace]
) -> None:
    """After a failed hand-over nothing is left behind, and the client sees the end."""
    held = handing_over(OSError(errno.EMFILE, "no descriptor is left"))
    raw = await RawSocket.upgraded(http_server.port, *pair)
    assert ChatSocket.hub.sockets_of(pair[:1])
    held.go.set()
    assert await raw.reader.read() == b""
    await ended(raw)


async def test_no_descriptor_for_the_hand_over(
    http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hand-over needs no other descriptor than the connection's own."""

    def fail(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(socket.socket, "dup", fail)
    monkeypatch.setattr(os, "dup", fail)
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.write_frame(TEXT, b'{"type":1,"content":"hi"}')
    assert json.loads((await raw.frame())[1])["code"] == 50005
    await ended(raw)


async def test_several_writes_in_one_turn(http_server: Server, pair: Pair) -> None:
    """Frames of one turn are sent in order, however long they are."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    sizes = [1, 20_000, 3, 125, 126, 65_535, 0, 65_536, 4]
    assert all(chat.write_frame(b"x" * size) for size in sizes)
    assert [len((await raw.frame())[1]) for _ in sizes] == sizes
    await ended(raw)


async def test_the_stream_is_not_kept(http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on the loop's transport keeps nothing of Tornado's stream, even before a garbage collection."""
    streams: list[weakref.ref[IOStream]] = []
    take_over = FrameProtocol.take_over

    async def noting(self: FrameProtocol, stream: IOStream, *, in_loop: bool) -> None:
        streams.append(weakref.ref(stream))
        await take_over(self, stream, in_loop=in_loop)

    monkeypatch.setattr(FrameProtocol, "take_over", noting)
    gc.collect()
    gc.disable()
    try:
        raw = await RawSocket.upgraded(http_server.port, *pair)
        await until(lambda: streams[0]() is None)
    finally:
        gc.enable()
    await ended(raw)


async def test_bytes_that_the_stream_has_read_ahead() -> None:
    """A stream gives its socket and the bytes that it has read; without such bytes it does not read the socket."""
    for ahead in (b"", b"ahead"):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as peer:
            accepted, _ = server.accept()
            accepted.setblocking(False)
            stream = IOStream(accepted)
            peer.sendall(b"header" + ahead)
            assert await stream.read_until(b"header") == b"header"
            peer.sendall(b"later")
            taken, unread = StreamTransport(stream, asyncio.Protocol()).release()
            with taken:
                assert (unread, stream.closed()) == (ahead, True)
                assert await asyncio.get_running_loop().sock_recv(taken, 100) == b"later"
