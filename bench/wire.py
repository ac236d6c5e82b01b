"""Frames as the load generator writes and reads them: bytes made once, and compared whole.

Every byte that the server writes in protocol v1 is known. So received bytes are compared with the expected ones, many
frames at a time. That costs a small part of parsing them, and checks more.
"""

from __future__ import annotations

import base64
import secrets
import struct

__all__ = [
    "ACKNOWLEDGED",
    "ACKNOWLEDGED_OFFLINE",
    "CONTENT",
    "CYCLE",
    "GREETED",
    "GREETING",
    "PING",
    "PONG",
    "TEXT",
    "Frames",
    "Stream",
    "client_frame",
    "handshake",
    "server_frame",
]

# FIN and the opcode, RFC 6455 section 5.2.
TEXT, PING, PONG = 0x81, 0x89, 0x8A
MASKED = 0x80
MASK = bytes(4)  # masking with zeros leaves the bytes unchanged; unmasking costs the server the same
CONTENT = 90  # bytes of a message
CYCLE = 128  # messages until a stream repeats itself: more than are ever in flight


def handshake(path: str, host: str = "127.0.0.1") -> bytes:
    """Return the request that opens a WebSocket."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def client_frame(payload: bytes, first: int = TEXT) -> bytes:
    """Return a client's frame, of text unless its first byte says otherwise."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", first, MASKED | size) + MASK + payload
    return struct.pack("!BBH", first, MASKED | 126, size) + MASK + payload


def server_frame(payload: bytes) -> bytes:
    """Return a server's text frame."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", TEXT, size) + payload
    return struct.pack("!BBH", TEXT, 126, size) + payload


GREETED = (
    '{"from":"","code":50002,"content":"已连接至服务器"'.encode()
)  # the part of the greeting that both versions have
GREETING = server_frame(GREETED + b"}")
ACKNOWLEDGED = server_frame('{"from":"","code":50004,"content":"对方在线应答"}'.encode())
ACKNOWLEDGED_OFFLINE = server_frame('{"from":"","code":50005,"content":"对方不在线应答"}'.encode())


class Stream:
    """The messages from one user to another, all of the same size and distinguished by their number.

    Numbers start again after CYCLE, so that all frames can be made beforehand: `requests` sends them, `lives` are what
    the peer gets, joined. A loss of exactly CYCLE messages is noticed when they are counted.
    """

    def __init__(self, name: int) -> None:
        head, numbers = b"%09d " % name, tuple(range(CYCLE))
        content = head + b"%09d " + b"x" * (CONTENT - len(head) - 10)
        size = len(content % 0)
        self.requests = self._all(b'{"type":1,"content":"', content, b'"}', size, numbers, masked=True)
        self.lives = self._all(b'{"from":"","code":50001,"content":"', content, b'"}', size, numbers, masked=False)
        self.request_size = len(self.requests) // CYCLE
        self.live_size = len(self.lives) // CYCLE

    @staticmethod
    def _all(
        before: bytes, content: bytes, behind: bytes, size: int, numbers: tuple[int, ...], *, masked: bool
    ) -> bytes:
        frame = client_frame if masked else server_frame
        length = len(before) + size + len(behind)
        head = frame(bytes(length))[:-length].replace(b"%", b"%%")
        return (head + before + content + behind) * CYCLE % numbers

    def request(self, number: int) -> bytes:
        """Return the frame that sends a message."""
        at = number % CYCLE * self.request_size
        return self.requests[at : at + self.request_size]

    def live(self, number: int) -> bytes:
        """Return the frame that the peer gets."""
        at = number % CYCLE * self.live_size
        return self.lives[at : at + self.live_size]


class Frames:
    """Splits the server's bytes into frames, for sockets that have to parse them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Yield the first byte and the payload of each complete frame."""
        data = self._rest + data if self._rest else data
        frames, at, end = [], 0, len(data)
        while end - at >= 2:
            size, begin = data[at + 1], at + 2
            if size > 125:
                begin += 2 if size == 126 else 8
                if end < begin:
                    break
                size = int.from_bytes(data[at + 2 : begin], "big")
            if end < begin + size:
                break
            frames.append((data[at], data[begin : begin + size]))
            at = begin + size
        self._rest = data[at:]
        return frames
