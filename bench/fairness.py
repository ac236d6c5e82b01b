"""The scenario of fairness: what a user who floods the server costs other users."""

from __future__ import annotations

import asyncio
from time import perf_counter

from bench.alarm import Alarm
from bench.load import run_flat_out, settle, sockets_of
from bench.scenario import BESIDE, BESIDE_RATE, Bench, Load, at_rate
from bench.sockets import SHOWN, Connection
from bench.wire import PING, PONG, Frames, client_frame

__all__ = ["flood"]

WINDOW = 64  # messages in flight of the user who floods
TYPING_AND_PING = client_frame(b'{"type":5}') + client_frame(b"", PING)


class Nuisance(Connection):
    """A socket of protocol v2 that sends typing frames and pings as fast as they are answered."""

    def __init__(self, path: str, alarm: Alarm) -> None:
        super().__init__(path, alarm)
        self._frames = Frames()
        self.pongs = 0
        self.flooding = False

    def begin(self, window: int) -> None:
        """Keep so many of both in flight."""
        self.flooding = True
        self._transport.write(TYPING_AND_PING * window)

    def _read(self, data: bytes) -> None:
        pongs = 0
        for first, payload in self._frames.feed(data):
            if first == PONG:
                pongs += 1
            elif first == PING:
                self._pong(payload)
            else:
                self.fail(f"got {payload[:SHOWN]!r}")
        self.pongs += pongs
        if self.flooding and pongs:
            self._transport.write(TYPING_AND_PING * pongs)


async def flood(bench: Bench) -> None:
    """Pairs chat at a rate: alone, beside a user who floods messages, and beside one who floods pings and typing."""
    pairs = await bench.pairs(BESIDE)
    (flooder,) = await bench.pairs(1)
    one, two = bench.arena.users(2)
    nuisance = await bench.connect(Nuisance(f"/ws?uid={one}&toUid={two}&v=2", bench.alarm))
    chatting = sockets_of(pairs)
    chat = at_rate(pairs, BESIDE_RATE)

    async def messages(until: float) -> None:
        before, begun = flooder.writer.acknowledged, perf_counter()
        await asyncio.gather(chat(until), run_flat_out([flooder.writer], WINDOW, until))
        rate = (flooder.writer.acknowledged - before) / (perf_counter() - begun)
        bench.record("beside messages", {"flooded_per_s": rate})

    async def pings(until: float) -> None:
        before, begun = nuisance.pongs, perf_counter()
        nuisance.begin(WINDOW)
        try:
            await chat(until)
        finally:
            nuisance.flooding = False
        rate = (nuisance.pongs - before) / (perf_counter() - begun)  # of pings; typing frames are as many
        bench.record("beside pings and typing", {"flooded_per_s": rate})

    floods: dict[str, Load] = {"beside messages": messages, "beside pings and typing": pings}
    for _ in bench.repeats():
        alone = await bench.stretch("alone", chatting, chat)
        for row, load in floods.items():
            figures = await bench.stretch(row, chatting, load, shared=True)
            await settle(flooder.sockets)
            for kind in ("ack", "peer"):
                name = f"{kind}_p99_ms"
                bench.record(row, {f"{kind}_p99_to_alone": figures[name] / alone[name]})
