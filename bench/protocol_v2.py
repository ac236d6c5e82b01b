"""Sockets of protocol v2: each message has an id, and answers are parsed and compared with `id` and `seq`.

Parsing costs the load generator several times as much as comparing. Read its share of the CPU beside the figures.
"""

from __future__ import annotations

from array import array
from time import perf_counter

import msgspec
from msgspec import Struct

from bench.alarm import Alarm
from bench.sockets import SHOWN, Connection, Talker
from bench.wire import CONTENT, PING, TEXT, Frames, client_frame

__all__ = ["Asker", "NumberedSocket"]

SUCCESS, LIVE, ONLINE, MOVED, PRESENCE = 50002, 50001, 50004, 50007, 50009  # codes, docs/protocol.md
FILL = "x" * (CONTENT - 10)


class Shown(Struct):
    """A message in an answer to history or resume."""

    seq: int


class Answer(Struct):
    """The fields of a server's frame that are checked."""

    code: int
    content: str = ""
    id: str = ""
    seq: int = 0
    time: int = 0
    dup: bool = False
    messages: list[Shown] | None = None


_decode = msgspec.json.Decoder(Answer).decode


def text_of(number: int) -> str:
    """Return the content of a message."""
    return f"{number:09d} {FILL}"


class NumberedSocket(Talker):
    """A user's socket. Only one user of a pair writes at a time, so every `seq` is known beforehand."""

    def __init__(self, path: str, alarm: Alarm) -> None:
        super().__init__(path, alarm)
        self._frames = Frames()
        self._seq = 0  # the last one that this socket saw, as writer or as reader
        self._time = 0  # of that message, milliseconds

    def _requests(self, first: int, count: int) -> bytes:
        return b"".join(
            [
                client_frame(b'{"type":1,"id":"m%d","content":"%b"}' % (number, text_of(number).encode()))
                for number in range(first, first + count)
            ]
        )

    def _read(self, data: bytes) -> None:
        now = perf_counter()
        acknowledged = received = 0
        for first, payload in self._frames.feed(data):
            if first == PING:
                self._pong(payload)
                continue
            try:
                frame = _decode(payload)
            except msgspec.DecodeError:
                return self.fail(f"got {payload[:SHOWN]!r}")
            if frame.code in (MOVED, PRESENCE):
                continue
            if frame.code == ONLINE:
                good = frame.id == f"m{self.acknowledged + acknowledged}" and not frame.dup
                acknowledged += 1
            else:
                number = self.received + received
                good = frame.code == LIVE and frame.id == f"m{number}" and frame.content == text_of(number)
                received += 1
            if not good or frame.seq != self._seq + 1 or frame.time < self._time or first != TEXT:
                return self.fail(f"got {payload[:SHOWN]!r} behind seq {self._seq}")
            self._seq, self._time = frame.seq, frame.time
        self._settle(acknowledged, received, now)
        return None


class Asker(Connection):
    """A socket that requests stored messages; each answer must hold exactly the requested seqs."""

    def __init__(self, path: str, alarm: Alarm, number: int) -> None:
        super().__init__(path, alarm)
        self._frames = Frames()
        self._name = f"a{number}-"
        self._asked = 0
        self._waiting: dict[str, tuple[float, int, int, array[float]]] = {}

    def history(self, first: int, count: int, intended: float, latencies: array[float]) -> None:
        """Request the page that begins with a `seq`; add the latency in seconds to `latencies`."""
        self._ask(f'"type":2,"before":{first + count},"limit":{count}', first, count, intended, latencies)

    def resume(self, first: int, count: int, intended: float, latencies: array[float]) -> None:
        """Request everything after a `seq`; there are more messages than the `count` in the answer."""
        self._ask(f'"type":6,"after":{first - 1}', first, count, intended, latencies)

    def _ask(self, fields: str, first: int, count: int, intended: float, latencies: array[float]) -> None:
        self._asked += 1
        name = f"{self._name}{self._asked}"
        self._waiting[name] = (intended, first, count, latencies)
        self._transport.write(client_frame(f'{{"id":"{name}",{fields}}}'.encode()))

    @property
    def waiting(self) -> int:
        """The number of requests without an answer."""
        return len(self._waiting)

    def _read(self, data: bytes) -> None:
        for first, payload in self._frames.feed(data):
            if first == PING:
                self._pong(payload)
                continue
            now = perf_counter()  # the answer has arrived before it is parsed
            try:
                frame = _decode(payload)
                if frame.code == PRESENCE:  # of the other askers
                    continue
                intended, begin, count, latencies = self._waiting.pop(frame.id)
            except (msgspec.DecodeError, KeyError):
                return self.fail(f"got {payload[:SHOWN]!r}")
            got = [message.seq for message in frame.messages or ()]
            if frame.code != SUCCESS or got != list(range(begin, begin + count)):
                return self.fail(f"asked for {count} from {begin} on, got {payload[:SHOWN]!r}")
            latencies.append(now - intended)
        return None
