"""FrameProtocol: the frames of one WebSocket (RFC 6455), on a transport with the interface of asyncio's.

Frames are parsed in bulk from the bytes that have arrived, in one callback without a coroutine. So nothing waits in a
coroutine for a connection that is idle.

The handshake is answered on Tornado's stream. Then the socket is taken out of the stream and given to a transport of
the event loop, or under TLS to the one in tls_transport.py. With the setting `frames` = tornado connections stay with
their stream, whose transport is in tornado_transport.py. Frames mean the same on all of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from tornado.iostream import IOStream

from handlers.websocket.frames import FrameError, FrameParser
from handlers.websocket.rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_CONTROL,
    NO_STATUS,
    NORMAL,
    PING,
    PONG,
    TEXT,
    head,
)
from handlers.websocket.tls_transport import TLSTransport
from handlers.websocket.tornado_transport import StreamTransport

__all__ = ["FrameProtocol"]

FRAMES = 64  # frames of one connection that are handled …
PERIOD = 0.005  # … in so many seconds; then others have their turn, and it is not read
CONGESTED = 16_384  # unsent bytes above which pongs, and long answers, wait until all is sent
CLOSE_WITHIN = 5.0  # seconds for the peer to answer our close frame, as in Tornado

_log = structlog.get_logger(__name__)


class FrameProtocol(asyncio.Protocol):
    """The frames of one connection, from the answered handshake on. A subclass handles the messages.

    It overrides `on_message`, and the other `on_` methods that it needs. `on_message`, `on_fragment`, `on_ping` and
    `on_pong` may return a future: nothing more is read until it is done. If it fails, the connection is aborted.

    While the connection moves to the loop's transport there is no transport, and frames that are written wait in
    `_joined`.
    """

    __slots__ = (
        "_close_received",
        "_close_sent",
        "_discarding",
        "_frames_left",
        "_joined",
        "_joined_size",
        "_loop",
        "_lost",
        "_parser",
        "_paused",
        "_period_end",
        "_pong",
        "_timer",
        "_transport",
        "_writable",
        "_written",
        "close_code",
        "close_reason",
    )

    def __init__(self, max_message_size: int) -> None:
        self._loop = asyncio.get_running_loop()  # kept: on Python 3.11 each get_running_loop() calls getpid()
        self._parser = FrameParser(max_message_size)
        self._transport: asyncio.Transport | None = None
        self._paused = True  # no frame is handled now
        self._period_end = 0.0  # of the period in which at most `_frames_left` more frames are handled (loop time)
        self._frames_left = 0
        self._joined: list[bytes] = []  # written in this turn of the loop, or while there is no transport
        self._joined_size = 0  # bytes in `_joined`
        self._written = 0  # bytes that the transport was given
        self._writable: asyncio.Future[None] | None = None  # set while more than CONGESTED bytes are unsent
        self._pong: bytes | None = None  # to be sent when no longer congested
        self._close_received = False  # the peer's close frame, or its end
        self._close_sent = False
        self._discarding = False  # the peer broke the protocol or has closed: its bytes are dropped
        self._lost = False  # the transport has ended: asyncio's fails when it is aborted once more
        self._timer: asyncio.TimerHandle | None = None  # aborts a connection that does not close in time
        self.close_code: int | None = None  # the peer's
        self.close_reason: str | None = None

    # For subclasses

    def on_open(self) -> None:
        """Begin: frames can be written, and none was read yet."""

    def on_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        """Handle a text or binary message."""
        raise NotImplementedError

    def on_fragment(self, size: int) -> asyncio.Future[None] | None:
        """Handle a part of a message, not the last one, with so many bytes of payload."""

    def on_ping(self, data: bytes) -> asyncio.Future[None] | None:
        """Handle a ping, which is answered by now."""

    def on_pong(self, data: bytes) -> asyncio.Future[None] | None:
        """Handle a pong."""

    def on_failure(self, code: int) -> None:
        """Note that the peer broke the protocol, and is told this close code."""

    def on_error(self, error: BaseException) -> None:
        """Note an error of one of these methods, which ends the connection."""
        _log.error("request_failed", exc_info=error)

    def on_close(self) -> None:
        """End: the connection is lost. Called once."""

    # From Tornado's stream to the transport

    async def take_over(self, stream: IOStream, *, in_loop: bool) -> None:
        """Take a stream whose handshake is answered. Return when frames are read, or the connection is lost.

        `in_loop` moves the connection from the stream to a transport on the event loop.
        """
        transport = StreamTransport(stream, self)
        self._transport = transport
        try:
            self.on_open()
        except Exception as error:  # noqa: BLE001  # a bug ends this connection, and no other
            self._end_with(error)
            return
        if in_loop:
            try:
                await self._move_to_loop(transport)
            except asyncio.CancelledError:
                self.abort()
                raise
        elif not self._lost:
            self.connection_made(transport)

    async def _move_to_loop(self, transport: StreamTransport) -> None:
        self._flush()
        await transport.flushed()  # the handshake's answer, and what `on_open` wrote
        if transport.is_closing():
            return
        self._transport = None
        taken, unread = transport.release()
        self._parser.feed(unread)  # a client may send frames before it has the answer
        if isinstance(taken, ssl.SSLSocket):
            self.connection_made(TLSTransport(taken, self))
            return
        try:
            await self._loop.connect_accepted_socket(lambda: self, taken)
        except OSError as error:
            _log.warning("connection_not_taken_over", reason=str(error))
        finally:
            if self._transport is None:  # no transport will report the end
                self.connection_lost(None)

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        self._transport.set_write_buffer_limits(CONGESTED, 0)
        self._flush()
        if self._discarding or self._lost:  # it was aborted while there was no transport
            self._transport.abort()
        self._loop.call_soon(self._read_on)

    def eof_received(self) -> None:
        """Close: the peer sends nothing more. Unsent bytes are sent if that does not take long."""
        self._close_received = self._close_sent = True
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection, from either side."""
        if self._lost:  # a transport that came too late was aborted
            return
        self._close_received = self._close_sent = self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        self._parser.clear()
        self.on_close()

    def pause_writing(self) -> None:
        """Note that many bytes are unsent."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Note that all bytes are sent."""
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send_pong(pong)

    # Frames in

    def data_received(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        if self._discarding:
            return
        self._parser.feed(data)
        if not self._paused:
            self._handle_frames()

    def _handle_frames(self) -> None:
        """Handle the parsed frames, until bytes are missing, a future has to be awaited, or it was enough for now.

        The parser keeps the rest.
        """
        now = self._loop.time()
        if now >= self._period_end:
            self._period_end, self._frames_left = now + PERIOD, FRAMES
        next_event = self._parser.next_event
        while self._frames_left:
            try:
                event = next_event()
            except FrameError as error:
                self._fail(error.code, error.reason)
                return
            if event is None:
                return
            self._frames_left -= 1
            opcode, content = event
            if opcode in (TEXT, BINARY):
                self._call(self.on_message, content)
            elif opcode == CONTINUATION:
                self._call(self.on_fragment, content)
            elif opcode == PING:
                self._send_pong(content)
                self._call(self.on_ping, content)
            elif opcode == PONG:
                self._call(self.on_pong, content)
            else:
                self._take_close(*content)
            if self._paused or self._discarding:
                return
        self._pause()
        self._loop.call_at(self._period_end, self._read_on)

    def _call(self, method: Callable[[Any], asyncio.Future[None] | None], content: Any) -> None:
        """Call a method of the subclass, and read on when its future is done."""
        try:
            future = method(content)
        except Exception as error:  # noqa: BLE001  # a bug ends this connection, and no other
            self._end_with(error)
            return
        if future is not None:
            self._pause()
            future.add_done_callback(self._on_handled)

    def _on_handled(self, future: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self._end_with(error)
        self._read_on()

    def _end_with(self, error: BaseException) -> None:
        self.on_error(error)
        self.abort()

    def _take_close(self, code: int, reason: str) -> None:
        """Take the peer's close frame: it is answered, or is the answer to ours."""
        if code != NO_STATUS:
            self.close_code, self.close_reason = code, reason or None
        self._close_received = True
        self._discard()
        self.close(self.close_code)

    def _discard(self) -> None:
        """Drop the bytes that have arrived, and those that follow."""
        self._discarding = True
        self._parser.clear()

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection: send the reason and the end, and ignore any answer (RFC 6455, section 7.1.7).

        It is closed when the peer has closed it too: a socket that is closed with unread bytes is reset, which can take
        the close frame away from the peer.
        """
        self._discard()
        if not self._close_sent:
            try:
                self.on_failure(code)
            except Exception as error:  # noqa: BLE001  # a bug ends this connection, and no other
                self._end_with(error)
        self.close(code, reason)
        if self._transport is not None and not self._transport.is_closing():
            with suppress(OSError):  # asyncio's; the peer has reset the connection
                self._flush()
                self._transport.write_eof()

    def _pause(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _read_on(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._paused = False
        self._handle_frames()
        if not self._paused:
            transport.resume_reading()

    # Frames out

    @property
    def unsent(self) -> int:
        """Bytes that were written and not yet taken by the operating system."""
        return self._joined_size + self.stuck

    @property
    def stuck(self) -> int:
        """Bytes that the transport was given and the operating system has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def moved(self) -> int:
        """Bytes that the operating system has taken in all."""
        return self._written - self.stuck

    def write(self, payload: bytes, opcode: int = TEXT) -> bool:
        """Write one message. Return False if it is too late."""
        if self.is_closing():
            return False
        self._write(head(opcode, len(payload)), payload)
        return True

    def ping(self, data: bytes) -> bool:
        """Write a ping of at most 125 bytes. Return False if it is too late. Raises ValueError."""
        if len(data) > MAX_CONTROL:
            raise ValueError("a ping holds at most 125 bytes")
        return self.write(data, PING)

    def _write(self, head: bytes, payload: bytes) -> None:
        """Write a frame, together with the others of this turn of the loop."""
        joined = self._joined
        if not joined:
            self._loop.call_soon(self._flush)
        joined.append(head)
        joined.append(payload)
        self._joined_size += len(head) + len(payload)
        if self._joined_size > CONGESTED:
            self._flush()

    def _flush(self) -> None:
        """Give the transport the frames that were written: one system call, if the operating system takes all."""
        if self._joined and self._transport is not None:
            data, self._joined, self._joined_size = b"".join(self._joined), [], 0
            if not self._transport.is_closing():
                self._written += len(data)
                self._transport.write(data)

    async def wait_sent(self) -> None:
        """Wait until all frames are sent, if those are many bytes, or until the connection is lost."""
        self._flush()
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def _send_pong(self, data: bytes) -> None:
        """Answer a ping; of those that come faster than they are answered, the last one (section 5.5.3)."""
        if self._writable is not None:
            self._pong = data
        elif not self._close_sent:
            self._write(head(PONG, len(data)), data)

    # The end

    def is_closing(self) -> bool:
        """Whether either side has sent a close frame, or the connection is lost."""
        lost = self._transport is not None and self._transport.is_closing()
        return self._close_received or self._close_sent or lost

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame once, and close when the peer has sent one too, or takes too long.

        Raises ValueError for a reason of more than 123 bytes.
        """
        if not self._close_sent:
            if code is None and reason is not None:
                code = NORMAL
            payload = b"" if code is None else code.to_bytes(2, "big") + (reason or "").encode()
            if len(payload) > MAX_CONTROL:
                raise ValueError("the reason of a close holds at most 123 bytes")
            self._close_sent = True
            self._write(head(CLOSE, len(payload)), payload)
        if self._close_received and self._transport is not None:
            self._flush()
            self._transport.close()
        if self._timer is None and not self._lost:
            self._timer = self._loop.call_later(CLOSE_WITHIN, self.abort)

    def abort(self) -> None:
        """End the connection at once, without a close frame."""
        self._close_received = self._close_sent = self._discarding = True
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def get_extra_info(self, name: str) -> Any:
        """Return what the transport knows, as asyncio's do. None while the connection changes its transport."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def set_nodelay(self, on: bool) -> None:
        """Set whether small frames are sent at once. Does nothing while the connection changes its transport."""
        end = self.get_extra_info("socket")
        if end is not None and end.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # the peer is gone
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, on)
