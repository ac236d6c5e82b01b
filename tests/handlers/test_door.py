"""Handshakes that never finish take no more than their share, and not for long."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from server import Server
from tests.clients import PATIENCE, RawSocket, until
from tests.conftest import Connect

Pair = tuple[int, int]


async def ended(raw: RawSocket) -> bytes:
    """What comes until the server closes."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await raw.reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("flags", [["--handshake-timeout=0.3"]])
@pytest.mark.parametrize(
    "said", [b"", b"GET /ws HTTP/1.1\r\nHost: ", b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_handshakes_that_never_finish(said: bytes, http_server: Server, connect: Connect, pair: Pair) -> None:
    """Whoever says nothing, or says it byte by byte, is closed; a socket has all the time."""
    one = await connect(*pair)
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(said)
    ending = asyncio.ensure_future(ended(raw))
    while not ending.done():  # slowly, but without a pause
        raw.writer.write(b"x" if said else b"")
        await asyncio.wait((ending,), timeout=0.05)
    assert b" 200 " not in await ending
    raw.abort()
    await one.say("still here", 50005)


@pytest.mark.parametrize("flags", [["--max-http-connections=3"]])
async def test_connections_that_are_no_sockets_are_capped(http_server: Server, connect: Connect, pair: Pair) -> None:
    """Above the cap they are closed unheard; when one ends there is room, and sockets do not count."""
    sockets = [await connect(*pair) for _ in range(5)]
    silent = [await RawSocket.open(http_server.port) for _ in range(3)]
    refused = await RawSocket.open(http_server.port)
    assert await ended(refused) == b""
    refused.abort()
    for socket in sockets:
        await socket.say("still here")
    silent.pop().abort()
    answers: list[int] = []

    async def ask() -> None:
        while not answers:
            raw = await RawSocket.open(http_server.port)
            with contextlib.suppress(ConnectionResetError, asyncio.IncompleteReadError):
                answers.append((await raw.request("/ping"))[0])
            raw.abort()

    asking = asyncio.ensure_future(ask())
    await until(lambda: answers)
    await asking
    assert answers == [200]
    for raw in silent:
        raw.abort()
