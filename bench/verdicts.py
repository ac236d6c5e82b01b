"""The targets of the server, and whether they were met."""

from __future__ import annotations

from typing import NamedTuple

from bench.results import Result, Spread, number

__all__ = ["RATE", "TARGETS", "Target", "Verdict", "verdicts"]

RATE = 20_000  # messages a second: the target


class Target(NamedTuple):
    """A bound on one figure: at least `bound`, or at most."""

    text: str
    scenario: str
    row: str
    figure: str
    bound: float
    at_least: bool = False

    @property
    def bounded(self) -> str:
        """The bound as text."""
        return f"{'≥' if self.at_least else '≤'} {number(self.bound) if self.bound % 1 else f'{self.bound:,.0f}'}"


class Verdict(NamedTuple):
    """A target and the figure that was reached; None if it was not measured."""

    target: Target
    reached: Spread | None

    @property
    def met(self) -> bool:
        """Whether the median is within the bound."""
        if self.reached is None:
            return False
        within = self.reached.median >= self.target.bound
        return within if self.target.at_least else self.reached.median <= self.target.bound

    @property
    def text(self) -> str:
        """The verdict in a word, with a warning if the repeats differ."""
        if self.reached is None:
            return "not measured"
        bound = self.target.bound
        divided = self.reached.low < bound < self.reached.high
        return ("met" if self.met else "missed") + (", not by all repeats alike" if divided else "")

    @property
    def share(self) -> str:
        """What was reached as a multiple of the bound."""
        return "" if self.reached is None else f"{self.reached.median / self.target.bound:.2f}"


TARGETS = (
    Target("durable messages a second, 200 pairs", "pairs-200", "server", "messages_per_s", RATE, at_least=True),
    Target("times the relay's rate, 200 pairs", "compared", "relay", "server_to_this", 2, at_least=True),
    Target("times one-by-one's rate, 200 pairs", "compared", "one by one", "server_to_this", 20, at_least=True),
    Target("ms to the peer, p50, half of that rate", "half-rate", "half-rate", "peer_p50_ms", 5),
    Target("ms to the peer, p99, half of that rate", "half-rate", "half-rate", "peer_p99_ms", 25),
    Target("one pair's p50, as a multiple of the databases'", "ping-pong", "server", "ack_to_engines_alone", 1.5),
    Target("bytes for an idle connection", "idle", "with idle sockets", "bytes_per_idle_socket", 12_000),
    Target("connections a second", "connecting", "server", "connections_per_s", 3000, at_least=True),
    *(
        Target(f"ms for {what}, p99, {stored} stored", scenario, row, "request_p99_ms", 10)
        for scenario, stored in (("reading-full", "1,000,000"), ("reading-few", "100,000"))
        for row, what in (("history", "a page of 50"), ("resume", "resuming with 100"))
    ),
    Target("times the others' p99 beside a flood of messages", "flood", "beside messages", "peer_p99_to_alone", 2),
    Target("times the others' p99 beside pings and typing", "flood", "beside pings and typing", "peer_p99_to_alone", 2),
)


def verdicts(result: Result) -> list[Verdict]:
    """Return the verdicts of all targets."""
    return [Verdict(target, result.spread(target.scenario, target.row, target.figure)) for target in TARGETS]
