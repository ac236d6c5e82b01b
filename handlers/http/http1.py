"""HTTP/1.1 connections: what Tornado's leave unanswered, do not accept, or read too slowly.

- A request that is too large (431, 413) or too slow (408) is answered, where Tornado closes the connection.
- If a request was answered before all of it was read, its rest is read and dropped for a while. A connection that is
  closed with unread bytes is reset, and the client loses the answer with it (RFC 9112, section 9.6).
- A request target may be in absolute form (RFC 9112, section 3.2.2).
- A chunked body is read in large pieces, and its framing is limited.

The parts of Tornado that this relies on are HTTP1ServerConnection and HTTP1Connection of `tornado.http1connection`, and
the read buffer of `tornado.iostream`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import structlog
from tornado import gen
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    parse_request_start_line,
)
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError

__all__ = ["ChunkDecoder", "HTTPConnection", "RequestRefused", "ServerConnection"]

READ_AT_ONCE = 65_536  # bytes
LINGER = 2.0  # seconds for which the rest of a request is read and dropped after the answer
LINGER_BYTES = 1_048_576  # of that rest, at most
SIZE_LINE = 64  # bytes of the line with a chunk's size, at most

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)

T = TypeVar("T")


class RequestRefused(Exception):
    """A request that no handler sees. It is answered with a status and a text, and its connection ends."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class ServerConnection(HTTP1ServerConnection):
    """A connection, which serves one request after the other. `weigh` is awaited before a request is refused."""

    def __init__(
        self, stream: IOStream, params: HTTP1ConnectionParameters, context: object, weigh: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(stream, params, context)
        self._weigh = weigh

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        try:
            while not self.stream.closed():  # requests of a closed connection are dropped
                connection = HTTPConnection(self.stream, False, self.params, self.context)
                await self._await_header()
                if not await connection.read_response(delegate.start_request(self, connection)):
                    return
                await asyncio.sleep(0)
        except RequestRefused as refused:
            await self._answer(refused)
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            return
        except Exception:  # noqa: BLE001  # a bug ends this connection, and no other
            _log.exception("connection_failed")
            self.stream.close()
        finally:
            delegate.on_close(self)

    async def _await_header(self) -> None:
        """Wait until the whole header of a request is in the stream's buffer. Raises RequestRefused."""
        stream, most = self.stream, self.params.max_header_size
        if _END_OF_HEADER.search(stream._read_buffer, 0, most):  # noqa: SLF001  # there is no other way to look ahead
            return
        header = bytearray()
        searched = 0
        deadline = stream.io_loop.time() + (self.params.header_timeout or 3600)
        while not _END_OF_HEADER.search(header, max(0, searched - 3)):
            if len(header) >= most:
                raise _header_too_large(header, most)
            searched = len(header)
            try:
                header += await _by(deadline, stream.read_bytes(most - len(header), partial=True))
            except TimeoutError:
                if not header:  # there was no request
                    stream.close()
                    raise StreamClosedError from None
                raise RequestRefused(HTTPStatus.REQUEST_TIMEOUT, "the header did not come in time") from None
        unread(stream, header)

    async def _answer(self, refused: RequestRefused) -> None:
        """Answer a request that is refused, and end the connection so that the answer arrives."""
        _log.debug("request_refused", status=refused.status.value, reason=str(refused))
        await self._weigh()
        try:
            await self.stream.write(_answer_of(refused))
            if refused.status is not HTTPStatus.REQUEST_TIMEOUT:  # a slow client has sent nothing more
                await _linger(self.stream)
        except (StreamClosedError, OSError):
            pass
        finally:
            self.stream.close()


class HTTPConnection(HTTP1Connection):
    """One request and its answer. The connection's loop answers a RequestRefused that is raised here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._time_for_body, self._body_timeout = self._body_timeout, None

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        try:
            start_line, headers = super()._parse_headers(data)
            return in_origin_form(start_line, headers), headers
        except HTTPInputError:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "the request line or a header is malformed") from None

    def _read_body(self, code: int, headers: HTTPHeaders, delegate: HTTPMessageDelegate) -> Awaitable[None] | None:
        length = headers.get("Content-Length", "0").partition(",")[0]
        if length.isdigit() and not (_LENGTH.fullmatch(length) and int(length) <= self._max_body_size):
            raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._max_body_size))
        try:
            reading = super()._read_body(code, headers, delegate)
        except HTTPInputError:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "the length of the body is not clear") from None
        return None if reading is None else self._in_time(reading)

    async def _in_time(self, reading: Awaitable[None]) -> None:
        try:
            await _by(self.stream.io_loop.time() + (self._time_for_body or 3600), reading)
        except TimeoutError:
            raise RequestRefused(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None

    async def _read_chunked_body(self, delegate: HTTPMessageDelegate) -> None:
        decoder = ChunkDecoder(self._max_body_size, self.params.max_header_size)
        rest: bytes | None = None
        while rest is None:
            rest = decoder.feed(await self.stream.read_bytes(READ_AT_ONCE, partial=True))
        unread(self.stream, rest)
        await self._deliver_body(delegate, bytes(decoder.body))


class ChunkDecoder:
    """Decodes a chunked body (RFC 9112, section 7.1) of at most `max_body` bytes.

    `max_framing` limits the bytes of its framing, and so the number of chunks. Extensions and trailers are refused, as
    by Tornado: they only make servers disagree about where a request ends.
    """

    def __init__(self, max_body: int, max_framing: int) -> None:
        self.body = bytearray()
        self._max_body = max_body
        self._max_framing = max_framing
        self._framing = 0  # bytes
        self._left = 0  # bytes of the chunk
        self._size: int | None = None  # of the chunk; None if its size line is next
        self._held = b""  # an incomplete line or chunk end

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes. Return those after the end of the body, None before the end. Raises RequestRefused."""
        data = self._held + data
        at = 0
        while True:
            if self._size is None:
                end = data.find(b"\r\n", at, at + SIZE_LINE)
                if end < 0:
                    break
                if not _SIZE.fullmatch(data, at, end):
                    raise RequestRefused(HTTPStatus.BAD_REQUEST, "the size of a chunk is malformed")
                self._size = self._left = int(data[at:end], 16)
                self._framing += end + 2 - at + 2
                if len(self.body) + self._size > self._max_body:
                    raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(self._max_body))
                if self._framing > self._max_framing:
                    raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body comes in too small chunks")
                at = end + 2
            taken = data[at : at + self._left]
            self.body += taken
            self._left -= len(taken)
            at += len(taken)
            if self._left or len(data) < at + 2:
                break
            if not data.startswith(b"\r\n", at):
                raise RequestRefused(HTTPStatus.BAD_REQUEST, "a chunk does not end where it should")
            at += 2
            if self._size == 0:
                return data[at:]
            self._size = None
        self._held = data[at:]
        if self._size is None and len(self._held) >= SIZE_LINE:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "the size of a chunk is malformed")
        return None


