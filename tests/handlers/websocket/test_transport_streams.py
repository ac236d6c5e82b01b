"""Bytes in, messages out: recorded streams in all chunkings, and Tornado's own parser beside ours."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketProtocol13, _WebSocketParams

from handlers.websocket.transport import FRAMES
from tests.support.transports import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LIMIT,
    PING,
    PONG,
    TEXT,
    Event,
    RecordingProtocol,
    attached,
    close_frame,
    feed,
    frame,
    lose,
    parted,
    timers_of,
    turns,
)

HI = frame(TEXT, "hi")
CJK = "字".encode()
MASKS = (bytes(4), b"\xff\xff\xff\xff", b"\x00\x01\x80\xfe", random.Random(1).randbytes(4))


def text(payload: bytes | str, **how: Any) -> bytes:
    """Return a text frame."""
    return frame(TEXT, payload, **how)


def more(payload: bytes | str = b"", *, fin: bool = True) -> bytes:
    """Return a frame with a part that is not the first."""
    return frame(CONTINUATION, payload, fin=fin)


# What goes on: stream, and what is handed on or written for it.
GOOD: dict[str, tuple[bytes, list[Event]]] = {
    "nothing": (b"", []),
    "two messages": (HI + text("字"), ["hi", "字"]),
    "half a message": (HI + HI[:-1], ["hi"]),
    "half a head": (HI + HI[:1], ["hi"]),
    "binary": (frame(BINARY, b"\xff\x00"), [b"\xff\x00"]),
    "binary in parts": (frame(BINARY, b"\xff", fin=False) + more(b"\x00"), [b"\xff\x00"]),
    "parts": (text("a", fin=False) + more("b", fin=False) + more("c") + HI, ["abc", "hi"]),
    "empty parts": (text("", fin=False) + more(fin=False) + more(), [""]),
    "an empty last part": (text("a", fin=False) + more(), ["a"]),
    "pings between parts": (
        text("a", fin=False) + frame(PING, "1") + more("b", fin=False) + frame(PONG, "2") + frame(PING) + more("c"),
        [("pong", b"1"), ("heard", b"2"), ("pong", b""), "abc"],
    ),
    "parts inside a character": (text(CJK[:1], fin=False) + more(CJK[1:2], fin=False) + more(CJK[2:]), ["字"]),
    "one part that is not whole yet": (text("a", fin=False), []),
    "a long ping": (frame(PING, b"x" * 125), [("pong", b"x" * 125)]),
    "parts up to the limit": (text(b"x" * (LIMIT - 1), fin=False) + more("x"), ["x" * LIMIT]),
    "more frames than one turn takes": (HI * (2 * FRAMES + 1), ["hi"] * (2 * FRAMES + 1)),
    "just as many frames as one turn takes": (HI * FRAMES, ["hi"] * FRAMES),
    "more pings than one turn takes": (frame(PING, "1") * (FRAMES + 1), [("pong", b"1")] * (FRAMES + 1)),
}
GOOD |= {f"mask {mask.hex()}": (text("字 and more", mask=mask), ["字 and more"]) for mask in MASKS}
GOOD |= {f"{size} bytes": (text("x" * size) + HI, ["x" * size, "hi"]) for size in (0, 1, 125, 126, 127, 65_535, 65_536)}
GOOD["the limit"] = (text("x" * LIMIT) + HI, ["x" * LIMIT, "hi"])

# What ends the connection: stream, what was handed on before, and the code that is written. Nothing after it counts.
BROKEN: dict[str, tuple[bytes, list[Event], int]] = {
    "one more than the limit": (text("x" * (LIMIT + 1)), [], 1009),
    "a length without end": (HI + frame(TEXT, claimed=2**63), ["hi"], 1009),
    "parts beyond the limit": (text(b"x" * LIMIT, fin=False) + more("x"), [], 1009),
    "126 bytes in eight": (text("x" * 126, size=8), [], 1002),
    "65535 bytes in eight": (text("x" * 65_535, size=8), [], 1002),
    "no bytes in two": (text("", size=2), [], 1002),
    "125 bytes in two": (text("x" * 125, size=2), [], 1002),
    "a ping in two": (frame(PING, "x", size=2), [], 1002),
    "not masked": (HI + text("a", mask=None), ["hi"], 1002),
    "not masked, empty": (text("", mask=None), [], 1002),
    "a continuation of nothing": (more("a"), [], 1002),
    "a continuation of what has ended": (text("a", fin=False) + more("b") + more("c"), ["ab"], 1002),
    "a message inside a message": (text("a", fin=False) + HI, [], 1002),
    "binary parts inside a message": (text("a", fin=False) + frame(BINARY, "b", fin=False), [], 1002),
    "a ping in parts": (frame(PING, "a", fin=False), [], 1002),
    "a close in parts": (frame(CLOSE, fin=False), [], 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), [], 1002),
    "a pong of 126 bytes": (frame(PONG, b"x" * 126), [], 1002),
    "a close of 126 bytes": (close_frame(1000, b"x" * 124), [], 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), [], 1002),
    "a reason that is not UTF-8": (close_frame(1000, b"\xff"), [], 1007),
    "not UTF-8": (HI + text(b"a\xff"), ["hi"], 1007),
    "half a character": (text(CJK[:2]), [], 1007),
    "a surrogate": (text(b"\xed\xa0\x80"), [], 1007),
    "parts that are not UTF-8": (text(CJK[:1], fin=False) + more(CJK[:1]), [], 1007),
}
BROKEN |= {f"reserved bit {bit:#x}": (frame(TEXT | bit, "a"), [], 1002) for bit in (0x10, 0x20, 0x40)}
BROKEN |= {f"reserved opcode {code:#x}": (frame(code, "a"), [], 1002) for code in (*range(3, 8), *range(11, 16))}
BROKEN |= {
    f"a close with {code}": (close_frame(code, "why"), [], 1002)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
}

# What says goodbye: what the peer is told, and what the handler is.
GOODBYES: dict[str, tuple[bytes, int | None, tuple[int | None, str | None]]] = {
    "an empty close": (close_frame(), None, (None, None)),
    "a close with a code": (close_frame(1000), 1000, (1000, None)),
    "a close with a reason": (close_frame(1001, "字"), 1001, (1001, "字")),
    "a long reason": (close_frame(4999, "x" * 123), 4999, (4999, "x" * 123)),
    "a close inside a message": (text("a", fin=False) + close_frame(3000), 3000, (3000, None)),
    "a close masked with nothing": (frame(CLOSE, b"\x03\xf6", mask=bytes(4)), 1014, (1014, None)),
}

STREAMS: dict[str, tuple[bytes, list[Event]]] = GOOD | {
    name: (stream + HI + frame(PING) + close_frame(1000), [*before, ("close", code)])
    for name, (stream, before, code) in BROKEN.items()
}
STREAMS |= {
    name: (stream + HI + frame(PING) + close_frame(1001), [("close", code)])
    for name, (stream, code, _) in GOODBYES.items()
}


async def events_of(chunks: Sequence[bytes]) -> tuple[list[Event], list[Event]]:
    """Return what is handled and what is written for these chunks. The connection's state at the end must fit."""
    protocol, transport, events = attached()
    await turns()  # what came before this would be worked off at once
    with timers_of(protocol) as timers:
        await feed(protocol, transport, chunks)
        handed, written = parted(events)
        if written and written[-1][0] == "close":
            assert transport.is_closing() != transport.ended  # closed at once, or when the peer has closed it
            assert not transport.aborted
            assert len(timers) == 1
        else:
            assert (transport.is_closing(), transport.ended, timers) == (False, False, [])
        before = len(timers)
        lose(protocol, transport)
        protocol.close(1000)  # too late
        await turns()
    assert parted(events) == ([*handed, ("end", protocol.close_code, protocol.close_reason)], written)
    assert len(timers) == before
    assert all(timer.cancelled() for timer in timers)
    return handed, written


