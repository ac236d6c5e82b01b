"""What a scenario is, and what it gets: an arena, the run's options, and an object that records its figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isnan
from typing import NamedTuple, TypeVar

import psutil

from bench.alarm import Alarm
from bench.arena import Arena
from bench.load import Pair, connect, open_pairs, run_at, run_flat_out
from bench.measuring import Figures, measured
from bench.sockets import Connection, Talker

__all__ = ["BESIDE", "BESIDE_RATE", "PAIRS", "Bench", "Load", "Options", "Rows", "Scenario", "at_rate", "flat_out"]

PAIRS = 200  # in scenarios that do not vary their number
BESIDE, BESIDE_RATE = 50, 1000  # pairs that chat beside another load, and their messages a second together

Load = Callable[[float], Awaitable[None]]  # runs until a time of `perf_counter`
C = TypeVar("C", bound=Connection)
Rows = dict[str, dict[str, list[float]]]  # by row and figure: one value for each repeat


class Options(NamedTuple):
    """How a run measures. Times in seconds, rates in messages a second, `window` in messages."""

    seconds: float
    warm_up: float
    repeats: int
    window: int
    rate: float
    quick: bool


class Scenario(NamedTuple):
    """A scenario: its description, the number of measurements in a repeat, and additional flags of its server."""

    about: str
    run: Callable[[Bench], Awaitable[None]]
    stretches: int = 1
    flags: Sequence[str] = ()


class Bench:
    """A scenario's surroundings. `progress` gets what is measured, and when a measurement is done."""

    def __init__(
        self, options: Options, arena: Arena, alarm: Alarm, progress: Callable[[str, int], None] = lambda *_: None
    ) -> None:
        self.options = options
        self.arena = arena
        self.alarm = alarm
        self.rows: Rows = {}
        self._progress = progress
        self._connections: list[Connection] = []

    def repeats(self) -> Iterator[int]:
        """Count the repeats."""
        yield from range(self.options.repeats)

    def tell(self, what: str) -> None:
        """Show what is being done."""
        self._progress(what, 0)

    def done(self, what: str) -> None:
        """Show that a measurement is done."""
        self._progress(what, 1)

    def record(self, row: str, figures: Mapping[str, float]) -> None:
        """Keep the figures of a repeat."""
        for name, value in figures.items():
            if isnan(value):  # there was nothing to measure
                continue
            self.rows.setdefault(row, {}).setdefault(name, []).append(value)

    async def pairs(self, count: int, *, port: int = 0, version: int = 1) -> list[Pair]:
        """Return so many new pairs, on the server or on another port. Raises UnexpectedError."""
        self.tell(f"opening {2 * count} sockets")
        users, tls = self.arena.users(2 * count), None if port else self.arena.tls
        pairs = await open_pairs(port or self.arena.port, users, self.alarm, version=version, tls=tls)
        self._connections += [socket for pair in pairs for socket in pair.sockets]
        return pairs

    async def connect(self, connection: C) -> C:
        """Open another socket to the server. Raises UnexpectedError."""
        self._connections.append(await connect(self.arena.port, connection, self.arena.tls))
        return connection

    def close(self) -> None:
        """Close all open sockets."""
        for connection in self._connections:
            if not connection.closing:
                connection.close()

    async def stretch(
        self,
        row: str,
        sockets: Sequence[Talker],
        load: Load,
        *,
        processes: Mapping[str, psutil.Process] | None = None,
        times: float = 1,
        shared: bool = False,
    ) -> Figures:
        """Measure once, `times` as long as usual, and record the figures. Raises UnexpectedError.

        `shared` says that the processes have other work besides these messages. It would be counted as theirs, so no
        cost of a message is recorded.
        """
        self.tell(row)
        figures = await measured(
            sockets,
            self.arena.processes if processes is None else processes,
            load,
            warm_up=self.options.warm_up,
            seconds=self.options.seconds * times,
        )
        if shared:
            figures = {name: value for name, value in figures.items() if not name.endswith("_us_per_message")}
        self.record(row, figures)
        self.done(row)
        return figures


def flat_out(pairs: Sequence[Pair], window: int) -> Load:
    """Return a load in which each writer keeps a window of messages in flight."""
    return partial(run_flat_out, [pair.writer for pair in pairs], window)


def at_rate(pairs: Sequence[Pair], rate: float) -> Load:
    """Return a load at a rate, in messages a second of all writers together."""
    return partial(run_at, [pair.writer for pair in pairs], rate)
