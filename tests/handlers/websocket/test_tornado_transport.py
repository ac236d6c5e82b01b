"""Frames on both transports of a server, and what the stream's transport does by itself.

Broken frames are in test_conformance.py, what happens over time on either transport in test_bulk.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.iostream import IOStream

from handlers.http.server import tls_context
from handlers.websocket import transport
from handlers.websocket.handler import ChatSocket
from handlers.websocket.tornado_transport import CHUNK, StreamTransport
from handlers.websocket.transport import BulkProtocol
from server import Server
from tests.conftest import Connect
from tests.support.certificates import certificate
from tests.support.echo import serve_echo
from tests.support.sockets import RawSocket, until

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


@pytest.mark.parametrize("flags", [["--request-burst=1000000"]])
async def test_a_flood_of_pings_is_bounded(http_server: Server, pair: tuple[int, int]) -> None:
    """Pongs that nobody reads do not pile up."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.writer.transport.pause_reading()
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    protocol = socket.ws_connection
    assert isinstance(protocol, BulkProtocol)
    for _ in range(200):
        for _ in range(100):
            raw.write_frame(9, b"x" * 125)
        await raw.writer.drain()
        assert protocol.unsent <= 65_536
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


async def test_writing_to_what_is_closing(connect: Connect, pair: tuple[int, int]) -> None:
    """Says that it is too late, and raises nothing."""
    await connect(*pair)
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    protocol = socket.ws_connection
    assert isinstance(protocol, BulkProtocol)
    protocol.close(1000)
    assert not protocol.write_text(b"{}")
    await protocol.sent()


class Notes(asyncio.Protocol):
    """Notes what a transport says."""

    def __init__(self) -> None:
        self.said: list[str | bytes] = []

    def data_received(self, data: bytes) -> None:
        self.said.append(data)

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append("lost")


Connected = tuple[StreamTransport, Notes, socket.socket]


@asynccontextmanager
async def connected() -> AsyncIterator[Connected]:
    """A transport, its protocol, and the other end of the connection, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.setblocking(False)
    notes = Notes()
    transport = StreamTransport(IOStream(accepted), notes)
    with peer:
        peer.setblocking(False)
        try:
            yield transport, notes, peer
        finally:
            transport.abort()
            await until(lambda: "lost" in notes.said)
            assert notes.said.count("lost") == 1


async def everything(peer: socket.socket) -> int:
    """How many bytes come up to the end."""
    size = 0
    while part := await asyncio.get_running_loop().sock_recv(peer, 2**20):
        size += len(part)
    return size


async def test_reading_and_pausing() -> None:
    """Nothing is read before it is asked for; what is read when it pauses is still handed on, and it is not much."""
    async with connected() as (transport, notes, peer):
        assert not transport.is_reading()
        peer.send(b"a")
        await asyncio.sleep(0)
        assert notes.said == []
        transport.resume_reading()
        await until(lambda: notes.said == [b"a"])
        transport.pause_reading()
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(peer, b"x" * 20_000_000))
        await until(lambda: notes.said[1:])
        assert sum(map(len, notes.said)) <= 1 + CHUNK
        transport.resume_reading()
        await sending
        await until(lambda: sum(map(len, notes.said)) == 20_000_001)


async def test_much_that_is_unsent() -> None:
    """The protocol is told to pause above the limit, and to resume when all is sent."""
    async with connected() as (transport, notes, peer):
        transport.set_write_buffer_limits(1000, 0)
        transport.write(b"x" * 20_000_000)
        transport.write(b"y")
        assert notes.said == ["pause"]
        assert transport.get_write_buffer_size() > 1000
        transport.close()
        assert transport.is_closing()
        transport.write(b"too late")
        assert await everything(peer) == 20_000_001
        await until(lambda: notes.said == ["pause", "resume", "lost"])


async def test_an_end_of_one_half() -> None:
    """All is sent, then the peer sees the end; what it still sends is dropped, up to its own end."""
    async with connected() as (transport, notes, peer):
        transport.resume_reading()
        transport.write(b"x" * 20_000_000)
        transport.write_eof()
        transport.write_eof()
        transport.write(b"too late")
        assert await everything(peer) == 20_000_000
        await asyncio.get_running_loop().sock_sendall(peer, b"x" * 5_000_000)
        transport.resume_reading()
        assert notes.said == ["pause", "resume"]
        assert (transport.is_closing(), transport.can_write_eof()) == (False, True)
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: notes.said[-1] == "lost")


@pytest.mark.parametrize("end", [StreamTransport.abort, StreamTransport.close, None], ids=["abort", "close", "reset"])
async def test_what_ends_after_one_half(end: Callable[[StreamTransport], None] | None) -> None:
    """However it ends then, the protocol is told once, and later."""
    async with connected() as (transport, notes, peer):
        transport.write_eof()
        assert await everything(peer) == 0
        if end is None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        else:
            end(transport)
            end(transport)
            assert notes.said == []
        await until(lambda: notes.said == ["lost"])
        transport.write_eof()
        transport.write(b"too late")


async def test_a_peer_that_is_gone() -> None:
    """What it had sent before a reset is not handed on, and nothing is written."""
    async with connected() as (transport, notes, peer):
        transport.resume_reading()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: notes.said == ["lost"])
        transport.write(b"too late")
        transport.write_eof()
        assert transport.get_write_buffer_size() == 0
        await transport.flushed()


@pytest.mark.parametrize("said", [b"\x88\x80\x00\x00\x00\x00", b"\x81\x00"], ids=["goodbye", "broken"])
async def test_tls_ends_with_its_own_goodbye(said: bytes, tmp_path: Path) -> None:
    """Without it the client could not tell the end of the connection from an attacker's."""
    files = certificate(tmp_path, "localhost")
    server, port = serve_echo(0, frames="bulk", tls=tls_context(*map(str, files)))

    def speak() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port), timeout=15) as plain,
            context.wrap_socket(plain, suppress_ragged_eofs=False) as peer,
        ):
            peer.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" + said
            )
            answer = b""
            while part := peer.recv(65_536):  # raises for an end without a goodbye
                answer += part
            return answer

    answer = await asyncio.to_thread(speak)
    assert answer.partition(b"\r\n\r\n")[2][:1] == b"\x88"
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_peer_that_never_ends(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is torn off after a time, though it goes on sending."""
    monkeypatch.setattr(transport, "CLOSE_WITHIN", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certified = tls_context(*map(str, certificate(tmp_path, "localhost"))) if tls else None
    server, port = serve_echo(0, frames="tornado", tls=certified)
    raw = await RawSocket.open(port, context if tls else None)
    assert (await raw.request("/", upgrade=True))[0] == 101
    raw.write_frame(3, b"")
    assert await raw.close_code() == 1002

    def torn() -> bool:
        raw.writer.write(b"more")
        return raw.writer.transport.is_closing()

    await until(torn)
    server.stop()
    await server.close_all_connections()
