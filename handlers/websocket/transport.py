"""BulkProtocol: the frames of a WebSocket (RFC 6455), on a transport.

What it changes of `tornado.websocket.WebSocketProtocol13` (Tornado 6.6), whose handshake it keeps: frames are parsed in
bulk from what has arrived, in one callback without any coroutine; nothing waits in a coroutine for a connection that is
idle. It is also stricter than Tornado: what RFC 6455 forbids ends the connection with the close code that it asks for.

The transport is one of the event loop's: the socket is taken out of Tornado's stream once the connection is upgraded. A
TLS connection stays with its stream, and so do all with the setting `frames` = tornado; for those tornado_transport.py
has a transport. Frames mean the same on each of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Protocol, cast

import structlog
from tornado.escape import json_encode, utf8
from tornado.websocket import (
    WebSocketClosedError,
    WebSocketHandler,
    WebSocketProtocol13,
    _WebSocketDelegate,
    _WebSocketParams,
)

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
from handlers.websocket.tornado_transport import StreamTransport

__all__ = ["BulkProtocol"]

FRAMES = 64  # frames of one socket that are worked off …
PERIOD = 0.005  # … in so many seconds; then others have their turn, and it is not read
CONGESTED = 16_384  # unsent bytes above which pongs, and long answers, wait until all is sent
CLOSE_WITHIN = 5.0  # seconds for the peer to agree to a close, as in Tornado
# What of Tornado's attributes is needed beside those of BulkProtocol once the connection is upgraded.
# fmt: off
KEPT = frozenset((
    "handler", "params", "client_terminated", "server_terminated", "close_code", "close_reason",
    "_selected_subprotocol", "_joined", "_parser",
))
# fmt: on

_log = structlog.get_logger(__name__)


class FrameHandler(_WebSocketDelegate, Protocol):
    """A WebSocketHandler, as its protocol sees it.

    `on_message`, and here `on_ping`, `on_pong` and `on_fragment` too, may return an awaitable: nothing more is read
    until it is done.
    """

    def on_fragment(self, size: int) -> asyncio.Future[None] | None:
        """A part of a message came that is not the last one, with so many bytes of payload."""

    def on_failure(self, code: int) -> None:
        """The peer broke the protocol: the connection ends with this close code."""


@cache
def _parameters(max_message_size: int) -> _WebSocketParams:
    """Tornado's parameters, the same for all connections."""
    return _WebSocketParams(
        ping_interval=None, ping_timeout=None, max_message_size=max_message_size, compression_options=None
    )


