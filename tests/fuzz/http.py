"""Send requests made from the API's description, and random ones, to two servers at once; then list the findings.

python -m tests.fuzz.http --seconds=600 [--seed=…]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from random import Random

import psutil
from schemathesis import GenerationMode, Response

from common.tasks import end
from storage.embedded.supervisor import Addresses
from tests.fuzz.asker import NO_LIMITS, SLOW, UNGUESSABLE, Asker, Strangers, described, operations
from tests.fuzz.spoiler import Operation, Spoiler, described_operations
from tests.fuzz.watch import Findings, Log, Watch
from tests.support.database import mysql_connection
from tests.support.patience import PATIENCE
from tests.support.processes import ServerProcess, embedded_databases, external
from tests.support.sockets import RawSocket

__all__ = ["fuzz"]

WARM_UP = 0.3  # the share of the time after which caches are full
MOST_GROWTH = 64 * 2**20  # bytes by which memory may grow after the warm-up
WORKERS = 20  # concurrent connections to each server
QUIET = 0.5  # seconds without a byte after which the answer to a broken request counts as complete
TELL_EVERY = 10.0  # seconds between two lines of progress


@dataclass
class Tally:
    """Requests by kind: how many, their outcomes, and the slowest answer (seconds)."""

    findings: Findings = field(default_factory=Findings)
    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, kind: str, outcome: str, seconds: float) -> None:
        self.outcomes[kind][outcome] += 1
        self.slowest[kind] = max(self.slowest[kind], seconds)

    @property
    def total(self) -> int:
        return sum(each.total() for each in self.outcomes.values())

    def lines(self) -> Iterator[str]:
        """Return the tally as lines of a table."""
        yield f"  {'kind':30}{'answers':>9}{'slowest':>11}  by status"
        for kind in sorted(self.outcomes):
            outcomes = self.outcomes[kind]
            by_status = "  ".join(f"{outcome}: {count}" for outcome, count in sorted(outcomes.items()))
            yield f"  {kind:30}{outcomes.total():9}{self.slowest[kind]:9.2f} s  {by_status}"
        total = sum(self.outcomes.values(), Counter())
        yield f"  {'all':30}{total.total():9}{max(self.slowest.values(), default=0.0):9.2f} s  " + "  ".join(
            f"{outcome}: {count}" for outcome, count in sorted(total.items())
        )


class Rival:
    """A server of the run, with its users, its log and its random requests."""

    def __init__(self, name: str, addresses: Addresses, tally: Tally, flags: Sequence[str], *, believes: bool) -> None:
        self.name = name
        self.believes = believes
        self.tally = tally
        self.server = ServerProcess(
            *external(addresses),
            *NO_LIMITS,
            "--log-level=warning",
            "--log-format=json",
            *flags,
        )
        self.warm = 0

    @property
    def memory(self) -> int:
        """The process's memory in bytes, 0 if it has ended."""
        try:
            return int(psutil.Process(self.server.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def move_in(self, marker: str) -> None:
        """Read the log, and register the users."""
        assert self.server.process.stderr
        self.log = Log(self.server.process.stderr, self.tally.findings, marker)
        self._marker = marker.encode()
        self.asker, self.spoiling = (Asker(self.server.port, marker, believes=self.believes) for _ in range(2))

    async def spoil(self, chance: Random, operations: Sequence[Operation], over: Callable[[], bool]) -> None:
        """Send random requests, one after the other, each on a connection of its own."""
        spoiler = Spoiler(chance, self.spoiling, operations, believes=self.believes)
        while not over() and self.server.process.poll() is None:
            kind, pieces = spoiler.make()
            began = time.monotonic()
            try:
                answer = await _exchange(self.server.port, pieces)
            except OSError:  # the server may close a connection during a write
                self.tally.count(kind, "reset", 0)
                continue
            self._look_at(kind, pieces, answer, time.monotonic() - began)

    def _look_at(self, kind: str, pieces: list[bytes], answer: bytes, seconds: float) -> None:
        statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)
        for status in statuses or [b"none"]:
            self.tally.count(kind, status.decode(), seconds)
        wrong = {
            "a secret": self._marker in answer,
            "a bug": any(status[:1] == b"5" and status != b"503" for status in statuses),
            "a traceback": b"Traceback" in answer,
            "a good request without an answer": kind == "good" and not statuses,
        }
        for what in (what for what, is_so in wrong.items() if is_so):
            self.tally.findings.report(f"{self.name}: {what}", f"{pieces!r} got {answer!r}")

    async def keep_signed_in(self, over: Callable[[], bool]) -> None:
        """Renew the token, since random requests may end it."""
        while not over() and self.server.process.poll() is None:
            await asyncio.to_thread(self.spoiling.renew)
            await asyncio.sleep(1)

    async def warm_up(self, until: float) -> None:
        """Record the process's memory after the warm-up."""
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        self.warm = self.memory

    def close(self) -> None:
        """End the server as an operator does, and check the rest of its log."""
        self.server.signal(signal.SIGTERM)
        status: int | str
        try:
            status = self.server.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = "none yet"
        if status != 0:
            self.tally.findings.report(f"{self.name}: the server did not end well", f"status {status}")
        self.log.close()
        for asker in (self.asker, self.spoiling):
            asker.close()


async def _exchange(port: int, pieces: list[bytes]) -> bytes:
    """Write the pieces and read until the server closes or falls silent; return all bytes."""
    raw = await RawSocket.open(port)
    answer = b""
    try:
        with contextlib.suppress(TimeoutError):
            for piece in pieces:
                raw.writer.write(piece)
                async with asyncio.timeout(PATIENCE):
                    await raw.writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0)
            whole = len(pieces) == 1 and b"Connection: close" in pieces[0] and b"\r\n\r\n" in pieces[0]
            while True:
                async with asyncio.timeout(2 * PATIENCE if whole and not answer else QUIET):
                    part = await raw.reader.read(65_536)
                if not part:
                    break
                answer += part
    except ConnectionError:
        if not answer:
            raise
    finally:
        raw.abort()
    return answer


