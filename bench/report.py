"""Render a run as the measured section of docs/performance.md, with plots; the text around it stays."""

from __future__ import annotations

from pathlib import Path

from bench.arena import ROOT
from bench.chatting import MAX_IN_FLIGHT
from bench.plots import draw
from bench.reading import LONGER
from bench.results import Result
from bench.scenario import Options
from bench.tables import disturbance, legend, markdown, sheets

__all__ = ["PAGE", "around", "write_report"]

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- measured: `make bench ARGS=--write` replaces what stands from here to the end mark -->"
END = "<!-- measured: end -->"
ALTS = {
    "throughput": "messages a second by number of pairs",
    "latency": "latency by number of pairs at a fixed rate",
    "cost": "processor time per message by process",
}


def write_report(result: Result, page: Path = PAGE) -> None:
    """Render a run into a page, which is made if it does not exist, and the plots into `images/` beside it.

    Raises OSError, and ValueError if the page exists without its marks.
    """
    before, behind = around(page)
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    plots = draw(result, images)
    page.write_text(f"{before}{BEGIN}\n\n{_section(result, plots)}\n{END}{behind}", "utf-8")


def around(page: Path) -> tuple[str, str]:
    """Return the text before and after the measured section. Raises OSError, and ValueError without its marks."""
    text = page.read_text("utf-8") if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name}: between which lines to write is not marked: {BEGIN} and {END}")
    return before, behind


def _section(result: Result, plots: list[str]) -> str:
    options = result.options
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    *others, targets = sheets(result)
    parts = [
        f"Taken {result.taken}" + (f" at commit {result.commit}" if result.commit else "") + f". {machine}.\n",
        f"Server, databases and load generator share this machine. {_repeated(options)}. Each sender has "
        f"{options.window} messages in flight, or fewer if that would be more than {MAX_IN_FLIGHT:,} in all. `rate-*` "
        f"is {options.rate:,.0f} messages a second. A latency counts from the moment at which a message should have "
        "been sent; `late` is the load generator's part of it.\n",
        disturbance(result),
        legend(result),
        *(f"![{ALTS[name]}](images/performance-{name}.svg)\n" for name in plots),
        *(markdown(sheet) for sheet in (targets, *others)),
    ]
    return "\n".join(part for part in parts if part)


def _repeated(options: Options) -> str:
    one = f"of {options.seconds:g} s, after {options.warm_up:g} s to warm up"
    longer = f"Those of `reading-*` take {LONGER} times as long"
    if options.repeats == 1:
        return f"Each figure is one measurement {one}. {longer}"
    return (
        f"Each figure is the median of {options.repeats} measurements {one}, with the lowest and the highest in "
        f"brackets. {longer}"
    )
