"""The frame parser alone, and beside the parser of another implementation: that of the `websockets` package."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado.websocket import websocket_connect
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from handlers.websocket.frames import Event, FrameError, FrameParser
from handlers.websocket.rfc6455 import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.support.transports import frame

LIMIT = 70_000  # bytes of a message
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

Outcome = tuple[list[Event], int | None]  # events, and the close code of the error that ended them


def ours(chunks: Iterable[bytes]) -> Outcome:
    """Parse chunks with the parser that is tested; nothing is parsed behind a close frame."""
    parser = FrameParser(LIMIT)
    events: list[Event] = []
    try:
        for chunk in chunks:
            parser.feed(chunk)
            while (event := parser.next_event()) is not None:
                if event[0] != CONTINUATION:
                    events.append(event)
                if event[0] == CLOSE:
                    return events, None
    except FrameError as error:
        return events, error.code
    return events, None


def theirs(stream: bytes) -> tuple[Outcome, str]:
    """Parse a stream with `websockets`, which leaves it to its callers to join parts and decode texts.

    Returns the outcome, and what the error said.
    """
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)
    protocol.receive_data(stream)
    events: list[Event] = []
    parts, kind = b"", Opcode.TEXT
    for got in protocol.events_received():
        assert isinstance(got, Frame)
        data = bytes(got.data)
        if got.opcode is Opcode.CLOSE:
            assert protocol.close_rcvd is not None
            events.append((CLOSE, (int(protocol.close_rcvd.code), protocol.close_rcvd.reason)))
        elif got.opcode in (Opcode.PING, Opcode.PONG):
            events.append((int(got.opcode), data))
        else:
            parts = parts + data if got.opcode is Opcode.CONT else data
            kind = kind if got.opcode is Opcode.CONT else got.opcode
            if got.fin and kind is Opcode.BINARY:
                events.append((BINARY, parts))
            elif got.fin:
                try:
                    events.append((TEXT, parts.decode()))
                except UnicodeDecodeError:
                    return (events, 1007), "not UTF-8"
    error = protocol.parser_exc
    code = None if error is None or protocol.close_sent is None else int(protocol.close_sent.code)
    return (events, code), str(error)


def chunked(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """Cut a stream into chunks at these offsets."""
    ends = [0, *sorted({cut % (len(stream) + 1) for cut in at}), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(ends) if end > begin]


control = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
message = st.tuples(st.text(max_size=400) | st.binary(max_size=400) | st.sampled_from(["x" * 66_000, b"y" * 300]))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Return what a client may send: messages whole and in parts, control frames anywhere, perhaps a goodbye."""
    said = b""
    for (content,) in draw(st.lists(message, max_size=5)):
        data = content.encode() if isinstance(content, str) else content
        opcode = Opcode.TEXT if isinstance(content, str) else Opcode.BINARY
        parts = chunked(data, draw(st.lists(st.integers(0, 1000), max_size=3))) or [b""]
        for number, part in enumerate(parts):
            for kind, payload in draw(st.lists(control, max_size=2)):
                said += Frame(Opcode(kind), payload).serialize(mask=True)
            part_of = Opcode.CONT if number else opcode
            said += Frame(part_of, part, fin=number == len(parts) - 1).serialize(mask=True)
    if draw(st.booleans()):
        said += frame(CLOSE, draw(st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0bye"])))
    return said


offsets = st.lists(st.integers(0, 200_000), max_size=8)


@given(stream=streams(), at=offsets)
@settings(deadline=None)
def test_what_may_be_sent_is_parsed_as_by_others(stream: bytes, at: list[int]) -> None:
    """Both parsers find the same messages and control frames, however the bytes are cut into chunks."""
    expected, _ = theirs(stream)
    assert expected[1] is None
    assert ours(chunked(stream, at)) == expected


# What `websockets` refuses and this parser takes, which RFC 6455 allows: a goodbye, or a control frame, between the
# parts of a message, and a control frame that would not fit into what is left of a message's size.
TAKEN = ("incomplete fragmented message", "over size limit")


@given(
    stream=streams(),
    at=offsets,
    flips=st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 255)), min_size=1, max_size=4),
)
@example(stream=frame(TEXT, "hi"), at=[], flips=[(0, 0x40)])
@example(stream=frame(TEXT, "hi"), at=[], flips=[(1, 0x80)])
@settings(deadline=None, max_examples=400)
def test_damaged_streams_are_refused_where_others_refuse_them(
    stream: bytes, at: list[int], flips: list[tuple[int, int]]
) -> None:
    """Both parsers find the same events before the damage.

    This parser refuses all that the other one refuses, and besides lengths that take more bytes than they need.
    """
    damaged = bytearray(stream or frame(TEXT, "hi"))
    for offset, bits in flips:
        damaged[offset % len(damaged)] ^= bits
    found, code = ours(chunked(bytes(damaged), at))
    (expected, their_code), reason = theirs(bytes(damaged))
    assert found[: len(expected)] == expected[: len(found)]
    if their_code is not None and not any(said in reason for said in TAKEN):
        assert len(found) <= len(expected)
        if not found[-1:] or found[-1][0] != CLOSE:
            # An error of the other parser may lie in a frame of which this one still waits for the end.
            assert code is not None or len(found) == len(expected)
    if their_code is None and code is None:
        assert found == expected


