"""The server as a process of its own, and engines for tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.embedded.processes import LOOK_EVERY
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from tests.support.patience import PATIENCE, PATIENT

TOKEN_SECRET = "the secret of tests, not of anybody"
ROOT = Path(__file__).resolve().parents[2]
FRAMES = os.environ.get("TANDEM_FRAMES", "bulk")  # the way of frames that this run tests


class ServerProcess:
    """`python server.py` with flags; on a free port."""

    def __init__(self, *flags: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TANDEM_")}
        self.process = subprocess.Popen(
            [sys.executable, "server.py", "--port=0", f"--frames={FRAMES}", *PATIENT, *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> int:
        """Waits for the ready line; the port that it names."""
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        assert self.line.startswith("Tandem is ready: http"), self.line + self.failed()[1]
        self.port = port_in(self.line)
        return self.port

    def failed(self) -> tuple[int, str]:
        """Waits for the end; status and standard error."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Makes sure that it does not run any more."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """Ends it as an operator does; the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.failed()[0]


def port_in(line: str) -> int:
    """The port that a ready line names."""
    found = re.search(r":([0-9]+)/ ", line)
    assert found, line
    return int(found[1])


def external(addresses: Addresses) -> list[str]:
    """The flags for engines that run; with a key of tokens, since it would be generated into the checkout."""
    return [f"--token-secret={TOKEN_SECRET}", *(f"--{engine}={url}" for engine, url in addresses._asdict().items())]


def stop(pid: int) -> None:
    """Stops a process, and waits until it stands still: each of its threads may go on for a moment after the signal."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    while any(_state(thread) != "T" for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(LOOK_EVERY)


def _state(thread: Path) -> str:
    """The letter for what a thread does; proc(5), /proc/pid/stat."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def embedded_databases() -> Iterator[EmbeddedDatabases]:
    """The three engines, started in a directory of their own; both are gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    # SIGKILL ends also an engine that a test has stopped; the data is thrown away anyhow.
    private = EmbeddedDatabases(directory, start_timeout=PATIENCE, death_signal=signal.SIGKILL)
    try:
        private.start()
        yield private
    finally:
        # Whoever is impatient now would leave something behind.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        private.stop()
        shutil.rmtree(directory)
        for number, handler in before.items():
            signal.signal(number, handler)
