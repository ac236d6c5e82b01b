"""RFC 6455 on real connections: on the event loop and on Tornado's streams, each also under TLS.

The cases are those of test_transport_streams.py and the others of Autobahn's fuzzing client (its sections 2 to 7
and 9).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tornado.ioloop import IOLoop

from handlers.http.server import tls_context
from tests.handlers.websocket.test_transport_streams import BROKEN, GOOD, GOODBYES, HI, more, text
from tests.support.certificates import certificate
from tests.support.echo import serve_echo
from tests.support.sockets import RawSocket
from tests.support.transports import BINARY, CLOSE, LIMIT, PING, PONG, TEXT, Event, close_frame, frame

WAYS = ["bulk", "tornado", "bulk tls", "tornado tls"]
PARTIAL = {"half a message", "half a head"}  # behind which a close frame would be taken for payload


class Way(NamedTuple):
    """A server, and how to connect to it."""

    port: int
    tls: ssl.SSLContext | None


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, io_loop: IOLoop, pem: tuple[Path, Path]) -> Iterator[Way]:
    """Yield a server that echoes, on one of the transports."""
    context = None
    frames, _, tls = request.param.partition(" ")
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pem[0])
        context.check_hostname = False

    async def start() -> Any:
        server_context = tls_context(str(pem[0]), str(pem[1])) if context else None
        return serve_echo(0, frames=frames, longest=LIMIT, tls=server_context)

    server, port = io_loop.run_sync(start)
    yield Way(port, context)
    server.stop()
    io_loop.run_sync(server.close_all_connections)


async def spoken(way: Way, *chunks: bytes) -> list[Event]:
    """Return the server's frames for these bytes, up to the end of the connection, which must not be a reset."""
    raw = await RawSocket.open(way.port, way.tls)
    with closing(raw.writer.transport):
        assert (await raw.request("/", upgrade=True))[0] == 101
        for chunk in chunks:
            raw.writer.write(chunk)
            await asyncio.sleep(0)  # so that they leave one by one
        return await heard(raw)


async def heard(raw: RawSocket) -> list[Event]:
    """Return the frames up to the end, as in test_transport_streams.py."""
    events: list[Event] = []
    while True:
        try:
            opcode, payload = await raw.frame()
        except asyncio.IncompleteReadError as error:
            assert not error.partial
            return events
        if opcode == CLOSE:
            events.append(("close", int.from_bytes(payload[:2], "big") if payload else None))
        elif opcode == PONG:
            events.append(("pong", payload))
        else:
            assert opcode in (TEXT, BINARY)
            events.append(payload.decode() if opcode == TEXT else payload)


def answered(events: list[Event]) -> list[Event]:
    """Return the events that a client sees: pongs are not answered."""
    return [event for event in events if not (isinstance(event, tuple) and event[0] == "heard")]


@pytest.mark.parametrize("name", sorted(GOOD.keys() - PARTIAL))
async def test_valid_streams(name: str, way: Way) -> None:
    """Messages come back whole and pings are answered, in order; then the client's close frame is."""
    stream, events = GOOD[name]
    assert await spoken(way, stream + close_frame(1000)) == [*answered(events), ("close", 1000)]


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_streams(name: str, way: Way) -> None:
    """A client that breaks the protocol gets the close code, however much it still sends, and no reset."""
    stream, events, code = BROKEN[name]
    junk = b"" if name == "a length without end" else HI * 20_000
    assert await spoken(way, stream + junk) == [*answered(events), ("close", code)]


@pytest.mark.parametrize("name", GOODBYES)
async def test_close_frames(name: str, way: Way) -> None:
    """A close frame is answered with its own code, and nothing after it is."""
    stream, code, _ = GOODBYES[name]
    assert await spoken(way, stream + HI) == [("close", code)]


def cases(streams: dict[str, tuple[bytes, list[Event]]]) -> Any:
    """Return a parameter for each case."""
    return pytest.mark.parametrize(("stream", "events"), streams.values(), ids=streams.keys())


ODD = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
PINGS: dict[str, tuple[bytes, list[Event]]] = {
    "empty": (frame(PING), [("pong", b"")]),
    "with bytes that are no text": (frame(PING, ODD), [("pong", ODD)]),
    "ten": (b"".join(frame(PING, f"{n}") for n in range(10)), [("pong", b"%d" % n) for n in range(10)]),
    "a pong that was not asked for": (frame(PONG) + HI, ["hi"]),
    "such a pong with bytes": (frame(PONG, ODD) + frame(PING, "1") + HI, [("pong", b"1"), "hi"]),
}


@cases(PINGS)
async def test_pings(stream: bytes, events: list[Event], way: Way) -> None:
    """Each ping is answered with its payload, also when it arrives byte by byte."""
    ending = close_frame(1000)
    assert await spoken(way, stream + ending) == [*events, ("close", 1000)]
    assert await spoken(way, *(bytes((byte,)) for byte in stream), ending) == [*events, ("close", 1000)]


FORBIDDEN: dict[str, tuple[bytes, list[Event]]] = {}
for bits in range(0x10, 0x80, 0x10):
    for kind, opcode in (("text", TEXT), ("ping", PING), ("close", CLOSE)):
        FORBIDDEN[f"reserved bits {bits:#x} of a {kind}"] = (HI + frame(bits | opcode, b"") + HI, ["hi"])
