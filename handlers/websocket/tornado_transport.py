"""StreamTransport: a stream of Tornado's with the interface of asyncio's transports.

transport.py reads and writes frames on transports of the event loop. All connections begin on the stream that Tornado
accepted them on, and with the setting `frames` = tornado they stay there.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, cast

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from handlers.websocket.half_close import HalfClosed
from handlers.websocket.tls_transport import close_notify

__all__ = ["StreamTransport"]

CHUNK = 65_536  # bytes of one read

_CLOSED = socket.socket()  # what a stream has whose socket was taken
_CLOSED.close()


class StreamTransport(asyncio.Transport):
    """A transport on an IOStream or SSLIOStream. It reads nothing until `resume_reading` is called.

    Writing is in one of these states, of which each leads to those below it:

        open      bytes are written
        ending    `write_eof` was called: what is unsent is sent first
        ended     our half of the connection is closed; what arrives is dropped until the peer closes its half
        closing   `close` was called: what is unsent is sent first
        closed    `connection_lost` was called, or will be in the next turn of the loop
    """

    def __init__(self, stream: IOStream, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._most_unsent = CHUNK  # bytes above which the protocol is told to pause
        self._congested = False  # it was told so
        self._wanted = False  # the protocol wants to read
        self._reading = False  # a read is under way
        self._ending = False
        self._closing = False
        self._ended: HalfClosed | None = None  # set once our half is closed; the stream has no socket then
        if stream.closed():  # it does not say so to those who come later
            asyncio.get_running_loop().call_soon(self._lose)
        else:
            stream.set_close_callback(self._lose)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the operating system's `socket`; nothing else is known."""
        if name != "socket":
            return default
        return self._stream.socket if self._ended is None else self._ended.socket

    # Leaving the stream

    async def flushed(self) -> None:
        """Wait until everything written so far is sent, or the connection is lost."""
        with suppress(StreamClosedError):
            await self._stream.write(b"")

    def release(self) -> tuple[socket.socket, bytes]:
        """End the stream while no read is under way. Return its socket, and the bytes that it has read ahead.

        Under TLS it is an `ssl.SSLSocket`.
        """
        taken = self._take_socket()
        try:  # a closed stream gives the bytes that it has
            reading = self._stream.read_bytes(self._stream.max_buffer_size, partial=True)
            return taken, cast("asyncio.Future[bytes]", reading).result()
        except StreamClosedError:
            return taken, b""

    def _take_socket(self) -> socket.socket:
        """Take the socket out of the stream, which ends."""
        stream = self._stream
        stream.set_close_callback(None)
        stream.io_loop.remove_handler(stream.fileno())
        taken, stream.socket = stream.socket, _CLOSED
        stream.close()
        return taken

    # Reading

    def pause_reading(self) -> None:
        """Read no more; of a read that is under way the bytes are still handed on, at most CHUNK."""
        self._wanted = False

    def resume_reading(self) -> None:
        """Read until told to pause."""
        self._wanted = True
        self._read()

    def is_reading(self) -> bool:
        """Whether the protocol is given what arrives."""
        return self._wanted and not self._closing

    def _read(self) -> None:
        if self._reading or not self._wanted or self._closing or self._ended is not None:
            return
        try:
            future = self._stream.read_bytes(CHUNK, partial=True)
        except StreamClosedError:  # the stream says so by itself
            return
        self._reading = True
        cast("asyncio.Future[bytes]", future).add_done_callback(self._on_read)

    def _on_read(self, future: asyncio.Future[bytes]) -> None:
        self._reading = False
        if future.cancelled() or future.exception() is not None or self._stream.closed():
            return
        if not self._closing:
            self._protocol.data_received(future.result())
            self._read()

    # Writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Tell the protocol to pause above `high` unsent bytes, and to resume when all are sent, whatever `low` is."""
        self._most_unsent = CHUNK if high is None else high

    def get_write_buffer_size(self) -> int:
        """Bytes that the operating system has not taken yet."""
        buffer = self._stream._write_buffer  # noqa: SLF001  # only the stream knows its size
        return 0 if buffer is None else len(buffer)  # None once it is closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes; nothing once the connection ends."""
        if self._closing or self._ending:
            return
        try:
            future = self._stream.write(bytes(data))
        except StreamClosedError:
            return
        if self._stream.writing():
            future.add_done_callback(self._on_written)
            if not self._congested and self.get_write_buffer_size() > self._most_unsent:
                self._congested = True
                self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Whether one half of the connection can be closed."""
        return True

    def _on_written(self, future: asyncio.Future[None]) -> None:
        if self._stream.closed() or self._stream.writing():
            return
        if self._congested:
            self._congested = False
            self._protocol.resume_writing()
        if self._closing:
            self._close_stream()
        elif self._ending and self._ended is None:
            self._end()

    # The end

    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._closing or (self._ended is None and self._stream.closed())

    def write_eof(self) -> None:
        """Close our half of the connection once all is sent. What the peer still sends is dropped."""
        self._ending = True
        if not self._closing and self._ended is None and not self._stream.closed() and not self._stream.writing():
            self._end()

    def close(self) -> None:
        """Close the connection once all is sent."""
        if self._closing:
            return
        self._closing = True
        if self._ended is not None:
            self._ended.close()
        elif not self._stream.writing():
            self._close_stream()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closing = True
        if self._ended is not None:
            self._ended.close()
        else:
            self._stream.close()

    def _close_stream(self) -> None:
        self._notify()
        self._stream.close()

    def _notify(self) -> None:
        if isinstance(self._stream, SSLIOStream):
            close_notify(self._stream.socket)

    def _end(self) -> None:
        self._notify()
        self._ended = HalfClosed(self._take_socket(), self._lose)

    def _lose(self) -> None:
        self._closing = True
        protocol, self._protocol = self._protocol, asyncio.Protocol()  # they need not know each other any more
        protocol.connection_lost(None)
