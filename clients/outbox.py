"""The outbox: messages that are not acknowledged. They are on disk, so that a client that was killed resends them.

There is one file for each server and user, which other users cannot read. Several clients of one user may share it.
Each resends what it finds, one message after the other; by their ids the server stores none twice.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

__all__ = ["Outbox", "Pending", "RisingIds", "carry_over", "path_of", "state_directory"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pending (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    peer INTEGER NOT NULL,
    content TEXT NOT NULL,
    failed TEXT NOT NULL DEFAULT ''
)
"""
UNSURE = "written with an older client for an unknown server: check the recipient, then /retry or /discard"
_BUSY = 5.0  # seconds to wait for another client that is writing
_COUNTER_BITS = 12
_RANDOM_BITS = 62


class Pending(NamedTuple):
    """A message that is not acknowledged. `failed` says why it failed, and is empty while it may be sent."""

    id: str
    peer: int
    content: str
    failed: str = ""

    @property
    def time(self) -> int:
        """When it was written, in milliseconds since the epoch, as in its id."""
        return UUID(self.id).int >> 80


class RisingIds:
    """Makes ids of version 7 (RFC 9562, section 5.7), each above the one before: a counter follows the milliseconds.

    `clock` returns seconds since the epoch. The first id is above `last`.
    """

    def __init__(self, clock: Callable[[], float], last: str = "") -> None:
        self._clock = clock
        number = UUID(last).int if last else 0
        self._moment = self._value_of(number >> 80, number >> 64 & (1 << _COUNTER_BITS) - 1)

    def next(self) -> str:
        """Return a new id."""
        self._moment = max(self._value_of(int(self._clock() * 1000), 0), self._moment + 1)
        time, counter = divmod(self._moment, 1 << _COUNTER_BITS)
        high = time << 16 | 7 << 12 | counter
        return str(UUID(int=high << 64 | 0b10 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)))

    @staticmethod
    def _value_of(time: int, counter: int) -> int:
        return time << _COUNTER_BITS | counter


def state_directory(environment: Mapping[str, str]) -> Path:
    """Return the directory of outboxes: $XDG_STATE_HOME/tandem, or ~/.local/state/tandem.

    That is where the XDG Base Directory Specification puts it.
    """
    given = environment.get("XDG_STATE_HOME", "")
    if Path(given).is_absolute():
        return Path(given) / "tandem"
    try:
        return Path.home() / ".local" / "state" / "tandem"
    except RuntimeError:
        raise OSError("no home directory is known: set HOME or XDG_STATE_HOME") from None


def path_of(directory: Path, server: str, log: str, user: int) -> Path:
    """Return the file of a user's outbox for the installation `log` at that URL ("" if the server does not name one).

    The URL is not enough: later it may lead to another installation, in which the same ids are other users.
    """
    return directory / f"{quote(server, safe='')}.{log or 'unknown'}.{user}.sqlite3"


def carry_over(directory: Path, server: str, log: str, user: int) -> bool:
    """Take over the outbox of a client that did not know installations. Return whether it had messages.

    Its recipients cannot be known, so none of its messages is sent by itself: all count as failed.
    """
    old, new = directory / f"{quote(server, safe='')}.{user}.sqlite3", path_of(directory, server, log, user)
    if not old.exists() or new.exists():
        return False
    outbox = Outbox(old, lambda: 0.0)
    try:
        for pending in outbox:
            outbox.mark(pending.id, UNSURE)
        found = len(outbox) > 0
    finally:
        outbox.close()
    old.rename(new)
    return found


class Outbox:
    """The messages in a file, in the order in which they were written. All of them are in memory too.

    A change is in the file when the call returns. Raises OSError or sqlite3.Error if the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        # Before SQLite opens the file, since its journals get the mode of the file.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        self._file = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
        try:
            self._file.execute(_SCHEMA)
            rows = self._file.execute("SELECT id, peer, content, failed FROM pending ORDER BY place")
            self._pending = {row[0]: Pending(*row) for row in rows}
        except sqlite3.Error:
            self._file.close()
            raise
        self._ids = RisingIds(clock, max(self._pending, default=""))

    def __iter__(self) -> Iterator[Pending]:
        return iter(list(self._pending.values()))

    def __len__(self) -> int:
        return len(self._pending)

    def get(self, message_id: str) -> Pending | None:
        """Return the message with that id, None if it is gone."""
        return self._pending.get(message_id)

    def next(self, peer: int) -> Pending | None:
        """Return the first message to `peer` that may be sent."""
        return next((each for each in self._pending.values() if each.peer == peer and not each.failed), None)

    def add(self, peer: int, content: str) -> Pending:
        """Add a new message."""
        pending = Pending(self._ids.next(), peer, content)
        self._file.execute("INSERT INTO pending (id, peer, content) VALUES (?, ?, ?)", pending[:3])
        self._pending[pending.id] = pending
        return pending

    def mark(self, message_id: str, failed: str) -> Pending:
        """Note why a message failed; with an empty text, it may be sent again."""
        pending = self._pending[message_id]._replace(failed=failed)
        self._file.execute("UPDATE pending SET failed = ? WHERE id = ?", (failed, message_id))
        self._pending[message_id] = pending
        return pending

    def remove(self, message_id: str) -> None:
        """Remove a message that is stored or discarded."""
        self._file.execute("DELETE FROM pending WHERE id = ?", (message_id,))
        del self._pending[message_id]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
