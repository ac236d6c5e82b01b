"""The log of an embedded database, with a limit on its size.

A database's standard output is a file that is opened to append. When the file has grown large, its end is copied to a
second file and it is truncated. The database then goes on writing at the beginning. This needs no signal or command, so
it works the same for all three databases. Lines that are written between the copy and the truncation are lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

__all__ = ["LARGEST", "DatabaseLog"]

LARGEST = 4 * 2**20  # bytes of the file, and of the second one with earlier lines


class DatabaseLog:
    """The log at `path`, of at most about `largest` bytes. Earlier lines are in a file with the suffix `.old`."""

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self.old = path.with_name(f"{path.name}.old")
        self._largest = largest
        self._begun = 0  # where the output of the current process begins, in bytes

    def open(self) -> IO[bytes]:
        """Open the file to append the output of a database that is about to be started. Raises OSError."""
        self.rotate()
        file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        self._begun = file.tell()
        return file

    def rotate(self) -> None:
        """Copy the file's end and truncate the file, if it has grown large. Raises OSError if truncating fails."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size <= self._largest:
            return
        try:
            with self.path.open("rb") as file:
                file.seek(-self._largest, os.SEEK_END)
                self.old.write_bytes(file.read(self._largest).partition(b"\n")[2])
        except OSError:  # perhaps the disk is full, which is the more reason to truncate the file
            self.old.unlink(missing_ok=True)
        os.truncate(self.path, 0)
        self._begun = 0

    def tail(self, lines: int) -> str:
        """Return the last lines that the current process has written."""
        with self.path.open("rb") as file:
            file.seek(self._begun)
            return "\n".join(file.read(self._largest).decode("utf-8", "replace").splitlines()[-lines:])
