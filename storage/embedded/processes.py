"""Find processes that have a file open, and end processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

__all__ = ["LOOK_EVERY", "STOP_AFTER", "end_processes", "holders"]

STOP_AFTER = 6.0  # seconds from SIGTERM to SIGKILL
LOOK_EVERY = 0.02  # seconds between two checks of a process that starts or ends


def holders(path: Path) -> list[psutil.Process]:
    """Return the processes of this user that have `path` open, without the calling one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == str(path) for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """End processes with SIGTERM, and with SIGKILL those that are left after STOP_AFTER seconds."""
    for process in processes:
        process.terminate()
        process.resume()  # a stopped process does not handle SIGTERM
    stubborn = _still_alive(processes)
    for process in stubborn:
        process.kill()
    _still_alive(stubborn)


def _still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until processes have ended. Return those that have not ended in time.

    A zombie counts as ended, since it holds no files. In a container without an init process, databases whose server
    was killed stay zombies.
    """
    deadline = time.monotonic() + STOP_AFTER
    while (alive := [each for each in processes if not _has_ended(each)]) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return alive


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
