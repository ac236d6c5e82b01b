"""What reaches below Tornado's public surface. Broken frames are in test_bad_input.py."""

from __future__ import annotations

import json

import pytest

from handlers.framing import ChatProtocol
from handlers.socket import ChatSocket
from server import Server
from tests.conftest import Connect
from tests.sockets import RawSocket, until

# Around every border of RFC 6455's three length encodings, in both directions.
LENGTHS = [0, 1, 50, 73, 74, 75, 76, 80, 8192]


@pytest.mark.parametrize("length", LENGTHS)
async def test_lengths(length: int, connect: Connect, pair: tuple[int, int]) -> None:
    """A text of any length arrives whole."""
    one, two = await connect(*pair), await connect(*reversed(pair))
    await one.say("x" * length, 50004)
    await two.receive(50001, "x" * length)


@pytest.mark.parametrize("size", [125, 126, 127, 65_535, 65_536])
async def test_client_frames_up_to_the_limit(size: int, http_server: Server, pair: tuple[int, int]) -> None:
    """The largest frame that is allowed is read and answered."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    frame = b'{"type":1,"content":"hi"'
    raw.write_frame(1, frame + b" " * (size - len(frame) - 1) + b"}")
    opcode, payload = await raw.frame()
    assert (opcode, json.loads(payload)["code"]) == (1, 50005)
    raw.abort()


async def test_text_split_inside_a_character(http_server: Server, pair: tuple[int, int]) -> None:
    """Fragments may end anywhere; UTF-8 is looked at when the message is whole."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    whole = '{"type":1,"content":"字"}'.encode()
    raw.write_frame(1, whole[:22], fin=False)
    raw.write_frame(0, whole[22:])
    assert json.loads((await raw.frame())[1])["code"] == 50005
    raw.abort()


async def test_a_flood_of_pings_is_bounded(http_server: Server, pair: tuple[int, int]) -> None:
    """Pongs that nobody reads do not pile up."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.writer.transport.pause_reading()
    (socket,) = ChatSocket._sockets_of(pair[:1])
    protocol = socket.ws_connection
    assert isinstance(protocol, ChatProtocol)
    for _ in range(200):
        for _ in range(100):
            raw.write_frame(9, b"x" * 125)
        await raw.writer.drain()
        assert protocol.unsent <= 65_536
    raw.abort()
    await until(lambda: ChatSocket.count() == 0)


async def test_writing_to_what_is_closing(connect: Connect, pair: tuple[int, int]) -> None:
    """Says that it is too late, and raises nothing."""
    await connect(*pair)
    (socket,) = ChatSocket._sockets_of(pair[:1])
    protocol = socket.ws_connection
    assert isinstance(protocol, ChatProtocol)
    protocol.close(1000)
    assert not protocol.write_text(b"{}")
    await protocol.sent()


@pytest.mark.parametrize("flags", [["--frames=tornado"]])
async def test_who_is_gone_is_not_served(http_server: Server, pair: tuple[int, int]) -> None:
    """What a torn connection had still sent is not worked off: its place is free at once."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    (socket,) = ChatSocket._sockets_of(pair[:1])
    taken: list[object] = []
    socket.on_message = taken.append
    socket.ws_connection.stream.close()
    socket.ws_connection._handle_message(1, b"{}")
    assert not taken
    await until(lambda: ChatSocket.count() == 0)
    raw.abort()
