"""Plot a run as SVG that is the same for the same figures. Only this module needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.comparing import YARDSTICKS
from bench.results import Result, Spread
from bench.scenario import PAIRS as COMPARED
from bench.scenarios import PAIRS

__all__ = ["draw"]

SIZE = (7.0, 3.6)  # inches
PROCESSES = {"server": "server", "mongod": "mongod", "redis": "redis-server", "mariadbd": "mariadbd"}
COLOURS = ("#3b6ea8", "#d98c3f", "#5a9e6f", "#a85b7a")
STYLE: Any = {"svg.hashsalt": "tandem", "svg.fonttype": "none", "font.family": "sans-serif", "axes.axisbelow": True}


def draw(result: Result, directory: Path) -> list[str]:
    """Write `performance-NAME.svg` for each plot that the run has figures for; return the names.

    Raises ImportError without matplotlib, which is in requirements-bench.txt.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = []
    for name, plot in (("throughput", _throughput), ("latency", _latency), ("cost", _cost)):
        with mpl.rc_context(STYLE):
            figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
            if plot(result, axes):
                for side in ("top", "right"):
                    axes.spines[side].set_visible(False)
                axes.grid(axis="y", alpha=0.3)
                figure.savefig(directory / f"performance-{name}.svg", metadata={"Date": None})
                drawn.append(name)
            pyplot.close(figure)
    return drawn


def _throughput(result: Result, axes: Any) -> bool:
    """Plot messages a second by number of pairs, with the yardsticks."""
    bars = [(f"{pairs:,} pairs", result.spread(f"pairs-{pairs}", "server", "messages_per_s")) for pairs in PAIRS]
    own = len(bars)
    bars += [(f"{row}\n{COMPARED} pairs", result.spread("compared", row, "messages_per_s")) for row in YARDSTICKS]
    shown = [(label, spread, COLOURS[index >= own]) for index, (label, spread) in enumerate(bars) if spread]
    if not shown:
        return False
    spreads = [spread for _, spread, _ in shown]
    axes.bar(
        [label for label, _, _ in shown],
        [spread.median for spread in spreads],
        yerr=_errors(spreads),
        color=[colour for _, _, colour in shown],
        capsize=3,
    )
    axes.set_ylabel("messages a second")
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("As fast as it goes: the server (blue) and the yardsticks", fontsize=10)
    return True


def _latency(result: Result, axes: Any) -> bool:
    """Plot percentiles of the latency to the peer."""
    anything = False
    for name, colour in (("p50", COLOURS[0]), ("p99", COLOURS[1])):
        found = [(pairs, result.spread(f"rate-{pairs}", "server", f"peer_{name}_ms")) for pairs in PAIRS]
        points = [(pairs, spread) for pairs, spread in found if spread]
        if points:
            anything = True
            axes.errorbar(
                [f"{pairs:,} pairs" for pairs, _ in points],
                [spread.median for _, spread in points],
                yerr=_errors([spread for _, spread in points]),
                marker="o",
                capsize=3,
                color=colour,
                label=name,
            )
    if anything:
        axes.set_ylim(bottom=0)
        axes.set_ylabel("ms")
        axes.legend(frameon=False)
        axes.set_title(f"To the peer, at {result.options.rate:,.0f} messages a second together", fontsize=10)
    return anything


def _cost(result: Result, axes: Any) -> bool:
    """Plot CPU time per message, by process."""
    scenarios = [f"pairs-{pairs}" for pairs in PAIRS if f"pairs-{pairs}" in result.scenarios]
    if not scenarios:
        return False
    below = [0.0] * len(scenarios)
    for (process, label), colour in zip(PROCESSES.items(), COLOURS, strict=True):
        spreads = [result.spread(scenario, "server", f"{process}_us_per_message") for scenario in scenarios]
        heights = [spread.median if spread else 0.0 for spread in spreads]
        axes.bar(
            [scenario.replace("pairs-", "") + " pairs" for scenario in scenarios],
            heights,
            bottom=below,
            color=colour,
            label=label,
        )
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_ylabel("µs per message")
    axes.margins(y=0.2)  # space for the legend
    axes.legend(frameon=False, loc="upper left", ncols=len(PROCESSES))
    axes.set_title("Processor time per message, as fast as it goes", fontsize=10)
    return True


def _errors(spreads: Sequence[Spread]) -> list[list[float]]:
    return [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
