"""Tests of the limits on connections that are not sockets, such as handshakes that never finish."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from tornado.httpclient import HTTPClientError

from handlers.websocket.handler import ChatSocket
from server import Server
from tests.conftest import Connect
from tests.support.patience import PATIENCE
from tests.support.sockets import Client, RawSocket, until

Pair = tuple[int, int]


async def ended(raw: RawSocket) -> bytes:
    """Return what comes until the server closes the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await raw.reader.read()
        except ConnectionResetError:
            return b""


async def connected_in_time(connect: Connect, pair: Pair) -> Client:
    """Return a socket whose own handshake was in time, which may take several attempts on a busy machine."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(HTTPClientError, OSError, AssertionError):
                return await connect(*pair)


@pytest.mark.parametrize("flags", [["--handshake-timeout=0.3"]])
@pytest.mark.parametrize(
    "said", [b"", b"GET /ws HTTP/1.1\r\nHost: ", b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_handshakes_that_never_finish(said: bytes, http_server: Server, connect: Connect, pair: Pair) -> None:
    """A silent or very slow client is closed; an open socket is not."""
    one = await connected_in_time(connect, pair)
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(said)
    ending = asyncio.ensure_future(ended(raw))
    while not ending.done():  # slowly, but steadily
        raw.writer.write(b"x" if said else b"")
        await asyncio.wait((ending,), timeout=0.05)
    assert b" 200 " not in await ending
    raw.abort()
    await one.say("still here", 50005)


@pytest.mark.parametrize("flags", [["--max-http-connections=3"]])
async def test_connections_that_are_no_sockets_are_capped(http_server: Server, connect: Connect, pair: Pair) -> None:
    """Above the limit, connections are closed at once. When one ends another is accepted; sockets do not count."""
    sockets = [await connect(*pair) for _ in range(5)]
    silent = [await RawSocket.open(http_server.port) for _ in range(3)]
    refused = await RawSocket.open(http_server.port)
    assert await ended(refused) == b""
    refused.abort()
    for each in sockets:
        await each.say("still here")
    silent.pop().abort()
    assert await asked_until_answered(http_server.port) == 200
    for raw in silent:
        raw.abort()


@pytest.mark.parametrize("flags", [["--max-address-http-connections=3"]])
async def test_one_address_has_a_share(http_server: Server, connect: Connect, pair: Pair) -> None:
    """Above the limit of one address its connections are closed at once, and those of others are accepted."""
    for _ in range(5):
        await connect(*pair)
    silent = [await RawSocket.open(http_server.port) for _ in range(3)]
    refused = await RawSocket.open(http_server.port)
    assert await ended(refused) == b""
    refused.abort()
    other = await RawSocket.open(http_server.port, source="127.0.0.2")
    assert (await other.request("/ping"))[0] == 200
    other.abort()
    for raw in silent:
        raw.abort()


@pytest.mark.parametrize("flags", [["--max-address-http-connections=1", "--trusted-proxies=127.0.0.1", "--auth=open"]])
async def test_a_trusted_proxy_has_no_bound(http_server: Server) -> None:
    """A trusted proxy has no limit, since it stands for many clients."""
    raws = [await RawSocket.open(http_server.port) for _ in range(5)]
    assert [(await raw.request("/ping"))[0] for raw in raws] == [200] * 5
    for raw in raws:
        raw.abort()


@pytest.mark.parametrize("flags", [["--handshake-timeout=0.3", "--max-address-http-connections=1"]])
async def test_a_client_that_does_not_read_an_answer(http_server: Server) -> None:
    """A client that does not read an answer is disconnected after a while, and no longer counts."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", http_server.port))
        deaf.sendall(b"GET /openapi.yaml HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
        refused = await RawSocket.open(http_server.port)
        assert await ended(refused) == b""
        refused.abort()
        assert await asked_until_answered(http_server.port) == 200


@pytest.mark.parametrize(("flags", "most"), [([], 2 * 65_536), (["--socket-buffer=8192"], 2 * 8192)])
async def test_what_the_system_buffers(most: int, http_server: Server, connect: Connect, pair: Pair) -> None:
    """The system's buffers of a connection are limited in both directions; Linux doubles the value for its own use."""
    await connect(*pair)
    (chat,) = ChatSocket.hub.sockets_of(pair[:1])
    await until(lambda: chat.get_extra_info("socket") is not None)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        assert chat.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, option) == most


async def asked_until_answered(port: int) -> int:
    """Send requests until one is answered, and return its status."""
    async with asyncio.timeout(PATIENCE):
        while True:
            raw = await RawSocket.open(port)
            try:
                return (await raw.request("/ping"))[0]
            except (ConnectionResetError, asyncio.IncompleteReadError):
                pass
            finally:
                raw.abort()


async def test_a_header_that_is_too_large(http_server: Server) -> None:
    """A header that is too large ends the connection before it is buffered."""
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
    assert b"200" not in await ended(raw)
    raw.abort()


@pytest.mark.parametrize("flags", [["--address-request-rate=0.001", "--address-request-burst=3"]])
@pytest.mark.parametrize("said", [b"one two\r\n\r\n", b"GET /" + b"x" * 20_000, b"GET /ping HTTP/1.1\r\n: x\r\n\r\n"])
async def test_what_no_handler_sees(said: bytes, http_server: Server) -> None:
    """Requests that no handler sees count for their address too: invalid ones on new connections are delayed."""
    for _ in range(4):
        raw = await RawSocket.open(http_server.port)
        raw.writer.write(said)
        assert (await ended(raw)).startswith(b"HTTP/1.1 4")
        raw.abort()
    raw = await RawSocket.open(http_server.port)
    assert (await raw.request("/ping"))[0] == 429
    raw.abort()