@pytest.mark.parametrize("width", [2, 8])
def test_a_length_in_more_bytes_than_it_needs(width: int) -> None:
    """A length in more bytes than it needs is refused with 1002 (RFC 6455, section 5.2); the other parser takes it."""
    stream = frame(TEXT, "hi", size=width)
    assert ours([stream]) == ([], 1002)
    assert theirs(stream)[0] == ([(TEXT, "hi")], None)


FAULTS: dict[str, tuple[bytes, int]] = {
    "not masked": (frame(TEXT, "hi", mask=None), 1002),
    "a reserved bit": (bytes([0xC1]) + frame(TEXT, "hi")[1:], 1002),
    "an unknown opcode": (frame(0x3, "hi"), 1002),
    "an unknown control frame": (frame(0xB, "hi"), 1002),
    "a ping in parts": (frame(PING, "hi", fin=False), 1002),
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "a part of nothing": (frame(CONTINUATION, "hi"), 1002),
    "a message within another": (frame(TEXT, "a", fin=False) + frame(TEXT, "b"), 1002),
    "a text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "parts that are not UTF-8": (frame(TEXT, b"\xe4\xb8", fin=False) + frame(CONTINUATION, b"x"), 1007),
    "a goodbye of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a goodbye with a code for programs alone": (frame(CLOSE, b"\x03\xed"), 1002),
    "a goodbye whose reason is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "a message that is too long": (frame(TEXT, b"", claimed=LIMIT + 1, size=8), 1009),
    "parts that are too long together": (
        frame(BINARY, b"x" * LIMIT, fin=False) + frame(CONTINUATION, b"x"),
        1009,
    ),
}


@pytest.mark.parametrize(("stream", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_has_its_close_code(stream: bytes, code: int) -> None:
    """A fault is found in one chunk and byte by byte, behind what was right; both implementations name one code."""
    before = frame(TEXT, "before")
    expected = ([(TEXT, "before")], code)
    assert ours([before + stream]) == expected
    assert ours(chunked(before + stream, range(200))) == expected
    (_, their_code), _ = theirs(before + stream)
    assert their_code == code


def test_a_parser_can_be_stopped_between_two_events() -> None:
    """What was fed and not asked for stays, also while more is fed."""
    parser = FrameParser(LIMIT)
    parser.feed(frame(TEXT, "a") + frame(TEXT, "b") + frame(TEXT, "c")[:3])
    assert parser.next_event() == (TEXT, "a")
    parser.feed(frame(TEXT, "c")[3:] + frame(PING, b"p"))
    assert [parser.next_event() for _ in range(4)] == [(TEXT, "b"), (TEXT, "c"), (PING, b"p"), None]


def test_an_idle_parser_keeps_nothing() -> None:
    """After the last whole frame no bytes are left, or idle connections would hold on to what they have sent."""
    parser = FrameParser(LIMIT)
    parser.feed(frame(TEXT, "x" * 60_000) + frame(PING, b""))
    while parser.next_event() is not None:
        pass
    assert parser.buffered == 0


async def recorded(client: str) -> tuple[bytes, list[str | bytes]]:
    """Return what a client sends behind its handshake, and the messages that it was told to send."""
    messages: list[str | bytes] = ["", "hi", "中文" * 50, "x" * 126, "y" * 66_000, b"", b"\x00\xff" * 200]
    took: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line[19:] for line in request.splitlines() if line.lower().startswith("sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode()).digest()).decode()  # noqa: S324  # RFC 6455's
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        parser, stream = FrameParser(LIMIT), b""
        while (chunk := await reader.read(65_536)) != b"":
            stream += chunk
            parser.feed(chunk)
            while (event := parser.next_event()) is not None:
                if event[0] == CLOSE:
                    writer.write(b"\x88\x02\x03\xe8")
        writer.close()
        took.set_result(stream)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    if client == "tornado":
        connection = await websocket_connect(url)
        for message in messages:
            await connection.write_message(message, binary=isinstance(message, bytes))
        connection.close(1000, "bye")
    else:
        async with connect(url, compression=None, proxy=None) as socket:
            for message in messages:
                await socket.send(message)
            await socket.send(iter(["in ", "parts"]))
        messages.append("in parts")
    stream = await took
    server.close()
    await server.wait_closed()
    return stream, messages


@pytest.mark.parametrize("client", ["tornado", "websockets"])
async def test_what_real_clients_send(client: str) -> None:
    """A recorded stream is parsed into the messages that were sent, byte by byte and at once, by both parsers."""
    stream, messages = await recorded(client)
    expected, _ = theirs(stream)
    assert [content for opcode, content in expected[0] if opcode in (TEXT, BINARY)] == messages
    assert expected[0][-1][0] == CLOSE
    for chunks in ([stream], chunked(stream, range(0, len(stream), 7)), chunked(stream, range(2000))):
        assert ours(chunks) == expected
