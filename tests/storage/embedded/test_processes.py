"""Tests of finding and ending processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from storage.embedded.processes import end_processes, holders


def test_who_holds_a_file(tmp_path: Path) -> None:
    """`holders` returns other processes that have a file open, and not the calling one."""
    file = tmp_path / "file"
    with file.open("w") as held, subprocess.Popen(["sleep", "1000"], stdin=held) as holder:
        assert [holder.pid] == [process.pid for process in holders(file)]
        holder.kill()
    assert holders(file) == []


def test_a_stubborn_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores SIGTERM is killed, and a stopped one is resumed to handle SIGTERM."""
    monkeypatch.setattr("storage.embedded.processes.STOP_AFTER", 2.0)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn,
        subprocess.Popen(["sleep", "1000"]) as stopped,
    ):
        assert stubborn.stdout
        stubborn.stdout.readline()
        stopped.send_signal(signal.SIGSTOP)
        end_processes([psutil.Process(stubborn.pid), psutil.Process(stopped.pid)])
        assert (stubborn.wait(), stopped.wait()) == (-signal.SIGKILL, -signal.SIGTERM)


def test_a_zombie_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zombie counts as ended; in a container without an init process, orphans stay zombies."""
    monkeypatch.setattr("storage.embedded.processes.STOP_AFTER", 1000.0)
    code = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as careless:
        assert careless.stdout
        left = psutil.Process(int(careless.stdout.readline()))
        end_processes([left])
        assert left.status() == psutil.STATUS_ZOMBIE
        careless.kill()
