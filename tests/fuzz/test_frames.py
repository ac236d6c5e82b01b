"""A short run of the fuzzer finds nothing, and each kind of harm that it looks for is found."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs
from typing_extensions import override

from handlers.websocket.handler import ChatSocket
from models.records import Message
from server import Server
from storage.embedded.supervisor import Addresses
from tests.conftest import Connect
from tests.fuzz import wire
from tests.fuzz.arena import Arena
from tests.fuzz.attacker import SENTINEL, Attacker, Run
from tests.fuzz.bystanders import Bystanders
from tests.fuzz.frames import GROWTH, POOLED, Outcome, fuzz, judge
from tests.fuzz.mutator import Batch, Endpoint, Mutator
from tests.fuzz.watch import PATIENCE, Findings, Log, Resources, Watch
from tests.support.transports import ByteTransport

FRAMES = 20_000
MARKER = "5ec7e75ec7e75ec7e75ec7e7"


@pytest.mark.timeout(900)
async def test_nothing_is_found(addresses: Addresses) -> None:
    """Whatever is written, the server answers, leaks nothing, keeps nothing, and the bystanders chat on."""
    outcome = await fuzz(addresses, FRAMES, seed=7)
    assert not outcome.findings, outcome.table()
    assert outcome.frames == FRAMES
    assert outcome.answered > FRAMES / 100
    assert all(outcome.rounds)
    assert outcome.answers[400] > FRAMES / 10


UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def said(text: str | bytes, first: int = 0x81) -> bytes:
    """Return a short frame of a server."""
    payload = text.encode() if isinstance(text, str) else text
    return bytes((first, len(payload))) + payload


GREETED = UPGRADED + said('{"from":"","code":50002,"content":""}')
HARM = {
    "a bug": (GREETED + said('{"from":"","code":500,"content":"fail"}'), "an answer with code 500"),
    "a leak": (
        GREETED + said(f'{{"from":"1","code":50001,"content":"{MARKER}"}}'),
        "the secret marker on a socket of somebody else",
    ),
    "a leak before the upgrade": (
        f"HTTP/1.1 400 Bad Request\r\n\r\n{MARKER}".encode(),
        "the secret marker on a socket of somebody else",
    ),
    "an internal error": (GREETED + said(b"\x03\xf3", 0x88), "closed with 1011"),
    "a close for no reason": (GREETED + said(b"\x03\xe8", 0x88), "closed with 1000"),
    "no JSON": (GREETED + said('{"from":""'), "a frame that is not of the protocol"),
    "no UTF-8": (GREETED + said(b'{"from":"","code":1,"content":"\xff"}'), "a frame that is not of the protocol"),
    "another version": (
        GREETED + said('{"from":"","code":50004,"content":"","seq":1}'),
        "a frame that is not of the protocol",
    ),
    "no greeting": (UPGRADED + said('{"from":"","code":400,"content":""}'), "a first frame that is no greeting"),
    "a reserved opcode": (GREETED + said("", 0x83), "what is no frame of a server"),
    "a refusal": (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "a refused upgrade"),
    "an end": (b"", "an upgrade without an answer"),
}


async def run(answer: bytes, version: int, *, hangs: bool = False, patience: float = PATIENCE) -> Findings:
    """Return the findings on a stand-in that answers every connection in the same way."""
    findings = Findings()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if hangs:
            await reader.read(-1)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        arena = Arena(port, [Endpoint(1, 2, version)], [1, 2, 3], findings, MARKER, seed=1, patience=patience)
        await arena.run(1, connections=1)
    return findings


HARM2 = {
    "a message between others": said('{"from":"8","code":50001,"content":"","to":"9","seq":1}'),
    "a live message out of order": said('{"from":"2","code":50001,"content":"","to":"1","seq":1}') * 2,
    "an answer too many": said('{"from":"","code":50002,"content":"","id":"good 0"}'),
}


@pytest.mark.parametrize(("finding", "answer"), HARM2.items(), ids=HARM2.keys())
async def test_harm_in_protocol_v2(finding: str, answer: bytes) -> None:
    """Other users' messages, messages out of order and unrequested answers are found."""
    findings = await run(GREETED + answer, version=2)
    assert list(findings.counted) == [finding]


@pytest.mark.parametrize(("answer", "finding"), HARM.values(), ids=HARM.keys())
async def test_harm_on_a_socket(answer: bytes, finding: str) -> None:
    """Each kind of wrong byte from a server is a finding with its name."""
    findings = await run(answer, version=1)
    assert finding in findings.counted, findings.counted


@pytest.mark.parametrize("version", [1, 2])
async def test_silence(version: int) -> None:
    """A server that greets and then answers nothing is found, and the run ends."""
    findings = await run(GREETED, version, hangs=True, patience=0.5)
    assert list(findings.counted) == ["a connection that stands still"]