for opcode in (*range(3, 8), *range(11, 16)):
    FORBIDDEN[f"opcode {opcode} without payload"] = (frame(opcode) + frame(PING), [])
    FORBIDDEN[f"opcode {opcode} inside a message"] = (HI + text("a", fin=False) + frame(opcode, "b") + more(), ["hi"])
for last in (False, True):
    FORBIDDEN[f"a continuation of nothing, {last=}"] = (more("a", fin=last) + HI, [])
    FORBIDDEN[f"a ping in parts, {last=}"] = (frame(PING, "a", fin=False) + more("b", fin=last), [])


@cases(FORBIDDEN)
async def test_forbidden_frames(stream: bytes, events: list[Event], way: Way) -> None:
    """A forbidden frame is answered with 1002 at once."""
    assert await spoken(way, stream) == [*events, ("close", 1002)]


SENT = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
NEVER_SENT = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1099, 1100, 1999, 2000, 2999, 5000, 9999, 65_535)
CLOSES: dict[str, tuple[bytes, list[Event]]] = {
    **{f"code {code}": (close_frame(code), [("close", code)]) for code in SENT},
    **{f"code {code} and a reason": (close_frame(code, "why"), [("close", code)]) for code in (1000, 4999)},
    **{f"code {code}, never sent": (close_frame(code), [("close", 1002)]) for code in NEVER_SENT},
    **{f"code {code}, never sent, and a reason": (close_frame(code, "why"), [("close", 1002)]) for code in NEVER_SENT},
    "twice": (close_frame(1000) + close_frame(1001), [("close", 1000)]),
    "then a ping": (close_frame(1000) + frame(PING), [("close", 1000)]),
    "in the middle of a message": (text("a", fin=False) + close_frame(1000) + more("b"), [("close", 1000)]),
    "behind a message in parts": (text("a", fin=False) + more("b") + close_frame(1000), ["ab", ("close", 1000)]),
    "behind a long message": (text("x" * LIMIT) + close_frame(1000), ["x" * LIMIT, ("close", 1000)]),
    "a reason of 123 bytes": (close_frame(1000, "x" * 123), [("close", 1000)]),
    "a reason of 124 bytes": (close_frame(1000, "x" * 124), [("close", 1002)]),
    "a reason that is not UTF-8": (close_frame(1000, ODD), [("close", 1007)]),
    "one byte": (frame(CLOSE, b"\x03"), [("close", 1002)]),
}


@cases(CLOSES)
async def test_closes(stream: bytes, events: list[Event], way: Way) -> None:
    """A close code that may be sent comes back; any other is answered with 1002 (section 7.4)."""
    assert await spoken(way, stream) == events


# The borders of UTF-8's lengths, of the surrogates and of Unicode, and characters that are no characters.
BORDERS = (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 0x10FFFE, 0x10FFFF)
GREEK = "κόσμε"
NOT_UTF8: dict[str, bytes] = {
    "cut short": GREEK.encode()[:-1],
    "a continuation alone": b"\x80",
    "continuations alone": b"\xbf\x80\xbf",
    "a first byte alone": b"\xc3 ",
    "a first byte of four alone": b"\xf0 ",
    "two bytes where one is enough": b"\xc0\xaf",
    "the longest of these": b"\xc1\xbf",
    "three where two are": b"\xe0\x9f\xbf",
    "four where three are": b"\xf0\x8f\xbf\xbf",
    "zero in two": b"\xc0\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "0xfe": b"\xfe",
    "0xff": b"\xff",
}


@pytest.mark.parametrize("character", map(chr, BORDERS), ids=map(hex, BORDERS))
async def test_utf8(character: str, way: Way) -> None:
    """Every character comes back, in whole messages, and in parts and reads that end inside of it."""
    said = f"{GREEK}{character}{GREEK}"
    encoded = said.encode()
    parts = [text(encoded[:1], fin=False), *(more(encoded[at : at + 1], fin=False) for at in range(1, len(encoded)))]
    whole = text(said)
    chunks = [whole[at : at + 1] for at in range(len(whole))]
    stream = whole + b"".join(parts) + more() + close_frame(1000)
    assert await spoken(way, *chunks, stream) == [said, said, said, ("close", 1000)]


@pytest.mark.parametrize("payload", NOT_UTF8.values(), ids=NOT_UTF8.keys())
async def test_not_utf8(payload: bytes, way: Way) -> None:
    """Text that is not UTF-8 is answered with 1007, whole and in parts."""
    said = GREEK.encode() + payload
    assert await spoken(way, HI + text(said) + HI) == ["hi", ("close", 1007)]
    parts = text(said[:7], fin=False) + more(said[7:], fin=False) + more()
    assert await spoken(way, HI + parts + HI) == ["hi", ("close", 1007)]


@pytest.mark.parametrize("size", [64, 256, 1024, 4096, 16_384, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_the_largest_message(opcode: int, size: int, way: Way) -> None:
    """The largest message comes back whole from parts of any size, and a byte more gets 1009."""
    said = b"x" * LIMIT
    pieces = [said[at : at + size] for at in range(0, LIMIT, size)]
    stream = frame(opcode, pieces[0], fin=False) + b"".join(more(piece, fin=False) for piece in pieces[1:])
    expected = said.decode() if opcode == TEXT else said
    assert await spoken(way, stream + more() + close_frame(1000)) == [expected, ("close", 1000)]
    assert await spoken(way, stream + more("x") + HI) == [("close", 1009)]
