"""Processes for tests: the server, and databases."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from storage.embedded.processes import LOOK_EVERY
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from tests.support.patience import PATIENCE, PATIENT

TOKEN_SECRET = "the secret of tests, not of anybody"
ROOT = Path(__file__).resolve().parents[2]
FRAMES = os.environ.get("TANDEM_FRAMES", "bulk")  # the transport of frames that this run tests


class Program:
    """A program that serves on a port, which the first line of its output names.

    Its log is standard error, which is added to a file if one is given. `options` are those of subprocess.Popen.
    """

    def __init__(self, command: Sequence[str], *, log: Path | None = None, **options: Any) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
        with ExitStack() as stack:
            errors = subprocess.PIPE if log is None else stack.enter_context(log.open("ab"))
            self.process: subprocess.Popen[str] = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, **options
            )
        self.line = ""
        self.port = 0

    def ready(self) -> int:
        """Wait for the ready line; return the port that it names."""
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        assert "ready: http" in self.line, self.line + self.failed()[1]
        self.port = port_in(self.line)
        return self.port

    def failed(self) -> tuple[int, str]:
        """Wait for the end; return the status and standard error."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors or ""

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the process, if it still runs, and wait for its end."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """End the server as an operator does; return the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.failed()[0]


class ServerProcess(Program):
    """`python server.py` with flags, on a free port.

    `wrapper` is a command that runs it, and `program` another one than server.py with its flags. A server that is not
    `patient` has its own deadlines.
    """

    def __init__(
        self,
        *flags: str,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = ("server.py",),
        patient: bool = True,
        log: Path | None = None,
        **options: Any,
    ) -> None:
        usual = ("--port=0", f"--frames={FRAMES}", *(PATIENT if patient else ()))
        super().__init__([*wrapper, sys.executable, *program, *usual, *flags], log=log, **options)


def port_in(line: str) -> int:
    """Return the port that a ready line names."""
    found = re.search(r":([0-9]+)/ ", line)
    assert found, line
    return int(found[1])


def external(addresses: Addresses) -> list[str]:
    """Return the flags for running databases, and for a token secret, which would be generated in the checkout."""
    return [f"--token-secret={TOKEN_SECRET}", *(f"--{database}={url}" for database, url in addresses._asdict().items())]


def stop(pid: int) -> None:
    """Stop a process, and wait until each of its threads has stopped: one may run on for a moment after the signal."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while any(_state(thread) != "T" for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(LOOK_EVERY)


def _state(thread: Path) -> str:
    """Return the letter of a thread's state; proc(5), /proc/pid/stat."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def embedded_databases() -> Iterator[EmbeddedDatabases]:
    """Start the three databases in a temporary directory; remove both afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    # SIGKILL also ends a database that a test has stopped; the data is temporary anyway.
    private = EmbeddedDatabases(directory, start_timeout=PATIENCE, death_signal=signal.SIGKILL)
    try:
        private.start()
        yield private
    finally:
        # A second Ctrl-C would leave processes and files behind.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        private.stop()
        shutil.rmtree(directory)
        for number, handler in before.items():
            signal.signal(number, handler)
