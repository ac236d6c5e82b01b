"""The scenario of the profile: how much of the server's CPU time each step of a message takes.

py-spy samples from outside, without stopping the server, which thread holds Python's lock (GIL). That is not the thread
that uses the CPU, since system calls release the lock. So the samples of the event loop's thread, and those of the
others, are shares of the CPU time that the kernel counts for them. Within a thread, the time of its system calls is
spread over its steps.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from signal import SIGINT
from tempfile import TemporaryDirectory

import psutil

from bench.load import sockets_of
from bench.scenario import PAIRS, Bench, Load, flat_out

__all__ = ["STEPS", "ProfilerError", "Spy", "profile", "step_of"]

STEPS = {
    "in": "frames in",
    "chat": "chat",
    "storage": "storage, drivers",
    "out": "frames out",
    "loop": "event loop, rest",
}
RATE = 250  # samples a second; more would take too much of the other core
END_WITHIN = 10  # seconds for py-spy to write its samples
BATCHING = frozenset(("common/batching.py",))  # batches belong to storage
STORAGE = frozenset(("storage", "pymongo", "motor", "bson", "redis", "hiredis", "pymysql"))
CODECS = frozenset(("models/protocol/v1.py", "models/protocol/v2.py"))  # count for their callers
OUT = frozenset(("_advance", "write_frame", "_flush"))  # of handlers/: outgoing frames that no model requests
THREAD = "Thread._bootstrap "  # the outermost frame of all threads but the event loop's

Stack = Sequence[str]  # `function (file)`, the outermost first


class ProfilerError(Exception):
    """py-spy is missing, or is not allowed to read the server's memory."""


async def profile(bench: Bench) -> None:
    """Let pairs chat at full speed while py-spy samples the server."""
    pairs = await bench.pairs(PAIRS)
    load = flat_out(pairs, bench.options.window)
    spent, messages = dict.fromkeys(STEPS, 0.0), 0.0
    with Spy(bench.arena.processes["server"]) as spy:
        for _ in bench.repeats():
            try:
                figures = await bench.stretch("server", sockets_of(pairs), partial(spy.beside, load))
                shares = spy.shares()
            except ProfilerError as error:
                bench.arena.warn(f"no profile: {error}")
                return
            messages += figures["messages"]
            for step, share in shares.items():
                spent[step] += share * figures["server_us_per_message"] * figures["messages"]
    # Over all repeats together, since medians of parts would not add up.
    bench.record("server", {f"step_{step}_us_per_message": spent[step] / messages for step in STEPS})
    bench.record("server", {"step_all_us_per_message": sum(spent.values()) / messages, "samples": float(spy.seen)})


class Spy:
    """py-spy beside a process under load."""

    def __init__(self, process: psutil.Process) -> None:
        self.seen = 0  # samples so far
        self._process = process
        self._directory = TemporaryDirectory()
        self._stacks = Path(self._directory.name) / "stacks"
        self._spying: subprocess.Popen[str] | None = None
        self._used = (0.0, 0.0)

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spying is not None:
            self._spying.kill()
            self._spying.communicate()
        self._directory.cleanup()

    async def beside(self, load: Load, until: float) -> None:
        """Put load on the process until a time of `perf_counter`, and sample it meanwhile. Raises ProfilerError."""
        self._spying = self._spy()
        before = self._times()
        await load(until)
        after = self._times()
        self._spying.send_signal(SIGINT)  # makes it write its samples
        self._used = after[0] - before[0], after[1] - before[1]

    def _spy(self) -> subprocess.Popen[str]:
        program = shutil.which("py-spy", path=str(Path(sys.executable).parent))
        if program is None:
            raise ProfilerError("py-spy, which requirements-bench.txt brings, is not there")
        arguments = ("--nonblocking", "--gil", "--nolineno", "--format=raw", f"--rate={RATE}")
        return subprocess.Popen(  # noqa: S603  # a program that we depend on
            [program, "record", *arguments, f"--pid={self._process.pid}", f"--output={self._stacks}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def shares(self) -> dict[str, float]:
        """Return the share of each step in the CPU time under the last load, 1 together. Raises ProfilerError."""
        if self._spying is None:
            raise ProfilerError("there was no load")
        _, errors = self._spying.communicate(timeout=END_WITHIN)
        if self._spying.returncode or not self._stacks.exists():
            said = errors.strip().splitlines()[:1] or ["py-spy saw nothing"]
            raise ProfilerError(f"{said[0]} (kernel.yama.ptrace_scope has to be 0, or the user root)")
        loop, others = counted(self._stacks.read_text("utf-8").splitlines())
        self._stacks.unlink()
        self.seen += loop.total() + others.total()
        whole = sum(self._used)
        shares = dict.fromkeys(STEPS, 0.0)
        for counts, used in zip((loop, others), self._used, strict=True):
            for step, count in (counts or {"loop": 1}).items():
                shares[step] += used / whole * count / (counts.total() or 1)
        return shares

    def _times(self) -> tuple[float, float]:
        """Return the seconds of CPU time of the event loop's thread, and of all others."""
        used = {thread.id: thread.user_time + thread.system_time for thread in self._process.threads()}
        loop = used.pop(self._process.pid)
        return loop, sum(used.values())


def counted(lines: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count samples by step, of the event loop's thread and of the others, from py-spy's lines: a stack and a count.

    A stack that changed while it was read may hold anything, even a line's end: a line without a number is skipped.
    """
    loop, others = Counter[str](), Counter[str]()
    for line in lines:
        frames, _, count = line.rpartition(" ")
        if not (count.isascii() and count.isdigit()):
            continue
        if frames.startswith(THREAD):
            others["storage"] += int(count)  # only storage has blocking work
        else:
            loop[step_of(frames.split(";"))] += int(count)
    return loop, others


def step_of(stack: Stack) -> str:
    """Return the step of a stack of the event loop's thread, by its innermost frame in this project or a driver."""
    handling = False
    for frame in reversed(stack):
        name, _, file = frame.removesuffix(")").partition(" (")
        folder = file.partition("/")[0]
        if folder == "handlers":
            handling = True
            if name.rpartition(".")[2] in OUT:
                return "out"
        elif folder in STORAGE or file in BATCHING:
            return "storage"
        elif folder == "models" and file not in CODECS:
            return "out" if handling else "chat"  # models call handlers to deliver and to answer
    return "in" if handling else "loop"
