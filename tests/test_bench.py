"""Tests that the bench fits the server, and detects errors."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from bench.alarm import Alarm, UnexpectedError
from bench.filling import document
from bench.load import Pair, settle
from bench.measuring import percentile
from bench.profiling import counted, step_of
from bench.protocol_v2 import NumberedSocket, text_of
from bench.results import Spread
from bench.sockets import InFlight, PlainSocket, Talker
from bench.verdicts import Target, Verdict
from bench.wire import ACKNOWLEDGED, CYCLE, GREETING, PING, Stream, server_frame
from config import Settings
from models.records import conversation_of
from server import Server
from storage.embedded.supervisor import Addresses
from tests.support.sockets import until
from tests.support.transports import ByteTransport

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + GREETING
SENT = 5


class Wire:
    """A pair without a server, whose input the tests write."""

    def __init__(self, version: int = 1) -> None:
        self.alarm = Alarm()
        there, back = Stream(1), Stream(2)
        self.lives = there
        self.writer: Talker
        self.reader: Talker
        if version == 2:
            self.writer, self.reader = NumberedSocket("/writer", self.alarm), NumberedSocket("/reader", self.alarm)
        else:
            self.writer = PlainSocket("/writer", self.alarm, there, back)
            self.reader = PlainSocket("/reader", self.alarm, back, there)
        self.writer.peer, self.reader.peer = self.reader, self.writer
        for socket in (self.writer, self.reader):
            socket.connection_made(ByteTransport())
            socket.data_received(UPGRADED)
        self.writer.send_now(SENT, perf_counter())

    def deliver(self, *numbers: int) -> None:
        self.reader.data_received(b"".join(map(self.lives.live, numbers)))


def live2(number: int, seq: int) -> bytes:
    return server_frame(
        f'{{"from":"1","code":50001,"content":"{text_of(number)}","to":"2","id":"m{number}","seq":{seq},"time":1}}'.encode()
    )


@pytest.mark.parametrize("version", [1, 2])
async def test_it_fits_the_server(http_server: Server, version: int, pair: tuple[int, int]) -> None:
    """The frames that the load generator compares with are the server's, beyond its cycle of messages."""
    chat, alarm = Pair(*pair), Alarm()
    await alarm.guard(chat.open(http_server.port, alarm, version=version))
    chat.writer.window = 16
    chat.writer.send_now(16, perf_counter())
    await until(lambda: chat.writer.sent > 2 * CYCLE or alarm.error is not None)
    chat.writer.window = 0
    await alarm.guard(settle(chat.sockets))
    assert chat.writer.sent == chat.writer.acknowledged == chat.reader.received
    chat.close()


async def test_it_stores_what_the_server_stores(
    http_server: Server, addresses: Addresses, settings: Settings, pair: tuple[int, int]
) -> None:
    """The bench's own documents have the same fields and types as the server's."""
    chat, alarm = Pair(*pair), Alarm()
    await alarm.guard(chat.open(http_server.port, alarm))
    chat.close()
    name = conversation_of(*pair)
    with MongoClient[dict[str, Any]](addresses.mongo) as client:
        stored = client[settings.engines.mongo_database].messages.find_one({"conversation": name})
        raw = bson.encode(document(name, 1, pair[0], "x", bytes(16), 1, datetime.now(UTC)))
    assert stored is not None
    assert {key: type(value) for key, value in bson.decode(raw).items()} == {
        key: type(value) for key, value in stored.items()
    }


async def test_correct_frames_raise_no_alarm() -> None:
    """Correct frames are accepted, however they are split, with pings in between."""
    wire = Wire()
    ping = bytes((PING, 1)) + b"p"
    data = b"".join([wire.lives.live(0), ping, *map(wire.lives.live, range(1, SENT))])
    for at in range(0, len(data), 7):
        wire.reader.data_received(data[at : at + 7])
    wire.writer.data_received(ACKNOWLEDGED * SENT)
    await wire.alarm.guard(settle([wire.writer, wire.reader]))
    assert (wire.reader.received, wire.writer.acknowledged) == (SENT, SENT)


@pytest.mark.parametrize(
    "numbers",
    [(0, 2), (0, 1, 1), (0, 2, 1), (1,), (0, 1, 2, 3, 4, 5)],
    ids=["lost", "doubled", "reordered", "first lost", "one too many"],
)
async def test_wrong_frames_raise_the_alarm(numbers: tuple[int, ...]) -> None:
    """A wrong frame raises the alarm at once, and ends the guarded code with the reason."""
    wire = Wire()

    async def work() -> None:
        wire.deliver(*numbers)
        await asyncio.Event().wait()

    with pytest.raises(UnexpectedError):
        await wire.alarm.guard(work())


@pytest.mark.parametrize(
    "frames",
    [[(0, 1), (2, 3)], [(0, 1), (0, 1)], [(0, 1), (2, 3), (1, 2)], [(0, 1), (1, 3)]],
    ids=["lost", "doubled", "reordered", "a gap in seq"],
)
async def test_wrong_frames_raise_the_alarm_in_protocol_v2(frames: list[tuple[int, int]]) -> None:
    """In protocol v2 ids and seqs are compared with each other."""
    wire = Wire(version=2)
    wire.reader.data_received(b"".join(live2(number, seq) for number, seq in frames))
    assert wire.alarm.error is not None


