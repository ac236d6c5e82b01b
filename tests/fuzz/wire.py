"""WebSocket frames as bytes (RFC 6455, section 5): valid or broken ones of a client, and parsed ones of a server."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

__all__ = ["CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Broken", "broken", "frame", "odd", "taken"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LARGEST = 65_536  # the maximum of bytes in a frame, the server's --max-frame
BORDERS = (0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, LARGEST)
TOO_MUCH = (LARGEST + 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
NO_MASK = b"\0\0\0\0"  # a mask of zeros, which costs nothing

# Close codes, RFC 6455 section 7.4: permitted, reserved, never permitted. Not 1011, which the server would echo,
# and which is a finding when it comes from there.
CODES = (0, 1, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1015, 2999, 3000, 4999, 65_535)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return the masked payload, computed on integers, which is faster than byte by byte."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def frame(
    payload: bytes,
    opcode: int = TEXT,
    *,
    fin: bool = True,
    reserved: int = 0,
    mask: bytes | None = NO_MASK,
    length: int | None = None,
    wide: int = 0,
) -> bytes:
    """Return a client's frame.

    `length` claims a wrong size of the payload, `wide` (126, 127) uses a longer form of it.
    """
    claimed = len(payload) if length is None else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit = 0 if mask is None else 0x80
    if claimed > 0xFFFF or wide == 127:
        head = struct.pack("!BBQ", first, bit | 127, claimed)
    elif claimed > 125 or wide == 126:
        head = struct.pack("!BBH", first, bit | 126, claimed)
    else:
        head = bytes((first, bit | claimed))
    if mask is None:
        return head + payload
    return head + mask + (payload if mask == NO_MASK else masked(payload, mask))


def taken(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take a server's complete frames from the buffer; yield the first byte and the payload of each."""
    start, have = 0, len(buffer)
    try:
        while have - start >= 2:
            size, head = buffer[start + 1], 2
            if size == 126:
                head = 4
                size = int.from_bytes(buffer[start + 2 : start + 4], "big")
            elif size == 127:
                head = 10
                size = int.from_bytes(buffer[start + 2 : start + 10], "big")
            if have - start < head + size:
                break
            first, payload = buffer[start], bytes(buffer[start + head : start + head + size])
            start += head + size
            yield first, payload
    finally:
        del buffer[:start]


# Odd, but valid: a message, or none


def _pieces(chance: Random, payload: bytes) -> bytes:
    """Return one message in fragments, some of them empty, with pings and pongs between them."""
    cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.randrange(1, 6)))
    out = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        opcode = CONTINUATION if number else TEXT
        out.append(frame(payload[start:end], opcode, fin=number == len(cuts), mask=chance.randbytes(4)))
        if number < len(cuts) and chance.random() < 0.5:
            out.append(frame(b"between", chance.choice((PING, PONG))))
    return b"".join(out)


def _padded(chance: Random, payload: bytes) -> bytes:
    """Return a message whose length is at a border, by white space around the JSON."""
    border = chance.choice(BORDERS if chance.random() < 0.1 else BORDERS[:7])
    return frame(payload.ljust(border) if chance.random() < 0.5 else payload.rjust(border), mask=chance.randbytes(4))


ODD: tuple[tuple[str, int, Callable[[Random, bytes], bytes]], ...] = (
    # name, number of messages, function
    ("fragments", 1, _pieces),
    ("length at a border", 1, _padded),
    ("binary", 1, lambda chance, payload: frame(payload, BINARY)),
    ("ping", 0, lambda chance, payload: frame(chance.randbytes(chance.randrange(126)), PING)),
    ("pong", 0, lambda chance, payload: frame(chance.randbytes(chance.randrange(126)), PONG)),
)


def odd(chance: Random, payload: bytes) -> tuple[str, int, bytes]:
    """Return valid but rare bytes: a name, the number of messages, the bytes."""
    name, messages, make = chance.choice(ODD)
    return name, messages, make(chance, payload)


# Broken bytes, for which the server ends the connection


class Broken(NamedTuple):
    """The end of a connection. If `waits`, the server cannot detect it and waits for more until the stream ends."""

    name: str
    data: bytes
    waits: bool = False


