"""Tests of requests below the handlers: too large, too slow, chunked, in absolute form. Each gets an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPInputError
from tornado.iostream import IOStream

from handlers.http.http1 import ChunkDecoder, RequestRefused, in_origin_form
from handlers.websocket.handler import ChatSocket
from server import Server
from tests.support.sockets import PATIENCE, RawSocket, socket_path, until

Pair = tuple[int, int]


async def answer_to(raw: RawSocket, *parts: bytes) -> tuple[int, Any, bytes]:
    """Send all of a request, then read everything. Return the status, the body and the bytes after it."""
    for part in parts:
        raw.writer.write(part)
        await raw.writer.drain()
    async with asyncio.timeout(PATIENCE):
        header = (await raw.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(header.partition("content-length: ")[2].split("\r\n")[0])
        body = await raw.reader.readexactly(length)
        rest = await raw.reader.read() if "connection: close" in header else b""
    return int(header.split()[1]), json.loads(body), rest


REFUSED = {
    "a header of 20 KB": (431, b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n"),
    "a header without an end": (431, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 150_000),
    "a header of one byte too much": (431, b"GET /ping HTTP/1.1\r\nHost: h\r\nX: ".ljust(16_381, b"y") + b"\r\n\r\n"),
    "a path of 1 MB": (414, b"GET /" + b"x" * 1_000_000),
    "a body of 1 MB": (
        413,
        b"POST /user/login HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,
    ),
    "a length beyond all numbers": (
        413,
        b"POST /user/login HTTP/1.1\r\nHost: h\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ),
    "a chunk of 1 MB": (
        413,
        b"POST /user/login HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nF4240\r\n" + b"x" * 1_000_000,
    ),
    "65,000 chunks of a byte": (
        413,
        b"POST /user/login HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 65_000
        + b"0\r\n\r\n",
    ),
    "a chunk that is none": (400, b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
    "a header that is none": (400, b"POST /user/login HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n" + b"x" * 500_000),
    "a line that is none": (400, b"one two\r\nHost: h\r\n\r\n" + b"x" * 500_000),
    "two lengths": (400, b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    "a length and chunks": (
        400,
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_before_a_handler_sees_it(status: int, sent: bytes, http_server: Server) -> None:
    """The answer is in the envelope, arrives although the client goes on sending, and ends the connection."""
    raw = await RawSocket.open(http_server.port)
    got, envelope, rest = await answer_to(raw, sent)
    assert (got, envelope["status"], envelope["msg"], rest) == (status, status, "fail", b"")
    assert envelope["error"]
    raw.abort()


async def test_the_second_request_of_a_connection(http_server: Server) -> None:
    """The second request has the same limits, and the first answer stays."""
    raw = await RawSocket.open(http_server.port)
    assert await raw.request("/ping") == (200, b'"SUCCESS"')
    got, _, _ = await answer_to(raw, b"GET /ping HTTP/1.1\r\nX: " + b"y" * 20_000)
    assert got == 431
    raw.abort()


async def test_a_header_of_just_the_size(http_server: Server) -> None:
    """A header of the maximum size is accepted, whole or in pieces, and so is a pipelined request after it."""
    header = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX: "
    header += b"y" * (16_384 - len(header) - 4) + b"\r\n\r\n"
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(header * 2)
    for start in range(0, len(header), 1000):
        await raw.writer.drain()
        raw.writer.write(header[start : start + 1000])
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            assert (await raw.reader.readuntil(b'"SUCCESS"')).startswith(b"HTTP/1.1 200 ")
    raw.abort()


@pytest.mark.parametrize("flags", [["--handshake-timeout=0.3"]])
@pytest.mark.parametrize(
    ("sent", "text"), [(b"GET /ping HTTP/1.1\r\nHo", "header"), (b"POST /x HTTP/1.1\r\nHost: h\r\n", "header")]
)
async def test_a_header_that_does_not_come(sent: bytes, text: str, http_server: Server) -> None:
    """A header that is not complete in time is answered with 408."""
    raw = await RawSocket.open(http_server.port)
    got, envelope, _ = await answer_to(raw, sent)
    assert (got, text in envelope["error"]) == (408, True)
    raw.abort()


@pytest.mark.parametrize("flags", [["--handshake-timeout=0.3"]])
@pytest.mark.parametrize("kind", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come(kind: bytes, http_server: Server) -> None:
    """A body that is not complete in time is answered with 408."""
    raw = await RawSocket.open(http_server.port)
    got, envelope, _ = await answer_to(raw, b"POST /user/login HTTP/1.1\r\nHost: h\r\n" + kind + b"\r\n\r\n5")
    assert (got, "body" in envelope["error"]) == (408, True)
    raw.abort()


async def test_a_connection_that_asks_for_nothing(http_server: Server) -> None:
    """A client that disconnects before or during a request causes no error and holds no connection."""
    for sent in (b"", b"GET /ping HTTP/1.1\r\n", b"POST /user/login HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"):
        raw = await RawSocket.open(http_server.port)
        raw.writer.write(sent)
        raw.writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert await raw.reader.read() == b""
        raw.abort()


# Chunks


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    st.lists(st.integers(1, 50), max_size=30),
    st.binary(max_size=10),
)
def test_chunks_however_they_come(chunks: list[bytes], cuts: list[int], behind: bytes) -> None:
    """The body is the same however its chunks are split, and the bytes after it are given back."""
    decoder, data = ChunkDecoder(10_000, 10_000), chunked(*chunks) + behind
    rest, at = None, 0
    for cut in (*cuts, len(data)):
        if rest is not None or at >= len(data):
            break
        rest = decoder.feed(data[at : at + cut])
        at += cut
    if rest is None:
        rest = decoder.feed(b"")
    assert (rest or b"") + data[at:] == behind
    assert decoder.body == b"".join(chunks)


WRONG_CHUNKS = {
    b"x\r\n": 400,
    b"\r\n": 400,
    b"-1\r\n": 400,
    b"0x1\r\n": 400,
    b"1_0\r\n": 400,
    b" 1\r\n": 400,
    b"1;extension=1\r\n": 400,
    b"1\n": None,  # not complete without CR
    b"1" * 64: 400,
    b"f" * 15 + b"\r\n": 413,
    b"1\r\nxy": None,
    b"1\r\nxyz": 400,
    b"1\r\nx\n0\r\n": 400,
    b"0\r\nTrailer: x\r\n\r\n": 400,
    b"65\r\n": 413,
    b"64\r\n" + b"x" * 100 + b"\r\n1\r\n": 413,
    b"1\r\nx\r\n" * 21: 413,
}


@pytest.mark.parametrize(("data", "status"), WRONG_CHUNKS.items(), ids=range(len(WRONG_CHUNKS)))
def test_chunks_that_are_none(data: bytes, status: int | None) -> None:
    """Malformed chunks are refused as early as possible, byte by byte or at once."""
    for size in (1, len(data)):
        decoder = ChunkDecoder(100, 100)
        found = None
        try:
            for start in range(0, len(data), size):
                assert decoder.feed(data[start : start + size]) is None
        except RequestRefused as refused:
            found = refused.status.value
        assert found == status


async def test_many_small_chunks_are_read_in_bulk(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small chunks take as many reads as a body without chunks, not some for each chunk."""
    reads, read_bytes = 0, IOStream.read_bytes

    def counting(self: IOStream, *args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return read_bytes(self, *args, **kwargs)

    monkeypatch.setattr(IOStream, "read_bytes", counting)
    body = json.dumps({"user_name": "x" * 1500, "password": "y"}).encode()
    head = (
        b"POST /user/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    )
    raw = await RawSocket.open(http_server.port)
    got, envelope, _ = await answer_to(raw, head + b"\r\n\r\n" + chunked(*(bytes([each]) for each in body)))
    assert (got, envelope["error"].startswith("user_name: has 1500 characters")) == (400, True)
    assert reads < 50
    assert await raw.request("/ping") == (200, b'"SUCCESS"')
    raw.abort()


# Targets in absolute form


@pytest.mark.parametrize(
    ("line", "expected", "host"),
    [
        ("GET http://other:80/ping HTTP/1.1", "GET /ping HTTP/1.1", "other:80"),
        ("GET HTTPS://[::1]:3000/ws?uid=1&x=/ HTTP/1.1", "GET /ws?uid=1&x=/ HTTP/1.1", "[::1]:3000"),
        ("GET http://other HTTP/1.1", "GET / HTTP/1.1", "other"),
        ("GET http://other?x HTTP/1.1", "GET /?x HTTP/1.1", "other"),
        ("GET http:///ping HTTP/1.1", "GET /ping HTTP/1.1", ""),
        ("GET /http://other/ HTTP/1.1", "GET /http://other/ HTTP/1.1", "here"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1", "here"),
        ("GET ftp://other/ HTTP/1.1", "GET ftp://other/ HTTP/1.1", "here"),
        ("CONNECT other:443 HTTP/1.1", "CONNECT other:443 HTTP/1.1", "here"),
    ],
)
def test_the_target_in_absolute_form(line: str, expected: str, host: str) -> None:
    """The path and the host of the URL are used, and Host is replaced; other forms stay as they are."""
    headers = HTTPHeaders({"Host": "here"})
    assert in_origin_form(line, headers) == expected
    assert headers["Host"] == host


def test_a_target_in_absolute_form_does_not_mend_host() -> None:
    """A request without Host, or with two, stays invalid."""
    without, two = HTTPHeaders(), HTTPHeaders()
    two.add("Host", "a")
    two.add("Host", "b")
    for headers in (without, two):
        before = dict(headers)
        assert in_origin_form("GET http://other/ HTTP/1.1", headers) == "GET / HTTP/1.1"
        assert before == dict(headers)
    assert in_origin_form("GET http://other/ HTTP/1.0", without) == "GET / HTTP/1.0"
    assert without["Host"] == "other"
    with pytest.raises(HTTPInputError):
        in_origin_form("GET http://other/", without)


ABSOLUTE = {
    "as it should be": ("http://localhost:3000", {"Host": "localhost:3000"}, 200),
    "another Host": ("http://localhost:3000", {"Host": "evil.example"}, 200),
    "a rebound name": ("http://evil.example", {"Host": "localhost:3000"}, 403),
    "a rebound name and its page": ("http://evil.example", {"Host": "localhost", "Origin": "http://localhost"}, 403),
    "a user before the host": ("http://localhost@evil.example", {"Host": "localhost"}, 400),
    "no host": ("http://", {"Host": "localhost"}, 403),
}


@pytest.mark.parametrize(("base", "headers", "status"), ABSOLUTE.values(), ids=ABSOLUTE)
async def test_requests_in_absolute_form(
    base: str, headers: dict[str, str], status: int, http_server: Server, pair: Pair
) -> None:
    """Requests in absolute form work over HTTP and on sockets, and the host in the target is checked."""
    for path, upgrade, good in ((f"/user/me?uid={pair[0]}", False, 200), (socket_path(*pair), True, 101)):
        raw = await RawSocket.open(http_server.port)
        got, body = await raw.request(base + path, upgrade=upgrade, headers=headers)
        assert got == (good if status == 200 else status), body
        raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)
