"""Measure how fast the server is and what it costs, beside yardsticks: `make bench`, or `python -m bench`.

Each scenario starts databases and a server of its own, warms up, and is measured several times. The load generator runs
in this process. A message that is lost, doubled or out of order ends the bench with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.alarm import Alarm, UnexpectedError
from bench.arena import OPEN_FILES, arena
from bench.chatting import PIPELINE
from bench.report import PAGE, around, write_report
from bench.results import Result, describe_databases, read, write
from bench.scenario import Bench, Options, Scenario
from bench.scenarios import SCENARIOS
from bench.tables import compared, disturbance, sheets, show
from storage.embedded.supervisor import DatabaseStartError

WIDTH = 180  # columns of a table if the output is no terminal


def main(argv: Sequence[str]) -> int:
    """Measure, or show an earlier run; return the exit status."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        if options.compare:
            show(compared(*map(read, options.compare)), console)
            return 0
        if options.read:
            result = read(options.read)
        else:
            chosen = _chosen(options.only, parser)
            if not 1 <= options.window <= PIPELINE:
                parser.error(f"--window: 1 to {PIPELINE}, since the server reads no more requests of a socket at once")
            if min(options.rate, options.seconds or 1, options.repeats or 1) <= 0:
                parser.error("--rate, --seconds and --repeats: more than 0")
            _allow_open_files()
            if options.write:  # fails before measuring, not after
                around(options.write)
            # SIGTERM ends all processes that were started, as Ctrl-C does.
            signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
            result = measure(chosen, _options(options), console, options.json)
        if options.json:
            write(result, options.json)
        show(sheets(result), console)
        console.print(disturbance(result), style="yellow", highlight=False, soft_wrap=True)
        if options.write:
            write_report(result, options.write)
    except (UnexpectedError, DatabaseStartError, OSError, ValueError, msgspec.DecodeError, ImportError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def measure(chosen: dict[str, Scenario], options: Options, console: Console, keep: Path | None = None) -> Result:
    """Run scenarios one after the other and keep their figures. Raises UnexpectedError, DatabaseStartError."""
    result = Result.begin(options)
    # Drawn only between measurements: a drawing thread would take the load generator's time and delay messages.
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
        console=console,
        auto_refresh=False,
    )
    with bars:
        whole = bars.add_task("scenarios", total=len(chosen), what="")
        for name, scenario in chosen.items():
            task = bars.add_task(name, total=scenario.stretches * options.repeats, what="starting")
            bars.refresh()

            def tell(what: str, done: int, task: object = task) -> None:
                bars.update(task, advance=done, what=what)  # type: ignore[arg-type]  # a TaskID, which is a number
                bars.refresh()

            alarm = Alarm()
            with arena(scenario.flags, console) as its_arena:
                if not result.scenarios:
                    result.machine |= describe_databases(its_arena)
                bench = Bench(options, its_arena, alarm, tell)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(alarm.guard(_play(scenario, bench)))
            result.scenarios[name] = bench.rows
            if keep:
                write(result, keep)
            bars.update(task, what="")
            bars.update(whole, advance=1)
            bars.refresh()
    return result


async def _play(scenario: Scenario, bench: Bench) -> None:
    try:
        await scenario.run(bench)
    finally:
        bench.close()


def _chosen(patterns: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, Scenario]:
    """Return the scenarios that match any pattern, in their own order."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in SCENARIOS):
            parser.error(f"--only: no scenario is called {pattern}; there are {', '.join(SCENARIOS)}")
    return {
        name: scenario
        for name, scenario in SCENARIOS.items()
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _options(given: argparse.Namespace) -> Options:
    seconds, repeats = (2.0, 1) if given.quick else (5.0, 3)
    return Options(
        seconds=given.seconds or seconds,
        warm_up=1.0 if given.quick else 2.0,
        repeats=given.repeats or repeats,
        window=given.window,
        rate=given.rate,
        quick=given.quick,
    )


def _allow_open_files() -> None:
    """Allow as many open files as the server's sockets need. Raises ValueError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise ValueError(f"{OPEN_FILES} open files are needed, and this process may have {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_FILES), hard))


def _parser() -> argparse.ArgumentParser:
    about = "scenarios:\n" + "\n".join(f"  {name:14} {each.about}" for name, each in SCENARIOS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=(__doc__ or "").splitlines()[0],
        epilog=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these scenarios; pairs-* are all whose names begin with pairs-",
    )
    add("--quick", action="store_true", help="one short repeat, with fewer stored messages and idle sockets")
    add("--seconds", type=float, metavar="N", help="duration of each measurement (default: 5, quick: 2)")
    add("--repeats", type=int, metavar="N", help="repeats of each scenario (default: 3, quick: 1)")
    add("--window", type=int, default=16, metavar="N", help="messages in flight of each writer (default: %(default)s)")
    add("--rate", type=float, default=5000, metavar="N", help="messages a second of rate-* (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add("--read", type=Path, metavar="FILE", help="show an earlier run instead of measuring")
    add("--write", type=Path, nargs="?", const=PAGE, metavar="FILE", help="render into docs/performance.md, with plots")
    add("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="show two earlier runs side by side")
    return parser


def _without_environment() -> None:
    """Restart without Python's and Tandem's variables: PYTHONDEVMODE, for example, would change the figures."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TANDEM_"))}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)  # noqa: S606  # the same program


if __name__ == "__main__":
    _without_environment()
    sys.exit(main(sys.argv[1:]))