def _close(chance: Random) -> Broken:
    """Return a close frame, with any payload."""
    reason = chance.choice((b"", b"bye", b"\xff\xfe", b"x" * 123, "再见".encode(), b"\xed\xa0\x80", b"\0"))
    code = struct.pack("!H", chance.choice(CODES) if chance.random() < 0.8 else chance.randrange(3000, 5000))
    data = chance.choice((b"", b"\x03", code, code + reason, code + reason))
    again = frame(data, CLOSE) * chance.randrange(3)
    return Broken("close", frame(data, CLOSE) + again)


def _lie(chance: Random) -> Broken:
    """Return a frame with less payload than announced."""
    payload = json.dumps({"type": 1, "content": "x" * chance.randrange(200)}).encode()
    missing = chance.choice((1, 2, 100, 125, 126, 40_000))
    return Broken("length too large", frame(payload, length=min(len(payload) + missing, LARGEST)), waits=True)


def _short(chance: Random) -> Broken:
    """Return a frame with more payload than announced; the rest is parsed as frames."""
    payload = json.dumps({"type": 1, "content": "x" * chance.randrange(200)}).encode()
    return Broken("length too small", frame(payload, length=chance.randrange(len(payload))), waits=True)


def _garbage(chance: Random) -> Broken:
    """Return bytes that are not frames."""
    data = chance.choice(
        (
            chance.randbytes(chance.randrange(1, 3000)),
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"\0" * chance.randrange(1, 3000),
            b"\xff" * chance.randrange(1, 3000),
            b'{"type":1,"content":"hi"}\n' * 20,
        )
    )
    return Broken("garbage", data, waits=True)


def _cut(chance: Random) -> Broken:
    """Return a frame that is cut somewhere."""
    whole = frame(b'{"type":1,"content":"' + b"x" * chance.choice((5, 200, 65_000)) + b'"}', mask=chance.randbytes(4))
    return Broken("cut off", whole[: chance.randrange(len(whole))], waits=True)


def _endless(chance: Random) -> Broken:
    """Return fragments that add up to more than the maximum of a frame."""
    size = chance.choice((1000, 20_000, LARGEST))
    more = frame(b"x" * size, CONTINUATION, fin=False) * (LARGEST // size + 1)
    return Broken("fragments without end", frame(b"x", fin=False) + more)


def _lenient(chance: Random) -> Broken:
    """Return what RFC 6455 forbids and many servers accept: no mask, a length in more bytes than it needs."""
    payload = b'{"type":1,"content":"x"}'
    name, data = chance.choice(
        (
            ("no mask", frame(payload, mask=None)),
            ("no mask on a ping", frame(b"", PING, mask=None)),
            ("longer form of length", frame(payload, wide=chance.choice((126, 127)))),
        )
    )
    return Broken(name, data, waits=True)


def _control(chance: Random) -> bytes:
    return frame(b"x" * chance.choice((126, 127, 200, 65_535, LARGEST)), chance.choice((CLOSE, PING, PONG)))


BREAKING: tuple[Callable[[Random], Broken], ...] = (
    _close,
    _close,
    _lie,
    _short,
    _garbage,
    _garbage,
    _cut,
    _endless,
    _lenient,
    lambda chance: Broken("nothing", b"", waits=True),
    lambda chance: Broken("more than 64 KiB", frame(b"x", length=chance.choice(TOO_MUCH))),
    lambda chance: Broken("large control frame", _control(chance)),
    lambda chance: Broken("fragmented control frame", frame(b"x", chance.choice((CLOSE, PING, PONG)), fin=False)),
    lambda chance: Broken("reserved opcode", frame(b"{}", chance.choice((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)))),
    lambda chance: Broken("reserved bits", frame(b'{"type":1}', reserved=chance.randrange(1, 8))),
    lambda chance: Broken("continuation of nothing", frame(b"x", CONTINUATION, fin=chance.random() < 0.5)),
    lambda chance: Broken("message in a message", frame(b"{", fin=False) + frame(b"{}")),
    lambda chance: Broken(
        "fragments of a reserved opcode", frame(b"{", chance.choice((3, 7)), fin=False) + frame(b"}", CONTINUATION)
    ),
)


def broken(chance: Random) -> Broken:
    """Return bytes that end a connection."""
    return chance.choice(BREAKING)(chance)
