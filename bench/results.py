"""The results of a run, and how they are stored: each figure of each repeat, the machine, and the options."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
from msgspec import Struct, field
from pymongo import MongoClient
from redis import Redis

from bench.arena import ROOT, Arena
from bench.scenario import Options, Rows
from tests.support.database import mysql_connection

__all__ = ["Found", "Result", "Spread", "describe_databases", "describe_machine", "read", "write"]

PACKAGES = ("tornado", "uvloop", "pymongo", "motor", "redis", "hiredis", "msgspec")


class Spread(NamedTuple):
    """A figure over all repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}..{number(self.high)})"


def number(value: float) -> str:
    """Return a figure with as many digits as are worth reading."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


class Found(NamedTuple):
    """One figure: its scenario and row, its name with the unit, and its values."""

    scenario: str
    row: str
    name: str
    spread: Spread


class Result(Struct):
    """A run: figures by scenario, row and name, one value for each repeat."""

    taken: str
    commit: str
    machine: dict[str, str]
    options: Options
    scenarios: dict[str, Rows] = field(default_factory=dict)

    @classmethod
    def begin(cls, options: Options) -> Result:
        """Return a run without figures."""
        return cls(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", _commit(), describe_machine(), options)

    def figures(self) -> Iterator[Found]:
        """Yield all figures."""
        for scenario, rows in self.scenarios.items():
            for row, figures in rows.items():
                for name, values in figures.items():
                    yield Found(scenario, row, name, Spread.of(values))

    def spread(self, scenario: str, row: str, name: str) -> Spread | None:
        """Return one figure; None if it was not measured."""
        values = self.scenarios.get(scenario, {}).get(row, {}).get(name)
        return Spread.of(values) if values else None


def read(path: Path) -> Result:
    """Read a stored run. Raises OSError, msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(result: Result, path: Path) -> None:
    """Store a run. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def describe_machine() -> dict[str, str]:
    """Return what identifies the machine and the versions of packages."""
    cpu = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "CPU": models[0] if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def describe_databases(arena: Arena) -> dict[str, str]:
    """Return the versions of the databases."""
    with (
        MongoClient[dict[str, Any]](arena.mongo) as mongo,
        Redis.from_url(arena.redis) as redis,
        mysql_connection(arena.mysql) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT VERSION()")
        row = cursor.fetchone()
        return {
            "mongod": str(mongo.server_info()["version"]),
            "redis-server": str(redis.info("server")["redis_version"]),
            "mariadbd": str(row[0]) if row else "",
        }


def _commit() -> str:
    """Return the commit of the measured source, with a + if something was changed; empty without git."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],  # noqa: S607
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return said.stdout.strip()
