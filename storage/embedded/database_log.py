"""The log of an embedded database: bounded, however much the database writes into it.

A database writes to its standard output, which is a file here, opened to append. When that has grown large, its end
is copied to a second file, and it is cut to nothing: the database writes on at what is now the beginning. No signal
or command is needed, so it is the same for all three. What is written between the copy and the cut is lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

__all__ = ["DatabaseLog"]

LARGEST = 4 * 2**20  # bytes of the file, and of the one with what was before


class DatabaseLog:
    """The log at `path`, of at most about `largest` bytes; what was before is beside it, with `.old` at the end."""

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self.old = path.with_name(f"{path.name}.old")
        self._largest = largest
        self._begun = 0  # where the output of the process that runs now begins

    def open(self) -> IO[bytes]:
        """The file, for a database that is about to be started; what it says is added. Raises OSError."""
        self.rotate()
        file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        self._begun = file.tell()
        return file

    def rotate(self) -> None:
        """Keep the file's end and cut it to nothing, if it has grown large. Raises OSError when it cannot be cut."""
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
        except OSError:  # the disk is full, say: then there is the more reason to cut it
            self.old.unlink(missing_ok=True)
        os.truncate(self.path, 0)
        self._begun = 0

    def tail(self, lines: int) -> str:
        """The last lines that the process of now has written."""
        with self.path.open("rb") as file:
            file.seek(self._begun)
            return "\n".join(file.read(self._largest).decode("utf-8", "replace").splitlines()[-lines:])
