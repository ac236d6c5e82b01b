"""The data directory of the embedded databases, which one server at a time can use.

The databases' sockets are in it too if possible. A socket's path may have 107 bytes, and mongod misreads a comma, a
colon or a bracket in one. If the path of `mongod.sock` is unsuitable, the sockets are in a temporary directory of mode
700 instead, which the file `sockets` names.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from storage.embedded.processes import LOOK_EVERY, STOP_AFTER, end_processes, holders

__all__ = ["KEY_FILE", "DataDirectory", "DataDirectoryError"]

KEY_FILE = "token-keys.json"  # the generated token key; the directory has it also if the databases are external
SOCKETS_FILE = "sockets"
SOCKET_PATH_LIMIT = 107  # bytes; unix(7), sun_path without its final NUL
PATH_LIMIT = 400  # bytes; MariaDB's limit is 512, including its files' names
LONGEST_SOCKET = "mongod.sock"
PLAIN = frozenset(" /._-+=@~")  # characters that a socket's path may have besides letters and digits
PREFIX = "tandem-"  # of the temporary directory's name

_log = structlog.get_logger(__name__)


class DataDirectoryError(Exception):
    """The data directory cannot be used. The text says why, and what to do."""


class DataDirectory:
    """The data directory at `path`: `claim` it before use, `release` it afterwards. Raises DataDirectoryError."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve()
            size = len(os.fsencode(self.path))
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a character that paths cannot have
            raise DataDirectoryError(f"--data-dir: {str(path)!r} is not a valid path") from None
        if "\n" in str(self.path):
            raise DataDirectoryError(f"--data-dir: {str(path)!r} has a line break in it; choose another directory")
        if size > PATH_LIMIT:
            raise DataDirectoryError(
                f"--data-dir: {self.path} has {size} bytes of at most {PATH_LIMIT}; choose a shorter path"
            )
        self._sockets = self.path
        self._locks: list[IO[str]] = []

    @property
    def lock(self) -> int:
        """The file descriptor of `engines.lock`, which each database inherits."""
        return self._locks[-1].fileno()

    def socket(self, name: str) -> Path:
        """Return the path of a database's socket. The directory has to be claimed before."""
        return self._sockets / f"{name}.sock"

    def claim(self) -> None:
        """Lock the directory for this server, and end databases that an earlier server has left running."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            others = any(path.name != KEY_FILE for path in self.path.iterdir())
            strangers = others and not (self.path / "server.lock").exists()
            planted = [path for path in self.path.iterdir() if path.lstat().st_uid != os.geteuid()]
        except OSError as error:
            raise DataDirectoryError(f"--data-dir: {self.path} cannot be used: {error.strerror}") from None
        if self.path.stat().st_uid != os.geteuid():
            raise DataDirectoryError(f"--data-dir: {self.path} belongs to another user; use chown, or choose another")
        if planted:  # by another user, who could write here at some time
            raise DataDirectoryError(f"--data-dir: {planted[0]} belongs to another user; remove it, or use chown")
        if strangers:
            raise DataDirectoryError(f"--data-dir: {self.path} holds other files; choose a new or empty directory")
        self.path.chmod(0o700)
        if not self._lock("server.lock"):
            raise DataDirectoryError(f"--data-dir: {self.path} is in use by another server")
        deadline = time.monotonic() + 2 * STOP_AFTER
        while not self._lock("engines.lock"):
            left = holders(self.path / "engines.lock")
            _log.warning("engines_left_behind", pids=[process.pid for process in left])
            end_processes(left)
            if time.monotonic() > deadline:
                raise DataDirectoryError(
                    f"--data-dir: {self.path} is locked by a process that this server cannot find or end"
                )
            time.sleep(LOOK_EVERY)
        self._remove_sockets()
        self._choose_sockets()

    def release(self) -> None:
        """Unlock the directory, after the databases have ended."""
        if self._locks:
            self._remove_sockets()
        while self._locks:
            self._locks.pop().close()

    def _lock(self, name: str) -> bool:
        file = (self.path / name).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._locks.append(file)
        return True

    def _choose_sockets(self) -> None:
        """Set the directory of the sockets; make a temporary one if needed."""
        if _fits(self.path):
            self._sockets = self.path
            return
        for base in _temporary():
            if not _fits(base / f"{PREFIX}12345678"):
                continue
            with suppress(OSError):
                made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
                (self.path / SOCKETS_FILE).write_text(str(made), "utf-8")
                self._sockets = made
                return
        raise DataDirectoryError(
            f"--data-dir: sockets in {self.path} would have a path of more than {SOCKET_PATH_LIMIT} bytes, or one with "
            "unusual characters, and no temporary directory can be used instead; choose another directory, or set "
            "TMPDIR to one with a short name"
        )

    def _remove_sockets(self) -> None:
        """Remove the temporary directory that the file `sockets` names, if it belongs to this user."""
        file = self.path / SOCKETS_FILE
        with suppress(OSError, ValueError):
            named = Path(file.read_text("utf-8"))
            if named.name.startswith(PREFIX) and named.stat().st_uid == os.geteuid():
                for each in (*named.glob("*.sock"), *named.glob("#sql*")):  # MariaDB's temporary files
                    each.unlink()
                named.rmdir()
        file.unlink(missing_ok=True)
        self._sockets = self.path


def _temporary() -> Iterator[Path]:
    # Not XDG_RUNTIME_DIR: it is removed when the user signs out, even if a server goes on running.
    with suppress(OSError):
        yield Path(tempfile.gettempdir()).resolve()
    yield Path("/tmp")  # noqa: S108  # mkdtemp makes a directory of mode 700 in it
    yield Path("/var/tmp")  # noqa: S108


def _fits(directory: Path) -> bool:
    """Return whether sockets can be in this directory."""
    path = str(directory / LONGEST_SOCKET)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:  # a path that is not UTF-8
        return False
    return size <= SOCKET_PATH_LIMIT and all(character.isalnum() or character in PLAIN for character in path)
