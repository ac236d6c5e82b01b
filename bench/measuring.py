"""Measure a load: messages, latencies, and the CPU time of each process."""

from __future__ import annotations

import asyncio
import gc
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

import psutil

from bench.load import settle
from bench.sockets import Talker

__all__ = ["PERCENTILES", "Figures", "latencies_of", "measured", "percentile", "processor_time", "undisturbed"]

Figures = dict[str, float]  # by name, with the unit in the name
PERCENTILES = (50.0, 99.0, 99.9)
IDLE = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in user's, too
OTHERS = "others"  # all other processes of this machine, and the hypervisor


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many percent lie; NaN if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def latencies_of(name: str, seconds: Sequence[float]) -> Figures:
    """Return the percentiles of latencies, in milliseconds."""
    return {f"{name}_p{percent:g}_ms": 1000 * percentile(seconds, percent) for percent in PERCENTILES}


def processor_time(processes: Mapping[str, psutil.Process]) -> Figures:
    """Return the seconds of CPU time that each process has used, and all others together."""
    used = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
    everything = psutil.cpu_times()._asdict()
    busy = sum(seconds for kind, seconds in everything.items() if kind not in IDLE)
    return used | {OTHERS: busy - sum(used.values())}


@contextmanager
def undisturbed() -> Iterator[None]:
    """Disable the load generator's garbage collection, whose pauses would be counted as the server's latencies."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def measured(
    sockets: Sequence[Talker],
    processes: Mapping[str, psutil.Process],
    load: Callable[[float], Awaitable[None]],
    *,
    warm_up: float,
    seconds: float,
) -> Figures:
    """Return the figures of a load that runs until a time of `perf_counter`, after all its messages have arrived.

    Raises UnexpectedError if they have not.
    """
    running: asyncio.Future[None] | None = None
    with undisturbed():
        try:
            running = asyncio.ensure_future(load(perf_counter() + warm_up + seconds))
            await asyncio.sleep(warm_up)
            for socket in sockets:
                socket.unacknowledged.latencies, socket.undelivered.latencies = array("d"), array("d")
                socket.late = array("d")
                socket.measuring = True
            before, used, since = _acknowledged(sockets), processor_time(processes), perf_counter()
            await running
            count, now = _acknowledged(sockets) - before, processor_time(processes)
            lasted = perf_counter() - since
            await settle(sockets)
        finally:
            if running is not None:
                running.cancel()
            for socket in sockets:
                socket.measuring = False
    figures = {"messages_per_s": count / lasted, "messages": float(count)}
    figures |= latencies_of("ack", _joined(socket.unacknowledged.latencies for socket in sockets))
    figures |= latencies_of("peer", _joined(socket.undelivered.latencies for socket in sockets))
    if late := _joined(socket.late for socket in sockets):
        figures |= latencies_of("late", late)
    for name, seconds_used in now.items():
        spent = max(0.0, seconds_used - used[name])  # the kernel counts the total differently from each process
        figures[f"{name}_cores"] = spent / lasted
        if name != OTHERS:
            figures[f"{name}_us_per_message"] = 1e6 * spent / max(1, count)
    return figures


def _acknowledged(sockets: Sequence[Talker]) -> int:
    return sum(socket.acknowledged for socket in sockets)


def _joined(parts: Iterable[array[float]]) -> list[float]:
    return [value for part in parts for value in part]
