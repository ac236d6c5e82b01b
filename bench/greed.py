"""The scenario of greed: what an account with many expensive requests costs other users."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from time import perf_counter, time
from typing import Any

from pymongo import MongoClient

from bench.alarm import Alarm, UnexpectedError
from bench.filling import DATABASE, KEPT, TEXT, document
from bench.load import sockets_of
from bench.scenario import BESIDE, BESIDE_RATE, Bench, Load, at_rate
from bench.sockets import SHOWN, Connection
from bench.wire import PING, Frames, client_frame
from common.tasks import end
from models.records import conversation_of
from tests.support.sockets import RawSocket

__all__ = ["greed"]

TOGETHER = 50  # concurrent requests
CONVERSATIONS = 100  # in a list, the maximum of an answer
FEW_MESSAGES = 10  # in each of them, all unread
PEERS = 200  # in a resume, the maximum
FIRST_UNKNOWN = 10**12  # an id that no user has


class Resumer(Connection):
    """An inbox socket that resumes peers, who need not exist, again as soon as it is answered."""

    def __init__(self, path: str, alarm: Alarm, number: int) -> None:
        super().__init__(path, alarm)
        self._frames = Frames()
        first = FIRST_UNKNOWN + number * PEERS
        after = ",".join(f'"{peer}":0' for peer in range(first, first + PEERS))
        self._request = client_frame(b'{"type":6,"id":"r","after":{%b}}' % after.encode())
        self.answered = 0
        self.going_on = False

    def begin(self) -> None:
        """Send the first requests, and another one after each answer."""
        self.going_on = True
        self._transport.write(self._request)

    def _read(self, data: bytes) -> None:
        for first, payload in self._frames.feed(data):
            if first == PING:
                self._pong(payload)
            elif b'"messages":[]' not in payload:
                self.fail(f"got {payload[:SHOWN]!r}")
            else:
                self.answered += 1
                if self.going_on:
                    self._transport.write(self._request)


class Lister:
    """A connection that requests a list again as soon as it is answered."""

    def __init__(self, port: int, user: int, alarm: Alarm) -> None:
        self._port = port
        self._alarm = alarm
        self._path = f"/conversations?uid={user}&limit={CONVERSATIONS}"
        self.answered = 0

    async def run(self) -> None:
        """Send requests forever. Rings the alarm if an answer is not a list."""
        raw = await RawSocket.open(self._port)
        try:
            while True:
                status, body = await raw.request(self._path)
                if status != 200 or body.count(b'"peer":') != CONVERSATIONS:
                    self._alarm.ring(UnexpectedError(f"a list: {status} {body[:SHOWN]!r}"))
                    return
                self.answered += 1
        finally:
            raw.abort()


async def greed(bench: Bench) -> None:
    """Pairs chat at a rate: alone, beside lists, and beside resumes of one account."""
    pairs = await bench.pairs(BESIDE)
    user, *peers = bench.arena.users(CONVERSATIONS + 1)
    _fill(bench.arena.mongo, user, peers)
    chatting = sockets_of(pairs)
    chat = at_rate(pairs, BESIDE_RATE)
    listers = [Lister(bench.arena.port, user, bench.alarm) for _ in range(TOGETHER)]
    path = f"/ws?uid={bench.arena.users(1)[0]}&v=2"
    resumers = [await bench.connect(Resumer(path, bench.alarm, number)) for number in range(TOGETHER)]

    async def lists(until: float) -> None:
        before, begun = sum(each.answered for each in listers), perf_counter()
        tasks = [asyncio.create_task(each.run()) for each in listers]
        try:
            await chat(until)
        finally:
            await end(*tasks)
        rate = (sum(each.answered for each in listers) - before) / (perf_counter() - begun)
        bench.record("beside lists", {"lists_per_s": rate})

    async def resumes(until: float) -> None:
        before, begun = sum(each.answered for each in resumers), perf_counter()
        for each in resumers:
            each.begin()
        try:
            await chat(until)
        finally:
            for each in resumers:
                each.going_on = False
        rate = (sum(each.answered for each in resumers) - before) / (perf_counter() - begun)
        bench.record("beside resumes", {"resumes_per_s": rate})

    greeds: dict[str, Load] = {"beside lists": lists, "beside resumes": resumes}
    for _ in bench.repeats():
        alone = await bench.stretch("alone", chatting, chat)
        for row, load in greeds.items():
            figures = await bench.stretch(row, chatting, load, shared=True)
            for name in ("ack_p50_ms", "ack_p99_ms", "peer_p50_ms", "peer_p99_ms"):
                bench.record(row, {f"{name.removesuffix('_ms')}_to_alone": figures[name] / alone[name]})


def _fill(url: str, user: int, peers: Sequence[int]) -> None:
    """Store some messages of each peer to the user."""
    now, gone, keys = int(time() * 1000), datetime.now(UTC) + KEPT, count(1)
    conversations: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for position, peer in enumerate(peers):
        name = conversation_of(user, peer)
        conversations.append({"_id": name, "reserved": 1000, "base": 0, "based": now, "users": [user, peer]})
        for seq in range(1, FEW_MESSAGES + 1):
            key = next(keys).to_bytes(16, "big")
            messages.append(document(name, seq, peer, TEXT, key, now - 1000 * position, gone))
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_database(DATABASE)
        database.conversations.insert_many(conversations)
        database.messages.insert_many(messages)
