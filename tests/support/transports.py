"""A transport and a protocol that record their calls, to test FrameProtocol without a server."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from handlers.websocket.rfc6455 import may_close_with
from handlers.websocket.transport import FrameProtocol

LIMIT = 70_000  # bytes of the longest message; above 65,536, where lengths take eight bytes
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

WRITTEN = {0x80 | TEXT: "text", 0x80 | CLOSE: "close", 0x80 | PING: "ping", 0x80 | PONG: "pong"}

Event = Any  # a received message (text, bytes), or a tuple: what was written, or how it ended


def frame(
    opcode: int,
    payload: bytes | str = b"",
    *,
    fin: bool = True,
    mask: bytes | None = b"\x12\x00\xff\x7f",
    size: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """Return a client's frame; `size` is the number of bytes of its length, `claimed` a wrong length."""
    data = payload.encode() if isinstance(payload, str) else payload
    length = len(data) if claimed is None else claimed
    size = size or (1 if length < 126 else 2 if length < 65_536 else 8)
    coded = bytes((length,)) if size == 1 else bytes((126 if size == 2 else 127,)) + length.to_bytes(size, "big")
    head = bytes((opcode | (0x80 if fin else 0), coded[0] | (0 if mask is None else 0x80))) + coded[1:]
    if mask is None:
        return head + data
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data))


def close_frame(code: int | None = None, reason: bytes | str = b"") -> bytes:
    """Return a client's close frame."""
    said = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, (b"" if code is None else code.to_bytes(2, "big")) + said)


def written(data: bytes) -> list[Event]:
    """Return the frames that the server wrote, as pairs of kind and payload; a close frame has its code as payload."""
    frames: list[Event] = []
    while data:
        size, at = data[1], 2
        if size > 125:
            at += 2 if size == 126 else 8
            size = int.from_bytes(data[2:at], "big")
        assert len(data) >= at + size
        kind, said = WRITTEN[data[0]], data[at : at + size]
        frames.append((kind, (int.from_bytes(said[:2], "big") if said else None) if kind == "close" else said))
        data = data[at + size :]
    return frames


class Transport(asyncio.Transport):
    """Records in `events` what is written; as strict as uvloop's about the order of calls."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events
        self._closing = False
        self.writes = 0
        self.reading, self.ended, self.aborted, self.gone = True, False, False, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        assert not self.gone
        assert data
        self.writes += 1
        self._events.extend(written(bytes(data)))

    def write_eof(self) -> None:
        self.ended = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        assert not self.gone  # asyncio's transport would fail
        self._closing = self.aborted = True


class ByteTransport(asyncio.Transport):
    """Records the bytes that a client writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


class Notes(asyncio.Protocol):
    """Records in `said` what a transport reports and reads."""

    def __init__(self) -> None:
        self.said: list[str | bytes] = []

    @property
    def data(self) -> bytes:
        """The bytes that were read."""
        return b"".join(each for each in self.said if isinstance(each, bytes))

    @property
    def events(self) -> list[str]:
        """All that was reported besides."""
        return [each for each in self.said if isinstance(each, str)]

    def data_received(self, data: bytes) -> None:
        self.said.append(data)

    def eof_received(self) -> None:
        self.said.append("eof")

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append("lost")


def reset(peer: socket.socket) -> None:
    """Close a socket with a reset; socket(7)."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class RecordingProtocol(FrameProtocol):
    """Records in `events` what it receives; `answer` returns the result of handling a message."""

    def __init__(self) -> None:
        super().__init__(LIMIT)
        self.events: list[Event] = []
        self.ended = False
        self.answer: Callable[[str | bytes], asyncio.Future[None] | None] = lambda message: None

    def on_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        self.events.append(message)
        return self.answer(message)

    def on_fragment(self, size: int) -> None:
        assert size >= 0

    def on_failure(self, code: int) -> None:
        assert may_close_with(code)

    def on_ping(self, data: bytes) -> None:
        assert isinstance(data, bytes)

    def on_pong(self, data: bytes) -> None:
        self.events.append(("heard", data))

    def on_error(self, error: BaseException) -> None:
        self.events.append(("failed", type(error)))

    def on_close(self) -> None:
        self.ended = True
        self.events.append(("end", self.close_code, self.close_reason))


@contextmanager
def timers_of(protocol: FrameProtocol) -> Iterator[list[asyncio.TimerHandle]]:
    """Record the timers that a connection sets on the running loop, which must be asyncio's own."""
    loop = asyncio.get_running_loop()
    handles: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def recording(delay: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
        handle = call_later(delay, callback, *args, **options)
        if getattr(callback, "__self__", None) is protocol:
            handles.append(handle)
        return handle

    with patch.object(loop, "call_later", recording):
        yield handles


def attached() -> tuple[RecordingProtocol, Transport, list[Event]]:
    """Return a protocol whose connection has just been made."""
    protocol = RecordingProtocol()
    transport = Transport(protocol.events)
    protocol.connection_made(transport)
    return protocol, transport, protocol.events


async def turns(count: int = 4) -> None:
    """Let the loop turn a few times, so that all callbacks that are ready have run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def feed(protocol: FrameProtocol, transport: Transport, chunks: Iterable[bytes]) -> None:
    """Let bytes arrive as a transport does: none while reading is paused, none while it closes."""
    await turns()  # bytes that arrive before this are handled later
    for chunk in chunks:
        while not transport.reading and not transport.is_closing():
            await asyncio.sleep(0)
        if transport.is_closing():
            return
        protocol.data_received(chunk)
    while not transport.reading and not transport.is_closing():
        await asyncio.sleep(0)
    await turns()


def parted(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    """Return what the handler received, and what was written, which leaves at the end of a turn."""
    both: tuple[list[Event], list[Event]] = [], []
    for event in events:
        both[isinstance(event, tuple) and event[0] in WRITTEN.values()].append(event)
    return both


def lose(protocol: FrameProtocol, transport: Transport) -> None:
    """End the connection, from either side."""
    transport.close()
    transport.gone = True
    protocol.connection_lost(None)
