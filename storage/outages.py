"""Log outages of the databases: once when one begins, with its cause, and once when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from models.errors import DatabaseReadOnly, DatabaseRefused, Refused, StorageUnavailable

__all__ = ["Outages"]

QUIET = 10.0  # seconds after an outage in which the next one is not logged: a flapping database must not fill the log
REPEAT = 60.0  # seconds after which a permanent error is logged again, unless it is known to last

_log = structlog.get_logger(__name__)


class Outages:
    """Watch the calls to one database. All clients of a database share one object.

    An outage begins with a call that raises StorageUnavailable, and is logged as `outage_began`. It ends with an answer
    to a call that began after the last such error, and is logged as `outage_ended`. An outage that begins within QUIET
    seconds of the last one is logged only if it goes on.

    DatabaseReadOnly is not an outage, since the database answers. It is logged in the same way, as `read_only_began`
    and `read_only_ended`. Only a call that writes ends it.

    DatabaseRefused is not an outage either. It is logged as `database_refused`, once in REPEAT seconds for each kind.
    What a check is refused that tries all that a database is used for, is logged once for as long as the check is
    refused, and its end as `refusal_ended`.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, database: str, clock: Callable[[], float]) -> None:
        self._outage = _Period("outage", database, clock)
        self._read_only = _Period("read_only", database, clock)
        self._refusals = _Refusals(database, clock)

    @property
    def away(self) -> bool:
        """Whether there is an outage, as far as the last calls tell."""
        return self._outage.began is not None

    @contextmanager
    def watch(self, *, writes: bool = False, complete: bool = False) -> Iterator[None]:
        """Watch one call, which raises errors of models/errors.py. A cancelled call does not count.

        `writes` says that the call succeeds only if the database takes writes, and `complete` that it succeeds only if
        the database takes all that it is used for.
        """
        failures, unwritten, refused = self._outage.failures, self._read_only.failures, self._refusals.count
        try:
            yield
        except DatabaseReadOnly as error:
            self._outage.answered(failures)
            self._read_only.failed(str(error))
            raise
        except DatabaseRefused as error:
            self._outage.answered(failures)
            self._refusals.refused(error, complete=complete)
            raise
        except StorageUnavailable as error:
            self._outage.failed(str(error))
            raise
        except Refused:
            self._outage.answered(failures)
            raise
        else:
            self._outage.answered(failures)
            if writes or complete:
                self._read_only.answered(unwritten)
            if complete:
                self._refusals.accepted(refused)


class _Period:
    """A period in which calls to a database fail for one reason, and the log events of its beginning and its end."""

    def __init__(self, event: str, database: str, clock: Callable[[], float]) -> None:
        self._event = event
        self._database = database
        self._clock = clock
        self.failures = 0  # how many calls have failed
        self.began: float | None = None  # when the current period began
        self._logged = False  # whether its beginning was logged
        self._quiet_until = clock()

    def failed(self, reason: str) -> None:
        """Record that a call has failed."""
        now = self._clock()
        self.failures += 1
        if self.began is None:
            self.began = now
        if not self._logged and now >= self._quiet_until:
            self._logged = True
            _log.warning(f"{self._event}_began", database=self._database, reason=reason)

    def answered(self, failures: int) -> None:
        """Record an answer to a call that began after so many failures."""
        if self.began is None or failures != self.failures:
            return
        now = self._clock()
        if self._logged:
            self._quiet_until = now + QUIET
            _log.warning(f"{self._event}_ended", database=self._database, seconds=round(now - self.began, 1))
        self.began, self._logged = None, False


class _Refusals:
    """What a database refuses, and the log events of it and of its end."""

    def __init__(self, database: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self.count = 0  # how many calls were refused
        self._since: float | None = None  # when complete calls began to be refused
        self._lasting: set[str] = set()  # the kinds with which they were
        self._logged: set[str] = set()  # the kinds that were logged since the last complete call that succeeded
        self._quiet_until: dict[str, float] = {}  # until when a kind is not logged again

    def refused(self, error: DatabaseRefused, *, complete: bool) -> None:
        """Record that a call was refused."""
        now, kind = self._clock(), error.kind
        self.count += 1
        if complete:
            self._lasting.add(kind)
            if self._since is None:
                self._since = now
        if kind in self._lasting & self._logged or now < self._quiet_until.get(kind, now):
            return
        self._logged.add(kind)
        self._quiet_until[kind] = now + REPEAT
        _log.error("database_refused", database=self._database, reason=str(error))

    def accepted(self, count: int) -> None:
        """Record that a complete call succeeded that began after so many refusals."""
        if count != self.count:
            return
        if self._since is not None and self._lasting & self._logged:
            now = self._clock()
            self._quiet_until |= dict.fromkeys(self._lasting, now + QUIET)
            _log.warning("refusal_ended", database=self._database, seconds=round(now - self._since, 1))
        self._since = None
        self._lasting.clear()
        self._logged.clear()