class Wire(ByteTransport, Run):
    """A run with one connection of protocol v1, without a server; `written` is what was written on it."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.findings, self.patience, self.marker = Findings(), patience, MARKER.encode()
        self.answers, self.closes = Counter[int](), Counter[int | str]()
        self.answered = self.batches = 0
        self._barrier = b""  # the bytes of the ping with which the last batch ended
        chance, endpoint = Random(1), Endpoint(1, 2, 1)
        self.attacker = Attacker(self, endpoint, Mutator(chance, endpoint, [1, 2]), chance)
        self.attacker.connection_made(self)
        self.attacker.data_received(GREETED)

    @override
    def entered(self, attacker: Attacker) -> None: ...

    @override
    def left(self, attacker: Attacker) -> None: ...

    @override
    def take(self, mutator: Mutator) -> Batch:
        self.batches += 1
        return Batch(kinds=Counter(nothing=1))

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        if data != SENTINEL:
            self._barrier = bytes(data[-8:])

    def receive(self, code: int) -> None:
        """Receive an answer."""
        self.attacker.data_received(said(f'{{"from":"","code":{code},"content":""}}'))

    def answer(self, code: int) -> None:
        """Receive the pong of a batch, and the answer to its last request."""
        self.attacker.data_received(said(self._barrier, 0x80 | wire.PONG))
        self.receive(code)


def test_slow_databases() -> None:
    """40001 is not silence: the last request of a batch is repeated until it is answered."""
    line = Wire(PATIENCE)
    for _ in range(3):
        line.written.clear()
        line.answer(40001)
        assert line.written == [SENTINEL]
    assert line.batches == 1
    line.answer(50003)
    assert line.batches == 2
    assert not line.findings


def test_a_database_that_was_slow_for_an_earlier_request() -> None:
    """The answer to the last request, which follows, is not missed."""
    line = Wire(PATIENCE)
    line.receive(50002)  # a request for history had more than one answer
    line.answer(40001)
    line.answer(50003)
    line.answer(50003)  # to the repeated request; the next batch waits for its own answer
    assert line.batches <= 3
    assert not line.findings


def test_databases_that_never_answer() -> None:
    """Databases that never answer are a finding of their own, and the connection ends."""
    line = Wire(0)
    line.answer(40001)
    assert list(line.findings.counted) == ["databases that do not answer"]
    assert line.aborted


async def test_no_listener() -> None:
    """A server that is gone is a finding, and the run ends."""
    findings = Findings()
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    await Arena(port, [Endpoint(1, 2, 1)], [1, 2, 3], findings, MARKER, seed=1).run(100, connections=3)
    assert "no connection" in findings.counted


LINES = {
    "information": ('{"event":"draining","level":"info"}', None),
    "warning": ('{"event":"slow_callback","level":"warning"}', None),
    "error": ('{"event":"request_failed","level":"error","exception":"KeyError: 1"}', "a log line of level error"),
    "critical": ('{"event":"gone","level":"critical"}', "a log line of level critical"),
    "secret": (f'{{"event":"said","level":"info","text":"{MARKER}"}}', "the secret marker in the log"),
    "trace": ("Traceback (most recent call last):", "a line that is not of the log on standard error"),
}


@pytest.mark.parametrize(("line", "finding"), LINES.values(), ids=LINES.keys())
def test_log(line: str, finding: str | None) -> None:
    """Errors in the log are findings, and so are lines that are not of the log."""
    findings = Findings()
    Log([line], findings, MARKER).close()
    assert list(findings.counted) == ([finding] if finding else [])


async def test_bystanders_are_let_down(
    http_server: Server, people: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bystanders who receive changed messages report it, in both protocols."""
    deliver = ChatSocket.hub.deliver

    def changed(message: Message, origin: object, **options: Any) -> Any:
        return deliver(structs.replace(message, content=message.content[:-1]), origin, **options)

    monkeypatch.setattr(ChatSocket.hub, "deliver", changed)
    findings = Findings()
    async with Bystanders(http_server.port, people(4), MARKER, findings) as bystanders:
        await bystanders.ended()
    assert findings.counted == {"bystanders who cannot chat any more": 2}


async def test_sockets_that_stay(http_server: Server, pair: tuple[int, int], connect: Connect) -> None:
    """Sockets that stay in the registry are found, after any time that they are given to go away."""
    findings = Findings()
    here: Any = SimpleNamespace(port=http_server.port, process=SimpleNamespace(pid=os.getpid(), poll=lambda: None))
    async with Watch(here, findings) as watch:
        await connect(*pair)
        held = await watch.settled(1)
        assert held is not None
        assert (held.connections, held.sockets) == (1, 1)
        assert await watch.settled(0, patience=0.5) is None
    assert list(findings.counted) == ["sockets that never went away"]


async def test_a_dead_server(http_server: Server) -> None:
    """A process that has ended is found."""
    findings = Findings()
    process = SimpleNamespace(pid=os.getpid(), poll=lambda: -11, returncode=-11)
    here: Any = SimpleNamespace(port=http_server.port, process=process)
    async with Watch(here, findings) as watch:
        await watch.ended()
    assert list(findings.counted) == ["the server has ended"]


def test_what_is_kept() -> None:
    """Memory and files beyond the limits are findings."""
    outcome = Outcome(1, before=Resources(0, 50, 4, 4), after=Resources(GROWTH, 50 + POOLED, 4, 4))
    judge(outcome)
    assert not outcome.findings
    outcome.after = Resources(GROWTH + 1, 51 + POOLED, 4, 4)
    judge(outcome)
    assert list(outcome.findings.counted) == ["memory that was not given back", "files that stay open"]
