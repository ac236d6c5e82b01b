"""Sockets of chatting users, and the answers that they expect.

Each message is checked for arrival and order when it arrives. Times are those of `time.perf_counter`, in seconds, since
uvloop's clock only has milliseconds. A latency counts from the moment at which a message should have been sent, so a
stall counts for all messages that it delays.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import cast

from bench.alarm import Alarm, UnexpectedError
from bench.wire import ACKNOWLEDGED, CYCLE, GREETED, PING, PONG, Stream, client_frame, handshake

__all__ = ["SHOWN", "Connection", "InFlight", "PlainSocket", "Talker"]

SHOWN = 200  # bytes of an unexpected frame that are shown


class InFlight:
    """Messages in flight, oldest first, by when they should have been sent; and the latencies of those that ended."""

    def __init__(self) -> None:
        self.count = 0
        self.latencies = array("d")  # seconds, of messages that ended during the measurement
        self._times: deque[tuple[float, int]] = deque()  # a time, and how many

    def add(self, intended: float, count: int) -> None:
        """Add so many that should have been sent at a time."""
        self.count += count
        self._times.append((intended, count))

    def end(self, count: int, now: float, *, measuring: bool) -> bool:
        """End the oldest; return False if there were not so many."""
        if count > self.count:
            return False
        self.count -= count
        times = self._times
        while count:
            intended, together = times[0]
            if together <= count:
                times.popleft()
            else:
                times[0] = (intended, together - count)
                together = count
            count -= together
            if measuring:
                self.latencies.extend([now - intended] * together)
        return True


class Connection(asyncio.Protocol):
    """A socket that opens itself and is greeted; a closing that it did not request rings the alarm.

    It does not use the clients of tests/support: they parse each frame, and the load generator has to be fast.
    """

    def __init__(self, path: str, alarm: Alarm) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closing = False
        self._path = path
        self._alarm = alarm
        self._handshake = handshake(path)
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the upgrade."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's
        self._transport.write(self._handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ring the alarm if the server closed the socket."""
        if not self.closing:
            self.fail(f"closed by the server: {exc}")

    def close(self) -> None:
        """Close the socket."""
        self.closing = True
        self._transport.abort()

    def fail(self, text: str) -> None:
        """Ring the alarm."""
        error = UnexpectedError(f"{self._path}: {text}")
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # the opening task may have been cancelled
        else:
            self._alarm.ring(error)
        self.close()

    def data_received(self, data: bytes) -> None:
        """Wait for the greeting, then read frames."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self.opened.done():
            head = data.find(b"\r\n\r\n") + 4
            end = head + 2 + data[head + 1] if len(data) > head + 1 else 0
            if head < 4 or not end or len(data) < end:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101 ") or not data.startswith(GREETED, head + 2):
                self.fail(f"not let in: {data[:SHOWN]!r}")
                return
            data = data[end:]
            self.opened.set_result(None)
        if data:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read frames; incomplete ones stay in `_rest`."""
        raise NotImplementedError

    def _pong(self, payload: bytes) -> None:
        self._transport.write(client_frame(payload, PONG))


class Talker(Connection):
    """A socket that sends messages, and counts the answers."""

    def __init__(self, path: str, alarm: Alarm) -> None:
        super().__init__(path, alarm)
        self.peer: Talker | None = None  # the recipient, while it is online
        self.sent = self.acknowledged = self.received = 0
        self.window = 0  # messages that it keeps in flight by itself
        self.unacknowledged, self.undelivered = InFlight(), InFlight()
        # Seconds between when a message should have been sent and when it was: the load generator's own part.
        self.late = array("d")
        self.measuring = False
        self.progressed: Callable[[], None] | None = None  # called when something has arrived

    def send(self, intended: Sequence[float]) -> None:
        """Send messages, one for each time at which one should have been sent."""
        for time in intended:
            self._account(time, 1)
        self._write(len(intended))
        if self.measuring:
            now = perf_counter()
            self.late.extend([now - time for time in intended])

    def send_now(self, count: int, now: float) -> None:
        """Send messages that are due now."""
        self._account(now, count)
        self._write(count)

    def _account(self, intended: float, count: int) -> None:
        self.unacknowledged.add(intended, count)
        if self.peer is not None:
            self.undelivered.add(intended, count)

    def _write(self, count: int) -> None:
        first, self.sent = self.sent, self.sent + count
        self._transport.write(self._requests(first, count))

    def _requests(self, first: int, count: int) -> bytes:
        """Return the frames of messages, from a number on."""
        raise NotImplementedError

    def _settle(self, acknowledged: int, received: int, now: float) -> None:
        """Record what has just arrived."""
        if received:
            self.received += received
            sender = self.peer
            if sender is None or not sender.undelivered.end(received, now, measuring=sender.measuring):
                return self.fail(f"got {received} messages more than were sent")
        if acknowledged:
            self.acknowledged += acknowledged
            if not self.unacknowledged.end(acknowledged, now, measuring=self.measuring):
                return self.fail(f"got {acknowledged} acknowledgements more than messages were sent")
            if self.window:
                self.send_now(acknowledged, now)
        if self.progressed is not None:
            self.progressed()
        return None


class PlainSocket(Talker):
    """A user's socket of protocol v1: received bytes are compared with the exact bytes that are expected.

    Whole runs of frames are compared at once, since the server also answers in runs.
    """

    def __init__(self, path: str, alarm: Alarm, out: Stream, into: Stream) -> None:
        super().__init__(path, alarm)
        self._out = out
        self._in = into
        self.expect(ACKNOWLEDGED)

    def expect(self, answer: bytes) -> None:
        """Set how messages are acknowledged from now on."""
        self._answer = answer
        self._answers = answer * CYCLE

    def _requests(self, first: int, count: int) -> bytes:
        out = self._out
        begin = first % CYCLE
        if begin + count <= CYCLE:
            return out.requests[begin * out.request_size : (begin + count) * out.request_size]
        return b"".join([out.request(number) for number in range(first, first + count)])

    def _read(self, data: bytes) -> None:
        now = perf_counter()
        at, end, acknowledged, received = 0, len(data), 0, 0
        answer, lives, size = self._answer, self._in.lives, self._in.live_size
        next_live = self.received % CYCLE * size
        while at < end:
            if data.startswith(answer, at):
                run = min((end - at) // len(answer), CYCLE)
                if run > 1 and not self._answers.startswith(data[at : at + run * len(answer)]):
                    run = 1
                acknowledged += run
                at += run * len(answer)
            elif data.startswith(lives[next_live : next_live + size], at):
                run = min(end - at, len(lives) - next_live) // size
                if run > 1 and not lives.startswith(data[at : at + run * size], next_live):
                    run = 1
                received += run
                at += run * size
                next_live = (next_live + run * size) % len(lives)
            elif data[at] == PING and end - at >= 2 and end - at >= 2 + data[at + 1]:
                self._pong(data[at + 2 : at + 2 + data[at + 1]])
                at += 2 + data[at + 1]
            else:
                rest, next_ = data[at:], lives[next_live : next_live + size]
                if not (answer.startswith(rest) or next_.startswith(rest) or (rest[0] == PING and len(rest) < 127)):
                    self.fail(f"got {rest[:SHOWN]!r} instead of {next_!r}")
                    return
                self._rest = rest
                break
        self._settle(acknowledged, received, now)
