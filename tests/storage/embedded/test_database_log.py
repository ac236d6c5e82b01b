"""Tests of the embedded databases' logs: appending, and truncating while a database writes."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from storage.embedded.database_log import DatabaseLog


def write(log: DatabaseLog, text: str) -> None:
    """Let another process write to the log, as a database does."""
    with log.open() as output:
        subprocess.run([sys.executable, "-c", f"print({text!r})"], stdout=output, check=True)


def test_what_a_restarted_database_says_is_added(tmp_path: Path) -> None:
    """A restarted database appends to the log, and `tail` returns lines of the last run only."""
    log = DatabaseLog(tmp_path / "x.log")
    write(log, "first")
    write(log, "second\nthird")
    assert log.path.read_text() == "first\nsecond\nthird\n"
    assert (log.tail(8), log.tail(1)) == ("second\nthird", "third")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_large_log_is_cut_under_its_writer(tmp_path: Path) -> None:
    """A large log's end is copied, and the writer goes on at the beginning of the file."""
    log = DatabaseLog(tmp_path / "x.log", largest=100)
    with log.open() as output:
        for number in range(50):
            output.write(f"line {number}\n".encode())
        output.flush()
        log.rotate()
        assert log.path.stat().st_size == 0
        kept = log.old.read_text().splitlines()
        assert (kept[-1], all(line.startswith("line ") for line in kept)) == ("line 49", True)
        assert log.old.stat().st_size <= 100
        output.write(b"line 50\n")
        output.flush()
    assert log.path.read_text() == "line 50\n"
    log.rotate()
    assert log.path.read_text() == "line 50\n"


def test_a_large_log_of_an_earlier_server_is_cut_at_the_start(tmp_path: Path) -> None:
    """A large log is truncated at start, even if it has no line break, or if there is no space for a copy."""
    log = DatabaseLog(tmp_path / "x.log", largest=100)
    log.path.write_bytes(b"x" * 10_000)
    log.old.mkdir()  # cannot be written, as on a full disk
    log.old.rmdir()
    write(log, "now")
    assert (log.path.read_text(), log.tail(8)) == ("now\n", "now")


def test_a_log_that_is_gone_is_none_that_is_large(tmp_path: Path) -> None:
    """A log that an operator has removed is not an error."""
    DatabaseLog(tmp_path / "x.log").rotate()
    assert list(tmp_path.iterdir()) == []
