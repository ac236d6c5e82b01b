"""Send millions of frames, nearly valid and invalid, to a server on which two pairs of bystanders chat.

python -m tests.fuzz.frames --frames=2000000 [--seed=…]

It is a finding if the server dies, answers with 500, logs an error, closes with 1011 or fails its bystanders. So it is
if the server tells their secret to others, never answers a valid request, or keeps data of closed sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import uvloop

from storage.embedded.supervisor import Addresses
from tests.fuzz.arena import Arena
from tests.fuzz.bystanders import Bystanders
from tests.fuzz.mutator import Endpoint
from tests.fuzz.watch import PATIENCE, Findings, Log, Resources, Watch
from tests.support.database import make_users, mysql_connection
from tests.support.processes import ServerProcess, embedded_databases, external

__all__ = ["Outcome", "fuzz"]

USERS = 24  # users of the attackers
CONNECTIONS = 100  # concurrent connections
WARM_UP = 0.2  # the share of frames before the server's memory is first measured
GROWTH = 64 * 2**20  # bytes by which the server's memory may grow after the warm-up
POOLED = 48  # more open files than after the warm-up: connections to databases, opened on demand
OWN_CODES = (1000, 1001, 1002, 1007, 1008, 1009, 1011, 4008, 4010)
TELL_EVERY = 10.0  # seconds between two lines of progress
FLAGS = (
    "--auth=open",
    # Limits that would keep most frames from the parser.
    "--request-rate=1000000",
    "--request-burst=1000000",
    "--address-request-rate=1000000",
    "--address-request-burst=1000000",
    "--max-user-connections=100000",
    "--max-address-connections=100000",
    "--log-format=json",
)


@dataclass
class Outcome:
    """What a run did and found."""

    seed: int
    findings: Findings = field(default_factory=Findings)
    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    closes: Counter[int | str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    answered: int = 0  # valid requests with ids
    rounds: Sequence[int] = ()  # of the two pairs of bystanders
    seconds: float = 0.0
    before: Resources | None = None  # after the warm-up, without attackers
    after: Resources | None = None
    peak: int = 0  # bytes of memory
    slowest: float = 0.0  # seconds until an answer to a health request

    @property
    def frames(self) -> int:
        """The number of written frames."""
        return self.kinds.total()

    @property
    def _own_closes(self) -> Counter[int | str]:
        """Closes by code, without echoes of codes that only the client had chosen."""
        counted: Counter[int | str] = Counter()
        for code, number in self.closes.items():
            counted[code if isinstance(code, str) or code in OWN_CODES else "an echo of the client's"] += number
        return counted

    def table(self) -> str:
        """Return the outcome as a table."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        lines = [
            f"seed {self.seed}, {self.frames} frames on {self.connections} connections in {self.seconds:.1f} s, "
            f"{rate:.0f} frames/s",
            f"  {self.answered} good requests answered by id; bystanders' rounds: {self.rounds}; "
            f"slowest answer to a health request: {self.slowest:.2f} s",
        ]
        for title, held in (("after the warm-up", self.before), ("at the end", self.after)):
            if held is not None:
                lines.append(f"  {title:18} {held.rss / 2**20:8.1f} MiB, {held.files} files, {held.sockets} sockets")
        lines.append(f"  {'at most':18} {self.peak / 2**20:8.1f} MiB")
        parts: list[tuple[str, Mapping[Any, int]]] = [
            *(
                ("frames by kind", self.kinds),
                ("answers by code", self.answers),
                ("closes by close code", self._own_closes),
            ),
            *(("log lines by event", self.events), ("findings", self.findings.counted)),
        ]
        for title, counted in parts:
            lines.append(f"  {title}")
            lines += [f"    {key!s:46}{number:10}" for key, number in sorted(counted.items(), key=lambda e: -e[1])]
        return "\n".join([*lines, *self.findings.examples])