def cut(stream: bytes, at: Sequence[int]) -> list[bytes]:
    """Return the stream in pieces."""
    offsets = sorted({0, len(stream), *(offset % (len(stream) + 1) for offset in at)})
    return [stream[start:stop] for start, stop in pairwise(offsets)]


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS.keys())
async def test_streams(stream: bytes, events: list[Event]) -> None:
    """A stream has the same result whether it arrives at once or byte by byte."""
    assert await events_of([stream]) == parted(events)
    assert await events_of([stream[at : at + 1] for at in range(len(stream))]) == parted(events)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(STREAMS)), at=st.lists(st.integers(0, 80_000), max_size=6))
def test_streams_in_pieces(name: str, at: list[int]) -> None:
    """A stream has the same result wherever it is cut."""
    stream, events = STREAMS[name]
    assert asyncio.run(events_of(cut(stream, at))) == parted(events)


@pytest.mark.parametrize(("stream", "code", "known"), GOODBYES.values(), ids=GOODBYES.keys())
async def test_close_frames(stream: bytes, code: int | None, known: tuple[int | None, str | None]) -> None:
    """A close frame is answered with its own code, the connection closes at once, and its code is known."""
    protocol, transport, events = attached()
    await feed(protocol, transport, [stream])
    assert (events, transport.is_closing(), transport.ended) == ([("close", code)], True, False)
    lose(protocol, transport)
    assert events[1:] == [("end", *known)]


