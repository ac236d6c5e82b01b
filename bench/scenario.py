"""What a scenario is, and what it is given: an arena, the run's options, and a place for its figures."""

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

PAIRS = 200  # where a scenario is not about how many there are
BESIDE, BESIDE_RATE = 50, 1000  # pairs that chat beside something else, and messages a second of these together

Load = Callable[[float], Awaitable[None]]  # goes on until a time of `perf_counter`
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
    """A scenario: what it is about, how many stretches a repeat has, and flags that its server needs besides."""

    about: str
    run: Callable[[Bench], Awaitable[None]]
    stretches: int = 1
    flags: Sequence[str] = ()


class Bench:
    """A scenario's surroundings. `progress` is told what is measured, and when a stretch is done."""

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
        """Counts the repeats."""
        yield from range(self.options.repeats)

    def tell(self, what: str) -> None:
        """Shows what is being done."""
        self._progress(what, 0)

    def done(self, what: str) -> None:
        """Shows that a stretch is done."""
        self._progress(what, 1)

    def record(self, row: str, figures: Mapping[str, float]) -> None:
        """Keeps the figures of a repeat."""
        for name, value in figures.items():
            if isnan(value):  # nothing of the kind was there to be measured
                continue
            self.rows.setdefault(row, {}).setdefault(name, []).append(value)

    async def pairs(self, count: int, *, port: int = 0, dialect: int = 1) -> list[Pair]:
        """So many pairs that have not chatted before, on the server or on another port. Raises UnexpectedError."""
        self.tell(f"opening {2 * count} sockets")
        pairs = await open_pairs(port or self.arena.port, self.arena.users(2 * count), self.alarm, dialect=dialect)
        self._connections += [socket for pair in pairs for socket in pair.sockets]
        return pairs

    async def connect(self, connection: C) -> C:
        """Opens another socket to the server. Raises UnexpectedError."""
        self._connections.append(await connect(self.arena.port, connection))
        return connection

    def close(self) -> None:
        """Hangs up whatever is open."""
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
        """Measures one stretch, `times` as long as the others, and records its figures. Raises UnexpectedError.

        `shared` says that the processes have other work besides these messages, which would be counted as theirs: no
        cost of a message is recorded then.
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
    """As fast as it goes: each writer keeps a window of messages on their way."""
    return partial(run_flat_out, [pair.writer for pair in pairs], window)


def at_rate(pairs: Sequence[Pair], rate: float) -> Load:
    """At a rate, in messages a second of all together."""
    return partial(run_at, [pair.writer for pair in pairs], rate)
