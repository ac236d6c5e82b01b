"""Measure how much many sign-ins delay messages: `python -m bench.sign_ins`.

It has a server and databases of its own. Pairs of users write at a fixed rate. Each message is timed from the moment at
which it should have been sent to its acknowledgement, so a stall counts for all messages that it delays. Measurements
with and without sign-ins take turns; half of the sign-ins have the right password, the others a wrong one. `--busy`
adds processes that only use the CPU, as on a machine that is shared.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import bcrypt
from tornado.httpclient import AsyncHTTPClient
from tornado.simple_httpclient import HTTPTimeoutError

from bench.measuring import PERCENTILES, percentile
from models.protocol.v1 import Code
from tests.support.database import mysql_connection
from tests.support.processes import ServerProcess, embedded_databases, external
from tests.support.sockets import Client

GIVEN_UP_AFTER = 60.0  # seconds
UNANSWERED = 0  # counted as a status
PASSWORD = "correct horse battery"  # noqa: S105  # of the bench's own users, no secret


async def chat(port: int, pair: tuple[int, int], rate: float, until: float, delays: list[float]) -> None:
    """Let one user write to another at `rate` messages a second until a time; return the delays in milliseconds."""
    one, two = [await Client.open(port, user, peer) for user, peer in (pair, pair[::-1])]
    for client in (one, two):
        await client.receive(Code.SUCCESS)
    await two.say("so that the limit rule is open", Code.ONLINE)
    await one.receive(Code.MESSAGE)
    due: collections.deque[float] = collections.deque()
    reading = asyncio.ensure_future(_read(one, due, delays))
    draining = asyncio.ensure_future(two.closed())
    begun, number = time.perf_counter(), 0
    while (now := time.perf_counter()) < until:
        number += 1
        intended = begun + number / rate
        await asyncio.sleep(max(0.0, intended - now))
        due.append(intended)
        await one.send(1, f"message {number} {'x' * 60}")
    while due:
        await asyncio.sleep(0.01)
    one.close()
    two.close()
    await asyncio.gather(reading, draining)


async def _read(client: Client, due: collections.deque[float], delays: list[float]) -> None:
    while (frame := await client.read()) is not None:
        if '"code":50004' not in frame:
            raise RuntimeError(f"not acknowledged: {frame!r}")
        delays.append((time.perf_counter() - due.popleft()) * 1000)


async def sign_in(
    port: int,
    names: Sequence[str],
    rate: float,
    until: float,
    outcomes: collections.Counter[int],
    durations: list[float],
) -> None:
    """Sign in `rate` times a second until a time."""
    client = AsyncHTTPClient(force_instance=True, max_clients=1000)
    asked: set[asyncio.Future[None]] = set()

    async def once(number: int) -> None:
        password = PASSWORD if number % 2 else "a wrong password"
        asked_at = time.perf_counter()
        try:
            answer = await client.fetch(
                f"http://127.0.0.1:{port}/user/login",
                method="POST",
                headers={"Content-Type": "application/json"},
                body=json.dumps({"user_name": names[number % len(names)], "password": password}),
                raise_error=False,
                request_timeout=GIVEN_UP_AFTER,
            )
        except HTTPTimeoutError:
            outcomes[UNANSWERED] += 1
            return
        outcomes[answer.code] += 1
        if answer.code != 503:
            durations.append((time.perf_counter() - asked_at) * 1000)

    begun, number = time.perf_counter(), 0
    while (now := time.perf_counter()) < until:
        number += 1
        await asyncio.sleep(max(0.0, begun + number / rate - now))
        task = asyncio.ensure_future(once(number))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    client.close()


async def stretch(
    port: int, pairs: list[tuple[int, int]], names: list[str], options: argparse.Namespace, *, storm: bool
) -> tuple[list[float], collections.Counter[int], list[float]]:
    """Measure chatting once, with or without sign-ins.

    Returns the delays of messages in milliseconds, sign-ins by HTTP status, and the seconds of those that were not
    refused.
    """
    durations: list[float] = []
    delays: list[float] = []
    outcomes: collections.Counter[int] = collections.Counter()
    until = time.perf_counter() + options.seconds
    work = [chat(port, pair, options.rate / len(pairs), until, delays) for pair in pairs]
    if storm:
        work.append(sign_in(port, names, options.sign_ins, until, outcomes, durations))
    await asyncio.gather(*work)
    return delays, outcomes, durations


async def measure(port: int, pairs: list[tuple[int, int]], names: list[str], options: argparse.Namespace) -> None:
    """Measure with and without sign-ins in turns, and print the results."""
    found: dict[bool, list[list[float]]] = {False: [], True: []}
    outcomes: collections.Counter[int] = collections.Counter()
    took: list[float] = []
    await stretch(port, pairs, names, argparse.Namespace(**vars(options) | {"seconds": 3}), storm=False)  # warm up
    for _ in range(options.turns):
        for storm in (False, True):
            delays, signed_in, durations = await stretch(port, pairs, names, options, storm=storm)
            found[storm].append(delays)
            outcomes += signed_in
            took += durations
    print(
        f"{len(pairs)} pairs, {options.rate:g} messages a second; {options.turns} turns of {options.seconds:g} s each"
    )
    print(f"{'':28}{'messages':>9}" + "".join(f"{f'p{p:g} ms':>10}" for p in PERCENTILES))
    for storm, turns in found.items():
        name = f"with {options.sign_ins:g} sign-ins a second" if storm else "without sign-ins"
        points = [[percentile(delays, p) for p in PERCENTILES] for delays in turns]
        medians = [statistics.median(column) for column in zip(*points, strict=True)]
        print(f"{name:28}{sum(map(len, turns)):9}" + "".join(f"{value:10.1f}" for value in medians))
        print(f"{'  of the worst turn':37}" + "".join(f"{max(column):10.1f}" for column in zip(*points, strict=True)))
    if took:
        answered = "".join(f"{percentile(took, p):10.0f}" for p in PERCENTILES)
        print(f"{'sign-ins that were answered':28}{len(took):9}{answered}")
    counts = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(outcomes.items()))
    print(f"sign-ins by HTTP status: {counts}")


def main(argv: Sequence[str]) -> None:
    """Start databases and a server, and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.sign_ins", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50, metavar="N", help="pairs that write (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=500, metavar="N", help="messages a second (default: %(default)s)")
    parser.add_argument(
        "--sign-ins", type=float, default=50, metavar="N", help="sign-ins a second (default: %(default)s)"
    )
    parser.add_argument(
        "--busy", type=int, default=0, metavar="N", help="processes that only use the CPU (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="duration of each measurement (default: %(default)s)")
    parser.add_argument(
        "--turns",
        type=int,
        default=3,
        metavar="N",
        help="measurements with sign-ins, and without (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    with embedded_databases() as embedded:
        server = ServerProcess(
            *external(embedded.addresses),
            "--auth=open",
            "--sign-ins-per-address=1000000",
            "--sign-ins-per-account=1000000",
            "--log-level=warning",
        )
        try:
            port = server.ready()
            digest = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()
            names = [f"bench{number}" for number in range(2 * options.pairs)]
            with mysql_connection(embedded.addresses.mysql) as connection, connection.cursor() as cursor:
                ids = []
                for name in names:
                    cursor.execute(
                        "INSERT INTO `user` (created_at, updated_at, user_name, password_digest, status) "
                        "VALUES (NOW(), NOW(), %s, %s, 'active')",
                        (name, digest),
                    )
                    ids.append(int(cursor.lastrowid))
            with _kept_busy(options.busy):
                asyncio.run(measure(port, list(zip(ids[::2], ids[1::2], strict=True)), names, options))
        finally:
            server.end()


@contextmanager
def _kept_busy(count: int) -> Iterator[None]:
    """Run processes that use the CPU as long as the context lasts."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