def in_origin_form(start_line: str, headers: HTTPHeaders) -> str:
    """Return the request line with its target in origin form. The host of a target in absolute form replaces Host's.

    RFC 9112, section 3.2.2, requires that. The checks of Host then apply to that host. A request without Host, or with
    several, stays one. Raises HTTPInputError for a request line that is malformed.
    """
    method, target, version = parse_request_start_line(start_line)
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return start_line
    host = headers.get("Host")
    if "," not in (host or "") and (host is not None or version == "HTTP/1.0"):
        headers["Host"] = found[1]
    path = found[2] if found[2].startswith("/") else f"/{found[2]}"
    return f"{method} {path} {version}"


def unread(stream: IOStream, data: bytes | bytearray) -> None:
    """Put bytes back in front of a stream's read buffer."""
    stream._read_buffer[:0] = data  # noqa: SLF001  # Tornado cannot take bytes back
    stream._read_buffer_size += len(data)  # noqa: SLF001  # the same


async def _linger(stream: IOStream) -> None:
    """End the sending side, then read until the peer ends too, within limits of time and size."""
    if not isinstance(stream, SSLIOStream) and stream.socket is not None:
        stream.socket.shutdown(socket.SHUT_WR)
    deadline = stream.io_loop.time() + LINGER
    dropped = 0
    try:
        while dropped < LINGER_BYTES:
            dropped += len(await _by(deadline, stream.read_bytes(READ_AT_ONCE, partial=True)))
    except TimeoutError:
        pass


async def _by(deadline: float, work: Awaitable[T]) -> T:
    """Await something up to a deadline (loop time). Raises TimeoutError, and leaves the work as it is."""
    result: T = await gen.with_timeout(deadline, work, quiet_exceptions=(StreamClosedError, RequestRefused))
    return result


def _answer_of(refused: RequestRefused) -> bytes:
    status = refused.status
    body = _encode({"status": status.value, "data": None, "msg": "fail", "error": str(refused)})
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _header_too_large(header: bytearray, most: int) -> RequestRefused:
    if b"\n" not in header:
        return RequestRefused(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line has more than {most} bytes")
    return RequestRefused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the header has more than {most} bytes")


def _too_large(most: int) -> str:
    return f"the body has more than {most} bytes"
