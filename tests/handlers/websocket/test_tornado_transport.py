"""Frames on both transports of a server, and the transport on Tornado's stream by itself.

Broken frames are in test_conformance.py, and what happens over time on either transport in test_transport.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.iostream import IOStream

from handlers.http.server import tls_context
from handlers.websocket import transport
from handlers.websocket.handler import ChatSocket
from handlers.websocket.tornado_transport import CHUNK, StreamTransport
from server import Server
from tests.conftest import Connect
from tests.support.certificates import certificate
from tests.support.echo import serve_echo
from tests.support.sockets import RawSocket, until
from tests.support.transports import Notes, reset

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
    """Parts may end inside a character, since UTF-8 is checked when the message is whole."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    whole = '{"type":1,"content":"字"}'.encode()
    raw.write_frame(1, whole[:22], fin=False)
    raw.write_frame(0, whole[22:])
    assert json.loads((await raw.frame())[1])["code"] == 50005
    raw.abort()


@pytest.mark.parametrize("flags", [["--request-burst=1000000"]])
async def test_a_flood_of_pings_is_bounded(http_server: Server, pair: tuple[int, int]) -> None:
    """Pongs to a client that does not read do not pile up."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.writer.transport.pause_reading()
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    for _ in range(200):
        for _ in range(100):
            raw.write_frame(9, b"x" * 125)
        await raw.writer.drain()
        assert socket.unsent <= 65_536
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


async def test_writing_to_a_closing_socket(connect: Connect, pair: tuple[int, int]) -> None:
    """Writing to a closing socket says that it is too late, and raises nothing."""
    await connect(*pair)
    (socket,) = ChatSocket.hub.sockets_of(pair[:1])
    socket.close(1000)
    assert not socket.write_frame(b"{}")
    await socket.wait_sent()


Connected = tuple[StreamTransport, Notes, socket.socket]


@asynccontextmanager
async def connected() -> AsyncIterator[Connected]:
    """Yield a transport, its protocol, and the other end of the connection, which does not block."""
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
    """Return the number of bytes up to the end."""
    size = 0
    while part := await asyncio.get_running_loop().sock_recv(peer, 2**20):
        size += len(part)
    return size


async def test_reading_and_pausing() -> None:
    """Nothing is read before it is wanted, and after a pause at most one read is handed on."""
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


async def test_pausing_the_writer() -> None:
    """The protocol is paused above the limit, and resumed when all bytes are sent."""
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


async def test_the_number_of_unsent_bytes() -> None:
    """Bytes that were written are unsent or at the peer. Fails if Tornado changes its stream's write buffer."""
    async with connected() as (transport, _, peer):
        transport.write(b"x" * 20_000_000)
        unsent = transport.get_write_buffer_size()
        assert 0 < unsent < 20_000_000
        taken = 0
        while taken < 20_000_000 - unsent:
            taken += len(await asyncio.get_running_loop().sock_recv(peer, 20_000_000 - unsent - taken))
        transport.abort()
        assert transport.get_write_buffer_size() == 0


async def test_a_half_close() -> None:
    """After all bytes the peer sees the end, and its own bytes are dropped up to its end."""
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
async def test_an_end_after_the_half_close(end: Callable[[StreamTransport], None] | None) -> None:
    """After the half-close, any end is reported once, and in a later turn."""
    async with connected() as (transport, notes, peer):
        transport.write_eof()
        assert await everything(peer) == 0
        if end is None:
            reset(peer)
        else:
            end(transport)
            end(transport)
            assert notes.said == []
        await until(lambda: notes.said == ["lost"])
        transport.write_eof()
        transport.write(b"too late")


async def test_a_peer_that_is_gone() -> None:
    """Bytes before a reset are not handed on, and nothing is written after it."""
    async with connected() as (transport, notes, peer):
        transport.resume_reading()
        reset(peer)
        await until(lambda: notes.said == ["lost"])
        transport.write(b"too late")
        transport.write_eof()
        assert transport.get_write_buffer_size() == 0
        await transport.flushed()


@pytest.mark.parametrize("frames", ["bulk", "tornado"])
@pytest.mark.parametrize("said", [b"\x88\x80\x00\x00\x00\x00", b"\x81\x00"], ids=["goodbye", "broken"])
async def test_tls_ends_with_close_notify(said: bytes, frames: str, tmp_path: Path) -> None:
    """A TLS connection ends with `close_notify`, which tells the client that no attacker has cut it."""
    files = certificate(tmp_path, "localhost")
    server, port = serve_echo(0, frames=frames, tls=tls_context(*map(str, files)))

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


@pytest.mark.parametrize(("frames", "tls"), [("bulk", True), ("tornado", True), ("tornado", False)])
async def test_a_peer_that_never_ends(frames: str, tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that breaks the protocol and goes on sending is disconnected in time."""
    monkeypatch.setattr(transport, "CLOSE_WITHIN", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certified = tls_context(*map(str, certificate(tmp_path, "localhost"))) if tls else None
    server, port = serve_echo(0, frames=frames, tls=certified)
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
