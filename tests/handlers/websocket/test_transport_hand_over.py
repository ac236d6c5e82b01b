"""Between Tornado's stream and the loop's transport nothing is lost, and nothing stays behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.websocket.handler import ChatSocket
from handlers.websocket.transport import KEPT, BulkProtocol
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
    """Lets the next connections' hand over wait for `go`, after which it may fail with `error`."""

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
    """The peer's end, and nothing left of the socket here."""
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)
    assert not ChatSocket.hub.users()


async def test_frames_together_with_the_handshake(http_server: Server, pair: Pair) -> None:
    """A client need not wait for the answer: what comes with its request is worked off, in order."""
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
    """Are delivered, in order, and those after it too."""
    other = await connect(*reversed(pair))
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    assert chat.ws_connection.unsent == 0
    for number in range(2):
        await other.say(str(number), 50004)
    held.go.set()
    await other.say("2", 50004)
    said = [json.loads((await raw.frame())[1])["content"] for _ in range(3)]
    assert said == list("012")
    other.close()
    await ended(raw)


async def test_a_goodbye_before_the_hand_over(http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that closes in `open` is told what the peer answers, as after it."""
    greet, ended_with = ChatSocket.open, []

    def close(self: ChatSocket) -> None:
        greet(self)
        self.close(4000, "why")

    def note(self: ChatSocket) -> None:
        ended_with.append((self.close_code, self.close_reason))
        leave(self)

    leave = ChatSocket.on_close
    monkeypatch.setattr(ChatSocket, "open", close)
    monkeypatch.setattr(ChatSocket, "on_close", note)
    raw = await RawSocket.upgraded(http_server.port, *pair)
    assert await raw.frame() == (8, b"\x0f\xa0why")
    raw.writer.write(close_frame(4001, "because"))
    assert await raw.reader.read() == b""
    await ended(raw)
    assert ended_with == [(4001, "because")]


async def test_a_goodbye_during_the_hand_over(
    http_server: Server, pair: Pair, handing_over: Callable[[], SimpleNamespace]
) -> None:
    """Is said, and the peer's is waited for."""
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    protocol = chat.ws_connection
    chat.write_frame(b"last")
    chat.close(4000, "why")
    assert not protocol.write_text(b"late")
    held.go.set()
    assert [await raw.frame(), await raw.frame()] == [(TEXT, b"last"), (8, b"\x0f\xa0why")]
    raw.writer.write(close_frame(4000))
    assert await raw.reader.read() == b""
    await until(lambda: protocol._lost)
    await ended(raw)


async def test_torn_during_the_hand_over(
    http_server: Server, pair: Pair, handing_over: Callable[[], SimpleNamespace]
) -> None:
    """The connection ends with it."""
    held = handing_over()
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    chat.ws_connection._abort()
    held.go.set()
    assert await raw.reader.read() == b""
    await ended(raw)


async def test_a_hand_over_that_fails(
    http_server: Server, pair: Pair, handing_over: Callable[..., SimpleNamespace]
) -> None:
    """Nothing stays behind; the peer sees the end."""
    held = handing_over(OSError(errno.EMFILE, "no descriptor is left"))
    raw = await RawSocket.upgraded(http_server.port, *pair)
    assert ChatSocket.hub.sockets_of(pair[:1])
    held.go.set()
    assert await raw.reader.read() == b""
    await ended(raw)


async def test_no_descriptor_for_the_hand_over(
    http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is needed: the connection keeps the one it was accepted with."""

    def fail(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(socket.socket, "dup", fail)
    monkeypatch.setattr(os, "dup", fail)
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.write_frame(TEXT, b'{"type":1,"content":"hi"}')
    assert json.loads((await raw.frame())[1])["code"] == 50005
    await ended(raw)


async def test_several_writes_in_one_turn(http_server: Server, pair: Pair) -> None:
    """Leave in order, however long they are."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    sizes = [1, 20_000, 3, 125, 126, 65_535, 0, 65_536, 4]
    assert all(chat.write_frame(b"x" * size) for size in sizes)
    assert [len((await raw.frame())[1]) for _ in sizes] == sizes
    await ended(raw)


async def test_nothing_of_tornados_own_way_is_kept(http_server: Server, pair: tuple[int, int]) -> None:
    """Its stream and the state of its parser are more than all that an idle connection needs."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    await until(lambda: socket.ws_connection._transport is not None)
    own = {name for name in vars(BulkProtocol) if not name.startswith("__")}
    assert vars(socket.ws_connection).keys() <= KEPT | own
    raw.abort()