@contextmanager
def _server(addresses: Addresses, findings: Findings, marker: str, outcome: Outcome) -> Iterator[ServerProcess]:
    """Start a server process, and read its log; when it is told to end, its exit status must be 0."""
    server = ServerProcess(*external(addresses), *FLAGS)
    try:
        server.ready()
        assert server.process.stderr
        log = Log(server.process.stderr, findings, marker)
        yield server
        if server.process.poll() is None:
            server.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(PATIENCE)
            if server.process.returncode != 0:
                findings.report("the server did not end well", f"status {server.process.returncode}")
                server.process.kill()
        log.close()
        outcome.events = log.events
    finally:
        server.kill()


def _endpoints(users: Sequence[int], chance: Random) -> list[Endpoint]:
    """Return the users and their sockets: pairs in both protocols, inbox sockets, and some who write to any user."""
    endpoints = []
    for number, user in enumerate(users):
        friend, stranger = users[number ^ 1], chance.choice([other for other in users if other != user])
        endpoints += [
            Endpoint(user, friend, 1),
            Endpoint(user, friend, 2),
            Endpoint(user, None, 2),
            Endpoint(user, None, 2),
        ]
        endpoints.append(Endpoint(user, stranger, chance.choice((1, 2)), "en"))
    chance.shuffle(endpoints)
    return endpoints


def _nothing(line: str) -> None:
    """Drop a line of progress."""


async def fuzz(
    addresses: Addresses,
    frames: int,
    seed: int,
    *,
    connections: int = CONNECTIONS,
    tell: Callable[[str], None] = _nothing,
) -> Outcome:
    """Start a server on these databases, write so many frames, and judge."""
    chance = Random(seed)
    marker = secrets.token_hex(12)  # not from the seed, from which all written bytes follow
    outcome = Outcome(seed)
    findings = outcome.findings
    with _server(addresses, findings, marker, outcome) as server:
        with mysql_connection(addresses.mysql) as connection:
            users = make_users(connection, USERS + 4)
        attackers, bystanding = users[4:], users[:4]
        arena = Arena(server.port, _endpoints(attackers, chance), users, findings, marker, seed)
        outcome.kinds, outcome.answers, outcome.closes = arena.kinds, arena.answers, arena.closes
        async with (
            Watch(server, findings) as watch,
            Bystanders(server.port, bystanding, marker, findings) as bystanders,
        ):
            teller = asyncio.create_task(_keep_telling(arena, watch, tell))
            began = time.monotonic()
            await arena.run(int(frames * WARM_UP), connections)
            outcome.before = await watch.settled(bystanders.sockets)
            if outcome.before is not None:  # otherwise the run has failed already
                await arena.run(frames - arena.frames, connections)
            outcome.seconds = time.monotonic() - began
            teller.cancel()
            outcome.after = await watch.settled(bystanders.sockets)
            outcome.rounds = bystanders.rounds
            if not watch.lives:
                findings.report("the server has ended", f"status {server.process.returncode}")
        outcome.connections, outcome.answered = arena.opened, arena.answered
        outcome.peak, outcome.slowest = watch.peak, watch.slowest
    judge(outcome)
    return outcome


def judge(outcome: Outcome) -> None:
    """Compare the server's resources at the end with those after the warm-up."""
    before, after = outcome.before, outcome.after
    if before is None or after is None:
        return
    if after.rss - before.rss > GROWTH:
        outcome.findings.report("memory that was not given back", f"{before.rss} bytes, then {after.rss}")
    if after.files - before.files > POOLED:
        outcome.findings.report("files that stay open", f"{before.files}, then {after.files}")


async def _keep_telling(arena: Arena, watch: Watch, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY)
        tell(f"{arena.frames:9} frames  {arena.opened:6} connections  {watch.peak / 2**20:6.0f} MiB at most")


def main(argv: Sequence[str]) -> int:
    """Run the fuzzer and print the table; return 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.frames", description=__doc__)
    parser.add_argument("--frames", type=int, default=2_000_000, help="how many are written (default: 2000000)")
    parser.add_argument("--seed", type=int, help="to repeat a run's choice of frames (default: a new one)")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # which ends all processes
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with embedded_databases() as embedded:
        outcome = uvloop.run(fuzz(embedded.addresses, options.frames, seed, tell=print))
    print(outcome.table())
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
