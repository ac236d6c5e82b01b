"""Show a run as tables, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.profiling import STEPS
from bench.results import Found, Result, Spread, number
from bench.scenarios import SCENARIOS
from bench.verdicts import verdicts

__all__ = ["Sheet", "compared", "disturbance", "legend", "markdown", "sheets", "show"]

RATES = {
    "messages_per_s": "messages/s",
    "ack_p50_ms": "ack p50 ms",
    "ack_p99_ms": "ack p99 ms",
    "peer_p50_ms": "peer p50 ms",
    "peer_p99_ms": "peer p99 ms",
}
COSTS = {
    "server_us_per_message": "server",
    "mongod_us_per_message": "mongod",
    "redis_us_per_message": "redis-server",
    "mariadbd_us_per_message": "mariadbd",
    "load_us_per_message": "load generator",
    "server_cores": "server, cores",
    "load_cores": "load generator, cores",
    "others_cores": "others, cores",
}
STEP_COLUMNS = {f"step_{step}_us_per_message": text for step, text in {**STEPS, "all": "all"}.items()}
HIDDEN = ("_p99.9_ms", "_cores")  # only in the JSON file
NOTICEABLE = 0.2  # cores used by other processes
DISTURBED = ", while others took much"  # a ratio most of all: only one side may have been disturbed
NOT_APART = "the ranges overlap"


class Sheet(NamedTuple):
    """A table: its title, the heads of its columns, of which the first `texts` are text, and its rows."""

    title: str
    heads: Sequence[str]
    texts: int
    rows: Sequence[Sequence[str]]


def sheets(result: Result) -> list[Sheet]:
    """Return all tables of a run that are not empty."""
    found = list(result.figures())
    rest = [
        (each.scenario, each.row, named(each.name), str(each.spread))
        for each in found
        if each.name not in RATES
        and each.name not in COSTS
        and each.name not in STEP_COLUMNS
        and not each.name.endswith(HIDDEN)
        and each.name != "messages"
    ]
    judged = [
        (
            each.target.text,
            each.target.bounded,
            str(each.reached or ""),
            each.share,
            "" if each.reached is None else number(_others(result, each.target.scenario)),
            each.text + (DISTURBED if each.reached and _others(result, each.target.scenario) >= NOTICEABLE else ""),
        )
        for each in verdicts(result)
    ]
    quick = " (a quick run: fewer messages stored, fewer idle sockets)" if result.options.quick else ""
    every = [
        Sheet("Messages", ["scenario", "of", *RATES.values()], 2, _grid(result, RATES, "messages_per_s")),
        Sheet(
            "Processor time, µs per message",
            ["scenario", "of", *COSTS.values()],
            2,
            _grid(result, COSTS, "server_us_per_message"),
        ),
        Sheet(
            "Server, µs per message by step",
            ["scenario", "of", *STEP_COLUMNS.values()],
            2,
            _grid(result, STEP_COLUMNS, "step_all_us_per_message"),
        ),
        Sheet("Other figures", ["scenario", "of", "figure", "value"], 3, rest),
        Sheet(f"Targets{quick}", ["target", "bound", "reached", "of the bound", "others, cores", "verdict"], 1, judged),
    ]
    return [sheet for sheet in every if sheet.rows]


def _others(result: Result, scenario: str) -> float:
    """Return the most cores that other processes took while a row of the scenario was measured."""
    rows = result.scenarios.get(scenario, {}).values()
    return max((value for figures in rows for value in figures.get("others_cores", ())), default=0.0)


def _grid(result: Result, columns: dict[str, str], having: str) -> list[list[str]]:
    """Return a row of the table for each row of a scenario that has a certain figure."""
    grid = []
    for scenario, rows in result.scenarios.items():
        for row, figures in rows.items():
            if having in figures:
                spreads = [result.spread(scenario, row, name) for name in columns]
                grid.append([scenario, row, *(str(spread or "") for spread in spreads)])
    return grid


def named(figure: str) -> str:
    """Return a figure's name in words."""
    return figure.replace("_per_s", "/s").replace("_us_", " µs ").replace("_", " ")


def compared(old: Result, new: Result) -> list[Sheet]:
    """Return two runs side by side: where they were taken, and every figure that both have."""
    about = [
        (name, old.machine.get(name, ""), new.machine.get(name, ""))
        for name in {**old.machine, **new.machine}
        if old.machine.get(name) != new.machine.get(name)
    ]
    about += [
        (name, str(before), str(after))
        for name, before, after in zip(old.options._fields, old.options, new.options, strict=True)
        if before != after
    ]
    before = {each[:3]: each.spread for each in old.figures()}
    rows = [
        _side_by_side(each, before)
        for each in new.figures()
        if each[:3] in before and each.name != "messages" and not each.name.endswith(HIDDEN)
    ]
    return [
        Sheet(
            "Runs", ["", "old", "new"], 3, [("taken", old.taken, new.taken), ("commit", old.commit, new.commit), *about]
        ),
        Sheet("Figures", ["scenario", "of", "figure", "old", "new", "new/old", ""], 3, rows),
    ]


def _side_by_side(each: Found, before: dict[tuple[str, str, str], Spread]) -> list[str]:
    old, new = before[each[:3]], each.spread
    ratio = number(new.median / old.median) if old.median else ""
    overlap = old.low <= new.high and new.low <= old.high
    return [*each[:2], named(each.name), str(old), str(new), ratio, NOT_APART if overlap else ""]


def show(sheets: Sequence[Sheet], console: Console) -> None:
    """Print tables."""
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left", title_style="bold")
        for index, head in enumerate(sheet.heads):
            table.add_column(head, justify="left" if index < sheet.texts else "right")
        for row in sheet.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def markdown(sheet: Sheet) -> str:
    """Return a table in Markdown, under its title."""
    aligned = ["---" if index < sheet.texts else "---:" for index in range(len(sheet.heads))]
    lines = [sheet.heads, aligned, *sheet.rows]
    return f"### {sheet.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def disturbance(result: Result) -> str:
    """Return a warning if other processes took so much that the figures are wrong; empty if not."""
    others = [each.spread for each in result.figures() if each.name == "others_cores"]
    worst = max((spread.high for spread in others), default=0.0)
    if worst < NOTICEABLE:
        return ""
    typical = max(spread.median for spread in others)
    return (
        f"Other processes, or the hypervisor, took up to {worst:.1f} of {result.machine['cores']} cores while this was "
        f"measured, and up to {typical:.1f} in the median of a scenario: the rates are too low and the latencies too "
        "high by as much as that took away.\n"
    )


def legend(result: Result) -> str:
    """Return the descriptions of a run's scenarios, in Markdown."""
    return "".join(f"- `{name}`: {SCENARIOS[name].about}\n" for name in result.scenarios if name in SCENARIOS)
