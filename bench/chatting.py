"""Scenarios of chatting: one pair or many, at full speed or at a fixed rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter, time
from typing import Any

import pymongo
from pymongo import MongoClient, WriteConcern
from redis import Redis

from bench.filling import KEPT, document
from bench.load import Pair, sockets_of
from bench.measuring import percentile
from bench.scenario import PAIRS, Bench, at_rate, flat_out
from bench.verdicts import RATE
from bench.wire import CONTENT

__all__ = [
    "HALF_RATE",
    "MAX_IN_FLIGHT",
    "PIPELINE",
    "as_fast_as_it_goes",
    "at_a_rate",
    "at_half_the_rate",
    "offline",
    "ping_pong",
    "pipelining",
    "protocol_v2",
]

ALONE = 300  # round trips to each database alone, before and after each measurement
MAX_IN_FLIGHT = 10_000  # messages of all pairs together: more would only wait longer
HALF_RATE = RATE / 2  # messages a second: the targets for latency are for half of the target rate
PIPELINE = 64  # messages in flight; the server reads no more of a socket before it has answered some


def as_fast_as_it_goes(pairs: int) -> Callable[[Bench], Awaitable[None]]:
    """Return a scenario in which so many pairs keep a window of messages in flight, smaller for many pairs."""

    async def run(bench: Bench) -> None:
        await _flat_out(bench, pairs, max(1, min(bench.options.window, MAX_IN_FLIGHT // pairs)))

    return run


async def pipelining(bench: Bench) -> None:
    """Keep many messages of one socket in flight."""
    await _flat_out(bench, 1, PIPELINE)


async def protocol_v2(bench: Bench) -> None:
    """Chat in pairs in protocol v2: with ids, and every `seq` checked."""
    await _flat_out(bench, PAIRS, bench.options.window, version=2)


async def _flat_out(bench: Bench, count: int, window: int, *, version: int = 1) -> None:
    pairs = await bench.pairs(count, version=version)
    for _ in bench.repeats():
        await bench.stretch("server", sockets_of(pairs), flat_out(pairs, window))


def at_a_rate(pairs: int) -> Callable[[Bench], Awaitable[None]]:
    """Return a scenario in which so many pairs together send messages at the rate of the options."""

    async def run(bench: Bench) -> None:
        chatting = await bench.pairs(pairs)
        for _ in bench.repeats():
            await bench.stretch("server", sockets_of(chatting), at_rate(chatting, bench.options.rate))

    return run


async def at_half_the_rate(bench: Bench) -> None:
    """Send at half of the target's rate, then at full speed, then at half of the rate that this reached."""
    pairs = await bench.pairs(PAIRS)
    sockets = sockets_of(pairs)
    for _ in bench.repeats():
        await bench.stretch("half-rate", sockets, at_rate(pairs, HALF_RATE))
        reached = await bench.stretch("flat out", sockets, flat_out(pairs, bench.options.window))
        await bench.stretch("half-reached", sockets, at_rate(pairs, reached["messages_per_s"] / 2))


async def offline(bench: Bench) -> None:
    """Send at full speed while half of the peers are offline."""
    pairs = await bench.pairs(PAIRS)
    gone = pairs[::2]
    for pair in gone:
        pair.leave()
    await bench.arena.await_sockets(2 * len(pairs) - len(gone))
    for pair in gone:
        pair.offline()
    for _ in bench.repeats():
        await bench.stretch("server", sockets_of(pairs), flat_out(pairs, bench.options.window))


async def ping_pong(bench: Bench) -> None:
    """Let one pair send one message at a time, in turns; beside it measure the databases alone."""
    pairs = await bench.pairs(1)
    with Redis.from_url(bench.arena.redis) as redis, MongoClient[dict[str, Any]](bench.arena.mongo) as mongo:
        insert = _inserting(mongo)
        for number in bench.repeats():
            bench.tell("the databases alone")
            before = _took_ms(lambda _: redis.get("bench:alone")), _took_ms(partial(insert, 2 * number))
            figures = await bench.stretch("server", pairs[0].sockets, partial(_volley, pairs[0]))
            after = _took_ms(lambda _: redis.get("bench:alone")), _took_ms(partial(insert, 2 * number + 1))
            trip, stored = (percentile([*one, *two], 50) for one, two in zip(before, after, strict=True))
            bench.record("redis alone", {"trip_p50_ms": trip})
            bench.record("mongod alone", {"insert_p50_ms": stored})
            for kind in ("ack", "peer"):
                bench.record("server", {f"{kind}_to_engines_alone": figures[f"{kind}_p50_ms"] / (trip + stored)})


async def _volley(pair: Pair, until: float) -> None:
    """Let each user answer when the other's message has arrived and is acknowledged."""
    over = asyncio.get_running_loop().create_future()
    one, two = pair.sockets

    def on() -> None:
        nonlocal one, two
        if one.unacknowledged.count or one.undelivered.count or over.done():
            return
        now = perf_counter()
        if now >= until:
            over.set_result(None)
            return
        one, two = two, one
        one.send_now(1, now)

    for socket in pair.sockets:
        socket.progressed = on
    on()
    try:
        await over
    finally:
        for socket in pair.sockets:
            socket.progressed = None


def _inserting(mongo: MongoClient[dict[str, Any]]) -> Callable[[int, int], object]:
    """Insert documents like the server's, as durably, into a separate collection with the same indexes."""
    database = mongo.get_database("bench_alone")
    database.create_collection("messages", clusteredIndex={"key": {"_id": 1}, "unique": True})
    messages = database.get_collection("messages", write_concern=WriteConcern(w="majority", j=True))
    messages.create_index([("conversation", pymongo.ASCENDING), ("key", pymongo.ASCENDING)], unique=True)
    messages.create_index("endTime", expireAfterSeconds=86_400)

    def insert(turn: int, number: int) -> object:
        seq = turn * ALONE + number + 1
        key, gone = seq.to_bytes(16, "big"), datetime.now(UTC) + KEPT
        return messages.insert_one(document("1-2", seq, 1, "x" * CONTENT, key, int(time() * 1000), gone))

    return insert


def _took_ms(trip: Callable[[int], object]) -> list[float]:
    """Return how long each of many round trips takes."""
    took = []
    for number in range(ALONE):
        begun = perf_counter()
        trip(number)
        took.append(1000 * (perf_counter() - begun))
    return took
