"""Parse the frames that a WebSocket client sends (RFC 6455), without I/O: bytes in, messages and control frames out.

Its owner feeds bytes as they arrive and asks for one event at a time. So the owner can stop between any two events and
leave the rest unparsed. The parser is stricter than Tornado's: what RFC 6455 forbids raises a FrameError with the close
code that the RFC asks for.
"""

from __future__ import annotations

from typing import Any

from tornado.util import _websocket_mask  # Tornado's C function where it was built, else the same in Python

from handlers.websocket.rfc6455 import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    INVALID_PAYLOAD,
    MASKED,
    MAX_CONTROL,
    NO_STATUS,
    OPCODE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RESERVED,
    TEXT,
    TOO_BIG,
    WHOLE_TEXT,
    may_close_with,
)

__all__ = ["Event", "FrameError", "FrameParser"]

HEADER = 2  # bytes: the least that a frame takes

Event = tuple[int, Any]  # see FrameParser.next_event


class FrameError(Exception):
    """The client broke the protocol: the connection ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FrameParser:
    """Parse what one client sends; `max_size` bounds a message's payload in bytes, whether it comes whole or in parts.

    After a FrameError the parser must not be used any more.
    """

    __slots__ = ("_at", "_data", "_max_size", "_needed", "_opcode", "_parts")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._data: bytes | bytearray = b""  # what was fed and, from `_at` on, is not parsed
        self._at = 0
        self._needed = HEADER  # bytes without which there is no next event
        self._parts: bytearray | None = None  # of a message whose last part has not come
        self._opcode = CONTINUATION  # of that message

    def feed(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        if not self._data:
            self._data = data
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(self._data[self._at :])
        elif self._at:
            del self._data[: self._at]
        self._at = 0
        self._data += data

    def clear(self) -> None:
        """Forget what was fed."""
        self._data, self._at = b"", 0

    @property
    def buffered(self) -> int:
        """Bytes that were fed and are not parsed."""
        return len(self._data) - self._at

    def next_event(self) -> Event | None:
        """Parse the next message, part or control frame. Raises FrameError.

        Returns None when more bytes have to arrive first, else an opcode and its content:

            TEXT                  str
            BINARY, PING, PONG    bytes
            CLOSE                 the code (NO_STATUS if the frame has none) and the reason
            CONTINUATION          the size in bytes of a part of a message that is not the last part
        """
        data, at = self._data, self._at
        available = len(data) - at
        if available < self._needed:
            return None
        first, second = data[at], data[at + 1]
        size = second & 0x7F
        begin = at + 6
        if size > MAX_CONTROL:
            width = 2 if size == 126 else 8
            if available < HEADER + width:
                self._needed = HEADER + width
                return None
            begin += width
            size = int.from_bytes(data[at + HEADER : at + HEADER + width], "big")
            if size <= (MAX_CONTROL if width == 2 else 0xFFFF):
                raise FrameError(PROTOCOL_ERROR, "a length in more bytes than it needs")
        if not second & MASKED:
            raise FrameError(PROTOCOL_ERROR, "a frame that is not masked")
        if size > self._max_size:
            raise FrameError(TOO_BIG, "message too big")
        stop = begin + size
        if stop > len(data):
            self._needed = stop - at
            return None
        self._needed = HEADER
        if isinstance(data, bytes):
            payload = _websocket_mask(data[begin - 4 : begin], data[begin:stop])
        else:
            payload = _websocket_mask(bytes(data[begin - 4 : begin]), bytes(data[begin:stop]))
        if stop == len(data):
            self._data, self._at = b"", 0  # an idle connection keeps nothing
        else:
            self._at = stop
        if first == WHOLE_TEXT and self._parts is None:
            return TEXT, _text(payload)
        return self._other(first, payload)

    def _other(self, first: int, payload: bytes) -> Event:
        """Return the event of a frame that is no whole text message. RFC 6455, sections 5.4 and 5.5."""
        opcode, final = first & OPCODE, first & FIN
        if first & RESERVED or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR, "an extension that was not agreed on")
        if opcode >= CLOSE:
            if not final or len(payload) > MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "a control frame that is long or in parts")
            return opcode, _goodbye(payload) if opcode == CLOSE else payload
        parts = self._parts
        if (opcode == CONTINUATION) != (parts is not None):
            raise FrameError(PROTOCOL_ERROR, "parts of messages in a wrong order")
        if parts is None:
            if final:
                return BINARY, payload
            parts, self._opcode = bytearray(), opcode
        if len(parts) + len(payload) > self._max_size:
            raise FrameError(TOO_BIG, "message too big")
        parts += payload
        if not final:
            self._parts = parts
            return CONTINUATION, len(payload)
        self._parts = None
        return (TEXT, _text(parts)) if self._opcode == TEXT else (BINARY, bytes(parts))


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_PAYLOAD, "not UTF-8") from None


def _goodbye(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame. Section 5.5.1."""
    if not payload:
        return NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_close_with(code):
        raise FrameError(PROTOCOL_ERROR, "a close code that must not be sent")
    return code, _text(payload[2:])
