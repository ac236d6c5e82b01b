"""Other processes: which ones hold a file open, and ending them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

__all__ = ["LOOK_EVERY", "STOP_AFTER", "end_processes", "holders"]

STOP_AFTER = 6.0  # seconds from SIGTERM to SIGKILL
LOOK_EVERY = 0.02  # seconds between two looks at processes that begin or end


def holders(path: Path) -> list[psutil.Process]:
    """The processes of this user that have `path` open, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(file.path == str(path) for file in process.open_files()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """Ends processes: SIGTERM, and SIGKILL for those that do not follow."""
    for process in processes:
        process.terminate()
        process.resume()  # it may be stopped, and would not hear
    stubborn = _still_alive(processes)
    for process in stubborn:
        process.kill()
    _still_alive(stubborn)


def _still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Waits for the end of processes; those that have not ended in time.

    One that has ended and that nobody has asked for (a zombie) holds nothing any more. In a container without an init
    that asks, what a killed server left behind would stay one.
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
