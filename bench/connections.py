"""Scenarios of connections: opening them at full speed, and holding many idle ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter

import psutil

from bench.comparing import YARDSTICKS
from bench.load import sockets_of
from bench.measuring import Figures, processor_time, undisturbed
from bench.opening import hang_up, hold, open_all, release
from bench.scenario import BESIDE, BESIDE_RATE, Bench, at_rate
from bench.wire import handshake

__all__ = ["connecting", "idle"]

AT_A_TIME = 64
SOCKETS = 3000
REST = 1.0  # seconds for work after closing, such as unsubscribing
IDLE, IDLE_QUICK = 15_000, 3000
RELAY = "relay on uvloop"  # of the yardsticks


async def connecting(bench: Bench) -> None:
    """Open sockets of users whose look-ups are cached, a number of them at a time; do the same with the relay."""
    arena = bench.arena
    handshakes = _handshakes(arena.users(SOCKETS))
    with arena.yardstick(*YARDSTICKS[RELAY]) as (port, processes):
        bench.tell("looking the users up")
        servers = {"server": (arena.port, arena.processes), RELAY: (port, processes)}
        for to, _ in servers.values():
            hang_up(open_all(to, handshakes, AT_A_TIME))
        for _ in bench.repeats():
            for row, (to, theirs) in servers.items():
                for other, _ in servers.values():
                    await arena.await_sockets(0, port=other)
                await asyncio.sleep(REST)
                bench.tell(row)
                bench.record(row, _opened(to, handshakes, theirs))
                bench.done(row)


def _opened(port: int, handshakes: Sequence[bytes], processes: Mapping[str, psutil.Process]) -> Figures:
    """Open a socket with each handshake and close them; return the rate and the cost."""
    with undisturbed():
        before, begun = processor_time(processes), perf_counter()
        sockets = open_all(port, handshakes, AT_A_TIME)
        took, after = perf_counter() - begun, processor_time(processes)
    hang_up(sockets)
    figures = {"connections_per_s": len(sockets) / took}
    for name, seconds in after.items():
        figures[f"{name}_cores"] = (seconds - before[name]) / took
        if name in ("server", "load"):
            figures[f"{name}_us_per_connection"] = 1e6 * (seconds - before[name]) / len(sockets)
    return figures


async def idle(bench: Bench) -> None:
    """Measure the memory of idle connections on a fresh server, and the latencies of users beside them."""
    arena = bench.arena
    count = IDLE_QUICK if bench.options.quick else IDLE
    users = arena.users(2 * count)
    handshakes = [handshake(f"/ws?uid={one}&toUid={two}") for one, two in zip(users[::2], users[1::2], strict=True)]
    for repeat in bench.repeats():
        if repeat:  # a server that held as many before would need less memory
            await arena.await_sockets(0)
            arena.restart()
        pairs = await bench.pairs(BESIDE)
        chatting = sockets_of(pairs)
        # Chatting takes memory too, so it comes first.
        await bench.stretch("without idle sockets", chatting, at_rate(pairs, BESIDE_RATE))
        before = arena.processes["server"].memory_full_info()
        bench.tell(f"opening {count} idle sockets")
        sockets = open_all(arena.port, handshakes, AT_A_TIME)
        try:
            hold(sockets, bench.alarm)
            await arena.await_sockets(len(sockets) + len(chatting))
            after = arena.processes["server"].memory_full_info()
            bench.record(
                "with idle sockets",
                {
                    "idle_sockets": float(len(sockets)),
                    "bytes_per_idle_socket": (after.rss - before.rss) / len(sockets),
                    "unshared_bytes_per_idle_socket": (after.uss - before.uss) / len(sockets),
                    "server_memory_mb": after.rss / 1e6,
                },
            )
            await bench.stretch("with idle sockets", chatting, at_rate(pairs, BESIDE_RATE))
        finally:
            release(sockets)
            for pair in pairs:
                pair.close()


def _handshakes(users: Sequence[int]) -> list[bytes]:
    """Return the handshakes of pairs, for both users of each."""
    return [
        handshake(f"/ws?uid={user}&toUid={peer}")
        for one, two in zip(users[::2], users[1::2], strict=True)
        for user, peer in ((one, two), (two, one))
    ]