class Stream:
    """Gives Tornado's parser its bytes."""

    def __init__(self, data: bytes, events: list[Event]) -> None:
        self._data, self._at, self._events = data, 0, events

    async def read_bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise StreamClosedError
        return self._data[self._at - count : self._at]

    def write(self, data: bytes) -> asyncio.Future[None]:
        assert data[0] == 0x80 | PONG
        self._events.append(("pong", data[2:]))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def closed(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def tornados_events(stream: bytes) -> list[Event]:
    """Return the events of Tornado's own parser."""
    handler = RecordingProtocol()
    protocol = WebSocketProtocol13(handler, mask_outgoing=False, params=_WebSocketParams(max_message_size=LIMIT))
    protocol.stream = Stream(stream, handler.events)  # type: ignore[assignment]
    try:
        while True:
            await protocol._receive_frame()  # noqa: SLF001  # Tornado's loop around it ends without an error
    except StreamClosedError:
        return handler.events


masks = st.binary(min_size=4, max_size=4)
controls = st.lists(st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125), masks), max_size=2)
payloads = st.text(max_size=300).map(str.encode) | st.sampled_from([b"x" * 65_535, b"x" * 65_536])
parts = st.lists(st.tuples(st.integers(0, 300), masks, controls), min_size=1, max_size=4)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """Draw messages in parts, with control frames between the parts, and their events."""
    stream, events = b"", []
    for opcode, payload, cuts in draw(
        st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), payloads, parts), max_size=8)
    ):
        offsets = [0, *sorted(min(offset, len(payload)) for offset, _, _ in cuts[1:]), len(payload)]
        for index, (_, mask, between) in enumerate(cuts):
            for control, said, its_mask in between:
                stream += frame(control, said, mask=its_mask)
                events.append(("pong" if control == PING else "heard", said))
            last = index == len(cuts) - 1
            piece = payload[offsets[index] : offsets[index + 1]]
            stream += frame(opcode if index == 0 else CONTINUATION, piece, fin=last, mask=mask)
        events.append(payload.decode() if opcode == TEXT else payload)
    return stream, events


@settings(max_examples=70, deadline=None)
@given(conversation=conversations(), at=st.lists(st.integers(0, 2**20), max_size=8))
def test_as_tornado_reads_it(conversation: tuple[bytes, list[Event]], at: list[int]) -> None:
    """For valid frames the events are what the client sent, and what Tornado's own parser finds."""
    stream, events = conversation
    assert asyncio.run(events_of(cut(stream, at))) == parted(events)
    assert asyncio.run(tornados_events(stream)) == events