def _ask_by_description(rivals: Sequence[Rival], chance: Random, ending: threading.Event) -> None:
    """Test the operations in turn, in a thread, since schemathesis waits for its answers."""
    tally = rivals[0].tally
    schemas = [described("utf-8"), described("gb2312")]
    while not ending.is_set():
        shuffled = operations(chance.choice(schemas))
        chance.shuffle(shuffled)
        for operation in shuffled:
            if ending.is_set():
                break

            def seen(response: Response, label: str = operation.label) -> None:
                tally.count(label, str(response.status_code), response.elapsed)

            rival, mode = chance.choice(rivals), chance.choice(list(GenerationMode))
            slow = operation.definition.raw["operationId"] in SLOW
            number = chance.randrange(2**32)
            try:
                rival.asker.probe(operation, mode, examples=3 if slow else 25, seen=seen, number=number)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # any error is a finding
                what = "; ".join(map(str, getattr(error, "exceptions", [error])))
                tally.findings.report(f"{rival.name}: {operation.label} is not as described", what)


async def _fuzz(rivals: Sequence[Rival], strangers: Strangers, number: int, seconds: float, least: int) -> None:
    tally, operations, ending = rivals[0].tally, described_operations(), threading.Event()
    began = time.monotonic()

    def over() -> bool:
        return time.monotonic() > began + seconds and tally.total >= least

    async with AsyncExitStack() as stack:
        stack.callback(ending.set)  # also after Ctrl-C: a thread cannot be cancelled
        for rival in rivals:
            await stack.enter_async_context(Watch(rival.server, tally.findings))
        await strangers.meet()
        chatting = asyncio.create_task(strangers.chat())
        work = []
        for rival in rivals:
            chances = [Random(f"{number} {rival.name} {worker}") for worker in range(WORKERS)]
            work += [asyncio.create_task(rival.spoil(chance, operations, over)) for chance in chances]
            work.append(asyncio.create_task(rival.keep_signed_in(over)))
            work.append(asyncio.create_task(rival.warm_up(began + WARM_UP * seconds)))
        asking = asyncio.create_task(asyncio.to_thread(_ask_by_description, rivals, Random(number), ending))
        while (await asyncio.wait(work, timeout=TELL_EVERY))[1]:
            print(f"{time.monotonic() - began:6.0f} s  {tally.total:8} answers")
        ending.set()
        await asyncio.wait([asking])
        for each in (*work, asking):
            if each.exception():
                tally.findings.report("the fuzzer broke", repr(each.exception()))
        if chatting.done():
            tally.findings.report("the strangers could not go on", repr(chatting.exception()))
        await end(chatting)
        await strangers.part()


def fuzz(seconds: float, number: int, least: int = 0) -> tuple[Tally, list[str]]:
    """Run for so many seconds, and until there are `least` answers; return the findings and the servers' memory."""
    tally, lines, marker = Tally(), [], f"marker{secrets.token_hex(8)}"
    with embedded_databases() as private, ExitStack() as stack:
        rivals = []
        for name, flags, believes in (
            ("auto", [], True),
            ("token", ["--auth=token", f"--metrics-token={secrets.token_hex(8)}"], False),
        ):
            rivals.append(Rival(name, private.addresses, tally, flags, believes=believes))
            stack.callback(rivals[-1].server.kill)
            rivals[-1].server.ready()
        for rival in rivals:
            rival.move_in(marker)
        with mysql_connection(private.addresses.mysql) as connection, connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE `user` AUTO_INCREMENT = {UNGUESSABLE}")
        strangers = Strangers(rivals[0].server.port, marker, believes=True)
        stack.callback(strangers.close)
        for rival in rivals:
            rival.asker.peers = [user.user for user in (*strangers.users, rival.spoiling)]
        asyncio.run(_fuzz(rivals, strangers, number, seconds, least))
        for rival in rivals:
            memory = rival.memory
            rival.close()
            mib = f"{rival.warm / 2**20:9.0f} MiB after the warm-up, {memory / 2**20:.0f} MiB at the end"
            lines.append(f"  server {rival.name:23}{mib}, log lines: {dict(rival.log.levels) or 'none'}")
            if memory - rival.warm > MOST_GROWTH:
                tally.findings.report(f"{rival.name}: memory grows", lines[-1])
    return tally, lines


def main(argv: Sequence[str]) -> int:
    """Run the fuzzer and print the table; return 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long requests are made (default: 600)")
    parser.add_argument("--seed", type=int, help="to repeat a run's requests (default: a new one)")
    options = parser.parse_args(argv)
    number = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"seed {number}")
    tally, lines = fuzz(options.seconds, number)
    found = tally.findings
    lines += [
        f"  {'findings':30}{found.counted.total():9}",
        *(f"      {kind}: {n}" for kind, n in found.counted.items()),
    ]
    print("\n".join([f"seed {number}, {options.seconds:.0f} s", *tally.lines(), *lines, *found.examples]))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