class BulkProtocol(WebSocketProtocol13, asyncio.Protocol):
    """RFC 6455 on a transport: of the event loop if `in_loop`, unless the connection is under TLS, else of the stream.

    Before the connection is upgraded there is no transport. Then it is the stream's, which the loop's replaces; while
    that is made, there is none, and what is written waits in `_joined`.
    """

    handler: FrameHandler
    taken_over = False  # the connection is upgraded, and lives on without the coroutine that opened it
    _transport: asyncio.Transport | None = None
    _in_loop = True
    _period = 0.0  # the end of the one in which at most `_left` more frames are worked off (loop time)
    _left = 0
    _paused = False  # the handler does not want the next message yet
    _discarding = False  # the peer broke the protocol, or either end is gone: what it sends is dropped
    _lost = False  # the transport has ended: asyncio's fails when it is aborted once more
    _sent: asyncio.Future[None] | None = None  # there while more than CONGESTED bytes are unsent
    _pong: bytes | None = None  # to be sent when no longer congested
    _timer: asyncio.TimerHandle | None = None
    _joined_size = 0  # bytes in `_joined`
    _written = 0  # bytes that the transport was given

    def __init__(self, handler: WebSocketHandler, max_message_size: int, *, in_loop: bool = True) -> None:
        # Tornado's own pings are off: handler.py pings. So is compression, which takes 160 KiB a connection.
        super().__init__(handler, mask_outgoing=False, params=_parameters(max_message_size))
        self._joined: list[bytes] = []  # what was written in this turn of the loop, or while there is no transport
        self._in_loop = in_loop
        self._parser = FrameParser(max_message_size)

    # From Tornado's stream to the transport

    def start_pinging(self) -> None:
        """Take over: Tornado's word that the handshake is answered, before it calls the handler's `open`."""
        self.taken_over = self._paused = True
        self._transport = StreamTransport(self.stream, self)
        self.__dict__ = {name: value for name, value in vars(self).items() if name in KEPT or name in _OWN}

    async def _receive_frame_loop(self) -> None:
        """Begin to read; returns when the transport is there, not when the connection ends."""
        transport = cast("StreamTransport", self._transport)
        if not self._in_loop or transport.encrypted:
            if not self._lost:
                self.connection_made(transport)
            return
        self._flush()
        await transport.flushed()  # the handshake's answer, and the greeting
        if transport.is_closing():
            return
        self._transport = None
        taken, behind = transport.release()
        self._parser.feed(behind)  # the client need not wait for the answer to send
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self, taken)
        except OSError as error:
            _log.warning("connection_not_taken_over", reason=str(error))
        finally:
            if self._transport is None:  # nothing else would say that it has ended
                self.connection_lost(None)

    # The transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is in the loop's hands."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none of asyncio's classes
        self._transport.set_write_buffer_limits(CONGESTED, 0)
        self._flush()
        if self._discarding or self._lost:  # it was aborted before it was there
            self._transport.abort()
        asyncio.get_running_loop().call_soon(self._read_on)

    def eof_received(self) -> None:
        """The peer is gone, or sends nothing more: what is unsent is sent if that does not take long."""
        self.client_terminated = self.server_terminated = True
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.client_terminated = self.server_terminated = self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        self._parser.clear()
        self.handler.on_ws_connection_close(self.close_code, self.close_reason)

    def pause_writing(self) -> None:
        """Much is unsent."""
        if self._sent is None:
            self._sent = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """All is sent."""
        if self._sent is not None:
            self._sent.set_result(None)
            self._sent = None
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send_pong(pong)

    # Frames in

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._discarding:
            return
        self._parser.feed(data)
        if not self._paused:
            self._work_off()

    def _work_off(self) -> None:
        """Hand on what the parser finds, until it needs more bytes, the handler wants nothing more, or it was enough.

        The parser keeps the rest.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._period:
            self._period, self._left = now + PERIOD, FRAMES
        next_event = self._parser.next_event
        while self._left:
            try:
                event = next_event()
            except FrameError as error:
                self._fail(error.code, error.reason)
                return
            if event is None:
                return
            self._left -= 1
            opcode, content = event
            if opcode in (TEXT, BINARY):
                self._hand_on(self.handler.on_message, content)
            elif opcode == CONTINUATION:
                self._hand_on(self.handler.on_fragment, content)
            elif opcode == PING:
                self._send_pong(content)
                self._hand_on(self.handler.on_ping, content)
            elif opcode == PONG:
                self._hand_on(self.handler.on_pong, content)
            else:
                self._take_close(*content)
            if self._paused or self._discarding:
                return
        self._pause()
        loop.call_at(self._period, self._read_on)

    def _hand_on(self, callback: Callable[[Any], Any], what: Any) -> None:
        """Call the handler, and read on when it wants that."""
        future = self._run_callback(callback, what)
        if future is not None:
            self._pause()
            future.add_done_callback(self._read_on)

    def _take_close(self, code: int, reason: str) -> None:
        """Take the peer's close frame: it is answered, or is the answer to ours."""
        if code != NO_STATUS:
            self.close_code, self.close_reason = code, reason or None
        self.client_terminated = True
        self._discard()
        self.close(self.close_code)

    def _discard(self) -> None:
        """Drop what has arrived, and what still will."""
        self._discarding = True
        self._parser.clear()

    def _fail(self, code: int, reason: str) -> None:
        """Fails the connection: says why, and that nothing follows; heeds no answer (RFC 6455, section 7.1.7).

        It is closed when the peer has closed it, too: a socket that is closed with something unread is reset, which
        can take away from the peer what we said.
        """
        self._discard()
        if not self.server_terminated:
            self._run_callback(self.handler.on_failure, code)
        self.close(code, reason)
        if self._transport is not None and not self._transport.is_closing():
            with suppress(OSError):  # asyncio's; the peer has reset the connection
                self._flush()
                self._transport.write_eof()

    def _pause(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _read_on(self, _: object = None) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._paused = False
        self._work_off()
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

    def write_text(self, payload: bytes) -> bool:
        """Writes one text message; False says that it is too late."""
        if self.is_closing():
            return False
        self._write(head(TEXT, len(payload)), payload)
        return True

    def write_message(self, message: str | bytes | dict[str, Any], binary: bool = False) -> asyncio.Future[None]:
        """Write a message as Tornado's handlers do; the future is done when the next one may follow.

        Raises WebSocketClosedError when it is too late, and so does the future.
        """
        if self.is_closing():
            raise WebSocketClosedError
        payload = utf8(json_encode(message) if isinstance(message, dict) else message)
        self._write(head(BINARY if binary else TEXT, len(payload)), payload)
        written = asyncio.ensure_future(self._write_on())
        written.add_done_callback(lambda done: done.cancelled() or done.exception())  # it need not be awaited
        return written

    async def _write_on(self) -> None:
        await self.sent()
        if self._lost:
            raise WebSocketClosedError

    def _write(self, head: bytes, payload: bytes) -> None:
        """Writes a frame, together with what else is written in this turn of the loop."""
        joined = self._joined
        if not joined:
            asyncio.get_running_loop().call_soon(self._flush)
        joined.append(head)
        joined.append(payload)
        self._joined_size += len(head) + len(payload)
        if self._joined_size > CONGESTED:
            self._flush()

    def _flush(self) -> None:
        """Hands what was written to the transport: one system call, if the operating system takes it all."""
        if self._joined and self._transport is not None:
            data, self._joined, self._joined_size = b"".join(self._joined), [], 0
            if not self._transport.is_closing():
                self._written += len(data)
                self._transport.write(data)

    async def sent(self) -> None:
        """Waits until everything written so far is sent, if that is much, or the connection gone."""
        self._flush()
        if self._sent is not None:
            await asyncio.shield(self._sent)

    def write_ping(self, data: bytes) -> None:
        """Write a ping. Raises ValueError for more than 125 bytes."""
        if len(data) > MAX_CONTROL:
            raise ValueError("a ping holds at most 125 bytes")
        if not self.is_closing():
            self._write(head(PING, len(data)), data)

    def _send_pong(self, data: bytes) -> None:
        """Answers a ping; of those that come faster than they are answered the last one (section 5.5.3)."""
        if self._sent is not None:
            self._pong = data
        elif not self.server_terminated:
            self._write(head(PONG, len(data)), data)

    # The end

    def is_closing(self) -> bool:
        """Whether either side has said goodbye, or the connection is gone."""
        lost = self._transport is not None and self._transport.is_closing()
        return self.client_terminated or self.server_terminated or lost

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Say goodbye, and close when the peer has, too, or takes too long.

        Raises ValueError for a reason of more than 123 bytes.
        """
        if not self.server_terminated:
            if code is None and reason is not None:
                code = NORMAL
            said = b"" if code is None else code.to_bytes(2, "big") + (reason or "").encode()
            if len(said) > MAX_CONTROL:
                raise ValueError("the reason of a close holds at most 123 bytes")
            self.server_terminated = True
            self._write(head(CLOSE, len(said)), said)
        if self.client_terminated and self._transport is not None:
            self._flush()
            self._transport.close()
        if self._timer is None and not self._lost:
            self._timer = asyncio.get_running_loop().call_later(CLOSE_WITHIN, self._abort)

    def _abort(self) -> None:
        self.client_terminated = self.server_terminated = self._discarding = True
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def set_nodelay(self, x: bool) -> None:
        """Say whether small frames leave at once. Does nothing while the connection changes its transport."""
        end = None if self._transport is None else self._transport.get_extra_info("socket")
        if end is not None and end.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # the peer is gone
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, x)


_OWN = frozenset(vars(BulkProtocol))
