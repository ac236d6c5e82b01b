"""Scenarios of reading: history and resume at random seqs of many stored messages, while others chat."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from bench.alarm import UnexpectedError
from bench.filling import fill
from bench.load import PATIENCE, TICK, sockets_of
from bench.measuring import latencies_of
from bench.protocol_v2 import Asker
from bench.scenario import BESIDE, BESIDE_RATE, Bench, at_rate

__all__ = ["LONGER", "history_and_resume"]

FULL, FEW = 1_000_000, 100_000  # stored messages
QUICK = 10  # times fewer in a quick run
PAGE, RESUMED = 50, 100  # messages in an answer
REQUESTS = 100.0  # a second, history and resume in turns
ASKERS = 10  # sockets
LONGER = 4  # times as long as other measurements, to have enough requests for a percentile


def history_and_resume(stored: int) -> Callable[[Bench], Awaitable[None]]:
    """Return a scenario with so many messages stored, half of them in the conversation that is read."""

    async def run(bench: Bench) -> None:
        count = stored // QUICK if bench.options.quick else stored
        users = bench.arena.users(2 * (count // 1000 + 1))
        newest = fill(bench.arena.mongo, users, count, lambda done: bench.tell(f"filling: {done:,} of {count:,}"))
        pairs = await bench.pairs(BESIDE)
        one, two = users[:2]
        askers = [
            await bench.connect(Asker(f"/ws?uid={user}&toUid={peer}&v=2", bench.alarm, number))
            for number, (user, peer) in enumerate([(one, two), (two, one)] * (ASKERS // 2))
        ]
        chatting = sockets_of(pairs)
        chat = at_rate(pairs, BESIDE_RATE)
        for _ in bench.repeats():
            history, resume = array("d"), array("d")

            async def load(until: float, history: array[float] = history, resume: array[float] = resume) -> None:
                since = perf_counter() + bench.options.warm_up
                await asyncio.gather(chat(until), _ask(askers, newest, since, until, history, resume))

            await bench.stretch("chat beside", chatting, load, times=LONGER, shared=True)
            for row, latencies in (("history", history), ("resume", resume)):
                bench.record(row, {"requests": float(len(latencies)), **latencies_of("request", latencies)})

    return run


async def _ask(
    askers: Sequence[Asker], newest: int, since: float, until: float, history: array[float], resume: array[float]
) -> None:
    """Send requests evenly until a time; those before `since` warm up and are not counted.

    Raises UnexpectedError if an answer does not come.
    """
    chance = random.Random(2)  # noqa: S311  # seqs, no secrets
    begun, number = perf_counter(), 0
    while (now := perf_counter()) < until:
        while (intended := begun + number / REQUESTS) <= now:
            asker, kept = askers[number // 2 % len(askers)], intended >= since
            if number % 2:
                first = chance.randint(1, newest - RESUMED)  # at least one more follows
                asker.resume(first, RESUMED, intended, resume if kept else array("d"))
            else:
                first = chance.randint(1, newest - PAGE)
                asker.history(first, PAGE, intended, history if kept else array("d"))
            number += 1
        await asyncio.sleep(TICK)
    while left := sum(asker.waiting for asker in askers):
        if perf_counter() > until + PATIENCE:
            raise UnexpectedError(f"lost: {left} answers have not come for {PATIENCE:g} s")
        await asyncio.sleep(TICK)