async def test_a_missing_message_is_lost() -> None:
    """A message that does not arrive counts as lost, even the last one."""
    wire = Wire()
    wire.deliver(*range(SENT - 1))
    wire.writer.data_received(ACKNOWLEDGED * SENT)
    with pytest.raises(UnexpectedError, match="lost: 1 "):
        await settle([wire.writer], patience=0.05)


@pytest.mark.parametrize("answer", [ACKNOWLEDGED * (SENT + 1), server_frame(b'{"code":500}')])
async def test_a_wrong_number_of_answers_raises_the_alarm(answer: bytes) -> None:
    """One acknowledgement too many, or a missing one, raises the alarm."""
    wire = Wire()
    wire.writer.data_received(answer)
    assert wire.alarm.error is not None


async def test_an_unexpected_close_raises_the_alarm() -> None:
    """A closed connection raises the alarm, unless the close was requested."""
    wire = Wire()
    wire.writer.close()
    wire.writer.connection_lost(None)
    assert wire.alarm.error is None
    wire.reader.connection_lost(None)
    assert wire.alarm.error is not None


def test_a_latency_counts_from_when_a_message_should_have_been_sent() -> None:
    """A latency counts from when its message should have been sent, and those before the measurement are dropped."""
    messages = InFlight()
    for intended in (1.0, 2.0, 3.0):
        messages.add(intended, 1)
    assert messages.end(1, 5.0, measuring=False)
    assert messages.end(2, 5.0, measuring=True)
    assert [*messages.latencies] == [3.0, 2.0]
    assert not messages.end(1, 6.0, measuring=True)


def test_percentiles_are_values_that_were_measured() -> None:
    """A percentile is a measured value, below which so many percent of the values are, in any order."""
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values[:1], 99)) == (51.0, 100.0, 100.0)


@pytest.mark.parametrize(
    ("values", "at_least", "text"),
    [
        ([11.0, 12.0, 13.0], True, "met"),
        ([9.0, 12.0, 13.0], True, "met, not by all repeats alike"),
        ([7.0, 8.0, 9.0], True, "missed"),
        ([7.0, 8.0, 9.0], False, "met"),
        ([8.0, 11.0, 12.0], False, "missed, not by all repeats alike"),
    ],
)
def test_the_median_decides_on_a_target(values: list[float], at_least: bool, text: str) -> None:
    """The median decides whether a target is met, and disagreement among the repeats is reported."""
    target = Target("a bound of 10", "scenario", "row", "figure", 10, at_least=at_least)
    assert Verdict(target, Spread.of(values)).text == text


WEBSOCKET = "handlers/websocket"
LOOP = "main (server.py);Runner.run (asyncio/runners.py)"
TAKING = f"{LOOP};FrameProtocol.data_received ({WEBSOCKET}/transport.py);SessionV1.take ({WEBSOCKET}/session_v1.py)"
CARRYING = f"{LOOP};Pipeline._landed (models/chat/pipeline.py);Pipeline._finish (models/chat/pipeline.py)"


@pytest.mark.parametrize(
    ("stack", "step"),
    [
        (LOOP, "loop"),
        (f"{TAKING};decode (models/protocol/v1.py)", "in"),
        (f"{TAKING};Pipeline.send (models/chat/pipeline.py)", "chat"),
        (
            f"{TAKING};SessionV1._advance ({WEBSOCKET}/session_v1.py);FrameProtocol._write ({WEBSOCKET}/transport.py)",
            "out",
        ),
        (f"{CARRYING};Delivery.publish (models/chat/delivery.py)", "chat"),
        (f"{CARRYING};Hub.deliver (handlers/websocket/hub.py);encode (models/protocol/v1.py)", "out"),
        (f"{CARRYING};RedisCounters.gather (storage/redis/counters.py)", "storage"),
        (f"{LOOP};Batcher._run_batches (common/batching.py);cached.get (functools.py)", "storage"),
        (f"{LOOP};FrameProtocol._flush (handlers/websocket/transport.py)", "out"),
    ],
)
def test_a_stack_belongs_to_the_step_of_its_innermost_frame(stack: str, step: str) -> None:
    """A stack belongs to its innermost frame's step, a codec to its caller, and handlers under models to output."""
    assert step_of(stack.split(";")) == step


def test_samples_of_other_threads_are_the_storage_s() -> None:
    """Samples of other threads are counted apart, as storage, since each kind has its own processor time."""
    thread = "Thread._bootstrap (threading.py);_worker (concurrent/futures/thread.py)"
    torn = ["", f"{LOOP} ", f"{LOOP} x", LOOP]  # stacks that changed while they were read
    loop, others = counted([f"{LOOP} 3", *torn, f"{thread} 2", f"{CARRYING} 5"])
    assert (loop, others) == ({"loop": 3, "chat": 5}, {"storage": 2})
