"""The transport of connections under TLS, with a client that may do anything."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from handlers.http.server import tls_context
from handlers.websocket.tls_transport import RECORD, TLSTransport
from tests.support.certificates import certificate
from tests.support.patience import PATIENCE
from tests.support.sockets import until
from tests.support.transports import Notes, reset


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


@asynccontextmanager
async def connected(
    pem: tuple[Path, Path], *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, read_before: int = 0
) -> AsyncIterator[tuple[TLSTransport, Notes, ssl.SSLSocket]]:
    """Yield a transport, its protocol, and the client, which blocks. `read_before` bytes are read before the transport.

    The client has sent `hello` by then.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = socket.create_connection(server.getsockname(), timeout=PATIENCE)
        accepted, _ = server.accept()
    greeted = tls_context(*map(str, pem)).wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
    peer, _ = await asyncio.gather(
        asyncio.to_thread(context.wrap_socket, plain, suppress_ragged_eofs=False),
        asyncio.to_thread(greeted.do_handshake),
    )
    with peer:
        await asyncio.to_thread(peer.sendall, b"hello")
        if read_before:
            assert await asyncio.to_thread(greeted.recv, read_before) == b"hello"[:read_before]
        greeted.setblocking(False)
        notes = Notes()
        transport = TLSTransport(greeted, notes)
        try:
            yield transport, notes, peer
        finally:
            transport.abort()
            await until(lambda: "lost" in notes.events)
            transport.abort()
            assert notes.events.count("lost") == 1


def everything(peer: ssl.SSLSocket) -> int:
    """Return the number of bytes up to `close_notify`. Raises ssl.SSLError for an end without it."""
    size = 0
    while part := peer.recv(2**20):
        size += len(part)
    return size


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
async def test_reading_and_pausing(pem: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    """Nothing is read before it is wanted or after a pause, and then all is, in order."""
    async with connected(pem, version=version) as (transport, notes, peer):
        assert not transport.is_reading()
        await asyncio.sleep(0)
        assert not notes.data
        transport.resume_reading()
        await until(lambda: notes.data == b"hello")
        transport.pause_reading()
        sending = asyncio.ensure_future(asyncio.to_thread(peer.sendall, b"x" * 5_000_000))
        transport.resume_reading()
        await until(lambda: len(notes.data) > RECORD)
        transport.pause_reading()
        size = len(notes.data)
        await asyncio.sleep(0)
        assert (len(notes.data), transport.is_reading()) == (size, False)
        transport.resume_reading()
        await sending
        await until(lambda: len(notes.data) == 5_000_005)


async def test_a_record_that_was_read_in_part(pem: tuple[Path, Path]) -> None:
    """Bytes that the socket has read and decrypted before are handed on without any more from the client."""
    async with connected(pem, read_before=2) as (transport, notes, _):
        transport.resume_reading()
        await until(lambda: notes.data == b"llo")


@pytest.mark.parametrize("version", VERSIONS)
async def test_pausing_the_writer(pem: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    """The protocol is paused above the limit, and resumed when all bytes are sent."""
    async with connected(pem, version=version) as (transport, notes, peer):
        transport.set_write_buffer_limits(1000, 0)
        transport.write(b"x" * 20_000_000)
        unsent = transport.get_write_buffer_size()
        transport.write(b"y")
        assert (notes.events, transport.get_write_buffer_size()) == (["pause"], unsent + 1)
        assert 0 < unsent < 20_000_000
        transport.close()
        transport.write(b"too late")
        assert await asyncio.to_thread(everything, peer) == 20_000_001
        await until(lambda: notes.events == ["pause", "resume", "lost"])
        assert transport.get_write_buffer_size() == 0


async def test_a_half_close(pem: tuple[Path, Path]) -> None:
    """After all bytes the client gets `close_notify`, and its own bytes are dropped up to its end."""
    async with connected(pem) as (transport, notes, peer):
        transport.write(b"x" * 5_000_000)
        transport.write_eof()
        transport.write_eof()
        transport.write(b"too late")
        assert transport.can_write_eof()
        assert await asyncio.to_thread(everything, peer) == 5_000_000
        await asyncio.to_thread(peer.sendall, b"x" * 5_000_000)
        assert (notes.data, transport.is_closing()) == (b"", False)
        assert transport.get_extra_info("socket").fileno() >= 0
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: notes.events[-1:] == ["lost"])


@pytest.mark.parametrize("end", [TLSTransport.abort, TLSTransport.close, None], ids=["abort", "close", "reset"])
async def test_an_end_after_the_half_close(pem: tuple[Path, Path], end: Callable[[TLSTransport], None] | None) -> None:
    """After the half-close, any end is reported once, and in a later turn."""
    async with connected(pem) as (transport, notes, peer):
        transport.write_eof()
        assert await asyncio.to_thread(everything, peer) == 0
        if end is None:
            reset(peer)
        else:
            end(transport)
            end(transport)
            assert notes.events == []
        await until(lambda: notes.events == ["lost"])
        transport.write_eof()
        transport.write(b"too late")


async def test_an_end_of_the_client(pem: tuple[Path, Path]) -> None:
    """The client's `close_notify` is answered with ours, behind the bytes that were written."""
    async with connected(pem) as (transport, notes, peer):
        transport.write(b"bye")
        assert await asyncio.to_thread(peer.recv, 3) == b"bye"
        transport.resume_reading()
        plain = await asyncio.to_thread(peer.unwrap)
        plain.close()
        await until(lambda: notes.events == ["eof", "lost"])


async def test_an_end_without_close_notify(pem: tuple[Path, Path]) -> None:
    """When the client ends the connection below TLS, the end is reported."""
    async with connected(pem) as (transport, notes, peer):
        transport.resume_reading()
        transport.write(b"x" * 5_000_000)
        peer.shutdown(socket.SHUT_WR)
        while await asyncio.to_thread(peer.recv, 2**20):
            pass
        await until(lambda: notes.events[-1:] == ["lost"])


@pytest.mark.parametrize("junk", [b"", b"junk that is no record of TLS"], ids=["reset", "broken"])
async def test_a_client_that_resets_or_breaks_tls(pem: tuple[Path, Path], junk: bytes) -> None:
    """The end is reported, and nothing is written after it."""
    async with connected(pem) as (transport, notes, peer):
        transport.resume_reading()
        await until(lambda: notes.data == b"hello")
        if junk:
            with socket.socket(fileno=peer.detach()) as plain:
                plain.sendall(junk)
                await until(lambda: notes.events == ["lost"])
        else:
            reset(peer)
            await until(lambda: notes.events[-1:] == ["lost"])
        transport.write(b"too late")
        transport.write_eof()
        transport.resume_reading()
        assert (transport.is_closing(), transport.get_write_buffer_size()) == (True, 0)


async def test_writing_to_a_client_that_is_gone(pem: tuple[Path, Path]) -> None:
    """A write that fails ends the connection, whether it is the first one or follows unsent bytes."""
    for size in (1, 20_000_000):
        async with connected(pem) as (transport, notes, peer):
            if size > 1:
                transport.write(b"x" * size)
            reset(peer)
            async with asyncio.timeout(PATIENCE):
                while not transport.is_closing():
                    transport.write(b"x")
                    await asyncio.sleep(0)
            await until(lambda notes=notes: notes.events[-1:] == ["lost"])
