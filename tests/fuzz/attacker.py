"""One connection: it writes a mutator's frames as fast as the server reads, and checks all that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from tests.fuzz import wire
from tests.fuzz.mutator import ASKED, Batch, Endpoint, Mutator
from tests.fuzz.watch import Findings

__all__ = ["Attacker", "Run"]

REFUSED = {400, 429, 500}  # codes with which a valid request is never answered
CLOSES = {1002, 1007, 1008, 1009, 4008}  # close codes with which an invalid frame may be answered
SHOWN = 40  # frames of a batch in a finding
MESSAGE, DATABASE = 50001, 40001
UNASKED = {MESSAGE, 50007, 50008, 50009}  # codes of frames that are no answers
GREETING = 50002
LAST = 50003  # the answer of protocol v1 to a request for history before the first message
SENTINEL = wire.frame(b'{"type":2,"content":"0"}')  # such a request: the last of a batch


class _Shown(msgspec.Struct):
    """A message in an answer of protocol v2."""

    to: str
    seq: int
    sender: str = msgspec.field(name="from")


class _Answer1(msgspec.Struct, forbid_unknown_fields=True):
    """A frame of protocol v1, with all its fields."""

    code: int
    content: str
    sender: str = msgspec.field(name="from")


class _Answer2(msgspec.Struct):
    """A frame of protocol v2, with the fields that are checked."""

    code: int
    content: str
    sender: str = msgspec.field(name="from")
    to: str = ""
    id: str = ""
    seq: int = 0
    messages: list[_Shown] = []


class Run(Protocol):
    """The run that a connection belongs to: what it writes next, and where it reports what came back."""

    findings: Findings
    marker: bytes
    patience: float  # seconds
    answers: Counter[int]
    closes: Counter[int | str]
    answered: int

    def entered(self, attacker: Attacker) -> None:
        """Note a new connection."""

    def take(self, mutator: Mutator) -> Batch | None:
        """Return the next batch for a connection, None if enough was written."""

    def left(self, attacker: Attacker) -> None:
        """Note a closed connection."""


class Attacker(asyncio.Protocol):
    """One connection. A batch ends with a ping; the next one follows when its pong and all answers have come.

    It is not built on the clients of tests/support, since those write no broken frames. It reads what a server writes
    without a frame library for the same reason: it must also notice bytes that are no frame.
    """

    def __init__(self, arena: Run, endpoint: Endpoint, mutator: Mutator, chance: Random) -> None:
        self.since = time.monotonic()  # when it was last written to, or an expected frame came
        self.wrote = False
        self._arena = arena
        self._endpoint = endpoint
        self._mutator = mutator
        self._chance = chance
        form = _Answer1 if endpoint.version == 1 else _Answer2
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(form).decode
        self._seen: dict[str, int] = {}  # protocol v2: the last live seq, by peer
        self._transport: Any = None
        self._buffer = bytearray()
        self._tail = b""  # the last bytes, in which the marker may have begun
        self._upgraded = self._greeted = False
        self._batch = Batch()
        self._barrier = b""
        self._passed = False  # whether the pong has come
        self._due = 0  # protocol v1: the minimum of unanswered messages
        self._last_code = 0
        self._written = self.since  # when the batch was written
        self._close_code: int | None = None  # of the server's close frame
        self._ended = False  # whether no more can be written

    # Methods that asyncio calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._arena.entered(self)
        self._write(
            f"GET {self._endpoint.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        window = self._tail + data
        if self._arena.marker in window:
            self._report("the secret marker on a socket of somebody else", repr(window[:500]))
        self._tail = window[-len(self._arena.marker) + 1 :]
        self._buffer += data
        if not self._upgraded and not self._upgrade():
            return
        for first, payload in wire.taken(self._buffer):
            self._take(first, payload)
        if self._passed and not self._batch.owed:
            if self._endpoint.version == 2 or self._paid:
                self._next()
            elif self._due <= 0 and self._last_code == DATABASE:
                self._ask_again()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        if not self._upgraded:
            self._report("an upgrade without an answer", repr(error))
        if self._close_code is None:
            self._arena.closes["no close frame"] += 1
        self._arena.left(self)

    # Received frames

    def _upgrade(self) -> bool:
        head, found, _ = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        if b" 101 " not in head:
            self._report("a refused upgrade", repr(bytes(self._buffer)))
            self._upgraded = True
            self.abort()
            return False
        del self._buffer[: len(head) + 4]
        self._upgraded = True
        return True

    def _take(self, first: int, payload: bytes) -> None:
        opcode = first & 0x0F
        if first == 0x80 | wire.TEXT:
            self._look_at(payload)
        elif first == 0x80 | wire.PONG:
            self._passed = self._passed or payload == self._barrier
        elif first == 0x80 | wire.PING:
            self._write(wire.frame(payload, wire.PONG))
        elif first == 0x80 | wire.CLOSE:
            self._closing(payload)
        else:
            self._report("what is no frame of a server", f"opcode {opcode}, first byte {first:#x}, {payload[:200]!r}")

    @property
    def _paid(self) -> bool:
        """Whether a socket of protocol v1, which answers in order, has answered the last request."""
        return self._due <= 0 and self._last_code == LAST

    def _look_at(self, payload: bytes) -> None:
        try:
            answer = self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._report("a frame that is not of the protocol", f"{error}: {payload[:500]!r}")
            return
        self._arena.answers[answer.code] += 1
        if answer.code == 500:
            self._report("an answer with code 500", f"{payload[:500]!r}")
        if not self._greeted:
            self._greeted = self._passed = True
            self._last_code = LAST
            if answer.code != GREETING:
                self._report("a first frame that is no greeting", f"{payload[:500]!r}")
            return
        if answer.code not in UNASKED:
            self._due -= 1
            self._last_code = answer.code
            self.since = time.monotonic()
        if self._endpoint.version == 2:
            self._look_at_ids(answer, payload)

    def _look_at_ids(self, answer: _Answer2, payload: bytes) -> None:
        """Check what only protocol v2 has: a message's users, its seq, and the id of an answer."""
        shown: list[_Answer2 | _Shown] = [*answer.messages, answer] if answer.code == MESSAGE else [*answer.messages]
        for each in shown:
            if not self._concerns(each):
                self._report("a message between others", f"{payload[:500]!r}")
        if answer.code == MESSAGE:
            peer = answer.to if answer.sender == str(self._endpoint.user) else answer.sender
            if answer.seq <= self._seen.get(peer, 0):
                self._report("a live message out of order", f"after {self._seen[peer]}: {payload[:500]!r}")
            self._seen[peer] = answer.seq
        elif answer.id.startswith(ASKED):
            kind = self._batch.owed.pop(answer.id, None)
            self._arena.answered += kind is not None
            if kind is not None and answer.code in REFUSED:
                self._report("a good request that is refused", f"type {kind}: {payload[:500]!r}")
            # After 40001 an acknowledgement may still come; and at the end answers are not counted.
            if kind is None and self._batch.end is None and not self._arena.answers[DATABASE]:
                self._report("an answer too many", f"{payload[:500]!r}")

    def _concerns(self, message: _Answer2 | _Shown) -> bool:
        """Return whether the user of this socket may see a message."""
        user, peer = str(self._endpoint.user), self._endpoint.peer
        ends = {message.sender, message.to}
        return user in ends and (peer is None or str(peer) in ends)

    def _closing(self, payload: bytes) -> None:
        self._close_code = int.from_bytes(payload[:2], "big") if payload else 0
        self._arena.closes[self._close_code or "without a code"] += 1
        mine = self._batch.end is not None  # our own close frame, or bytes that look like one, is echoed
        if self._close_code == 1011 or (not mine and self._close_code not in CLOSES):
            self._report(f"closed with {self._close_code}", repr(payload))
        if self._chance.random() < 0.9:  # otherwise the server has to end it by itself
            self._write(wire.frame(payload[:2], wire.CLOSE))

    # Sent frames

    def _ask_again(self) -> None:
        """Repeat the last request of a batch, whose answer may have been that a database is away or slow."""
        if self._close_code is not None or self._batch.end is not None:
            return
        if time.monotonic() - self._written > self._arena.patience:
            self._report("databases that do not answer", f"for {self._arena.patience:g} s")
            self.abort()
            return
        self._due, self._last_code = 1, 0
        self._write(SENTINEL)

    def _next(self) -> None:
        self.since = self._written = time.monotonic()
        if self._close_code is not None:
            return
        batch = self._arena.take(self._mutator)
        self._passed = False
        if batch is None:
            self._leave()
            return
        self._batch = batch
        self.wrote = True
        self._due = max(self._due, 0) + batch.messages + 1
        self._barrier = self._chance.randbytes(8)
        if batch.end is None:
            sentinel = [SENTINEL] if self._endpoint.version == 1 else []
            self._write(b"".join((*batch.data, *sentinel, wire.frame(self._barrier, wire.PING))))
            return
        batch.owed.clear()
        self._write(b"".join(batch.data))
        if batch.end.waits:
            self._end()

    def _leave(self) -> None:
        """Leave as a client does that is done, or that vanishes."""
        if self._chance.random() < 0.5:
            self._batch.end = wire.Broken("close", b"")
            self._write(wire.frame(b"\x03\xe8", wire.CLOSE))
        elif self._chance.random() < 0.5:
            self._end()
        else:
            self.abort()

    def _write(self, data: bytes) -> None:
        if not self._ended:
            self._transport.write(data)

    def _end(self) -> None:
        """End the stream; data written before still arrives."""
        self._ended = True
        if not self._transport.is_closing():
            with contextlib.suppress(OSError):  # the server has closed it already
                self._transport.write_eof()

    def abort(self) -> None:
        """Abort the connection."""
        self._ended = True
        self._transport.abort()

    def give_up(self) -> None:
        """End a connection on which no frames come any more, which is a finding."""
        missing = f"pong: {self._passed}, good requests: {self._batch.owed}, due: {self._due}"
        self._report("a connection that stands still", f"after {self._batch.end and self._batch.end.name}; {missing}")
        self.abort()

    def _report(self, kind: str, detail: str) -> None:
        sent = "\n    ".join(repr(each) for each in self._batch.data[-SHOWN:])
        self._arena.findings.report(kind, f"{detail}\n  on {self._endpoint.path} after\n    {sent}")
