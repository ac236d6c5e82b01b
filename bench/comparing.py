"""Scenarios that compare: the server and the yardsticks take turns under the same load, on the same databases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.load import sockets_of
from bench.scenario import PAIRS, Bench, flat_out
from tests.support.certificates import certificate

__all__ = ["YARDSTICKS", "compared", "tls"]

SERVER = "server"
YARDSTICKS = {
    "relay": ("relay",),
    "relay on uvloop": ("relay", "--uvloop"),
    "one by one": ("one-by-one",),
}


def compared(window: int | None = None) -> Callable[[Bench], Awaitable[None]]:
    """Measure each at full speed, with a window of messages for each writer; None is the options' window.

    The server's rate as a multiple of a yardstick's is taken within each repeat, so that a longer disturbance of the
    machine affects both.
    """

    async def run(bench: Bench) -> None:
        size = window or bench.options.window
        with ExitStack() as stack:
            loads = {SERVER: (await bench.pairs(PAIRS), bench.arena.processes)}
            for row, arguments in YARDSTICKS.items():
                port, processes = stack.enter_context(bench.arena.yardstick(*arguments))
                loads[row] = (await bench.pairs(PAIRS, port=port), processes)
            for _ in bench.repeats():
                rates = {}
                for row, (pairs, processes) in loads.items():
                    figures = await bench.stretch(row, sockets_of(pairs), flat_out(pairs, size), processes=processes)
                    rates[row] = figures["messages_per_s"]
                for row in YARDSTICKS:
                    bench.record(row, {"server_to_this": rates[SERVER] / max(rates[row], 1e-9)})
            for pairs, _ in loads.values():  # before a yardstick ends: that would ring the alarm
                for pair in pairs:
                    pair.close()

    return run


async def tls(bench: Bench) -> None:
    """Measure at full speed without TLS and under TLS, in turns, each on a server that was just started."""
    with TemporaryDirectory() as directory:
        pem = certificate(Path(directory), "localhost")
        for _ in bench.repeats():
            rates = []
            for row, files in (("plain", None), ("under TLS", pem)):
                bench.arena.restart(files)
                pairs = await bench.pairs(PAIRS)
                figures = await bench.stretch(row, sockets_of(pairs), flat_out(pairs, bench.options.window))
                rates.append(figures["messages_per_s"])
                for pair in pairs:
                    pair.close()
                await bench.arena.await_sockets(0)
            bench.record("under TLS", {"tls_to_plain": rates[1] / max(rates[0], 1e-9)})
