"""The hosts of MySQL: connect to one that takes writes, and leave one that does not.

When a connection is made, the hosts are tried in the URL's order. The first one that takes writes is used. If there is
none, the first one that answers is used, so that reads go on. A host that could not be used is tried after the others
for a while, since finding that out again may take as long as a timeout.

A server may become read-only while connections to it are open. When one of them finds that out, the connections of all
threads are replaced before their next use. That is also done for a single host: its name may lead to another server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pymysql
import structlog
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from storage.mysql.errors import NOT_READY, READ_ONLY_MODE, code_of, is_read_only
from storage.mysql.url import Address, Host

__all__ = ["HostConnection", "Hosts", "require_writable"]

AVOID_FOR = 30.0  # seconds for which a host that could not be used is tried after the others
LEAVE_EVERY = 1.0  # seconds between two times that all connections are replaced
CANNOT_CONNECT = 2003
READ_ONLY_VARIABLES = ("read_only", "innodb_read_only", "transaction_read_only", "tx_read_only")  # of all versions
GALERA = "wsrep_on"

_log = structlog.get_logger(__name__)


class HostConnection(Connection):
    """A connection to `server`, which is closed when its thread has ended. `generation` is for Hosts."""

    def __init__(self, server: Host, generation: int, arguments: dict[str, Any]) -> None:
        self.server = server
        self.generation = generation
        super().__init__(host=server.name, port=server.port, **arguments)

    def __del__(self) -> None:
        with suppress(pymysql.MySQLError):
            self.close()


class Hosts:
    """The hosts of an address. The threads share one object. `clock` is monotonic, in seconds."""

    def __init__(self, address: Address, clock: Callable[[], float]) -> None:
        self._hosts = address.hosts
        self._arguments = address.arguments
        self._clock = clock
        self._lock = threading.Lock()
        self._generation = 0  # older connections are replaced
        self._left = clock() - LEAVE_EVERY  # when the generation was last changed
        self._avoided: dict[Host, tuple[float, str]] = {}  # until when a host is tried after the others, and why
        self._used = address.hosts[0]

    def connect(self) -> HostConnection:
        """Connect to a host, if possible to one that takes writes. Raises the driver's errors."""
        generation = self._generation
        if len(self._hosts) == 1:
            return HostConnection(self._used, generation, self._arguments)
        errors: dict[Host, tuple[int, str]] = {}  # not the errors themselves, which would keep their connections
        readable = None
        for host in self._ordered():
            try:
                made = HostConnection(host, generation, self._arguments)
                try:
                    with made.cursor() as cursor:
                        require_writable(cursor)
                except pymysql.MySQLError as error:
                    if is_read_only(error):
                        readable = readable or made
                    raise
            except (pymysql.MySQLError, OSError) as error:
                errors[host] = code_of(error), str(error)
                self.avoid(host, str(error))
            else:
                self._use(host, writable=True)
                return made
        if readable is None:
            raise _joined(errors)
        self._use(readable.server, writable=False)
        return readable

    def avoid(self, host: Host, reason: str) -> None:
        """Try this host after the others for a while."""
        with self._lock:
            self._avoided[host] = self._clock() + AVOID_FOR, reason

    def is_current(self, connection: HostConnection) -> bool:
        """Return whether a connection may still be used."""
        return connection.generation == self._generation

    def leave(self, connection: HostConnection, reason: str) -> bool:
        """Replace all connections, since the server of this one refuses what another may do.

        Return False if they were replaced just now, so that another attempt is of no use.
        """
        self.avoid(connection.server, reason)
        with self._lock:
            if connection.generation != self._generation:  # another thread has found the same
                return True
            now = self._clock()
            if now - self._left < LEAVE_EVERY:
                return False
            self._left = now
            self._generation += 1
            return True

    def _ordered(self) -> Sequence[Host]:
        with self._lock:
            now = self._clock()
            return sorted(self._hosts, key=lambda host: host in self._avoided and self._avoided[host][0] > now)

    def _use(self, host: Host, *, writable: bool) -> None:
        """Note which host connections are made to, and log it if that was another one before."""
        with self._lock:
            if writable:
                self._avoided.pop(host, None)
            if host == self._used:
                return
            self._used = host
            why = {each: reason for each, (until, reason) in self._avoided.items() if until > self._clock()}
        _log.warning("mysql_host_changed", host=str(host), reason=_listed(why) or "it takes writes")


def require_writable(cursor: Cursor) -> None:
    """Raise the driver's error of a server that is read-only, or of a Galera node that is not ready.

    A user with the right to write nevertheless makes no difference, since the server is a replica.
    """
    names = ", ".join(f"'{name}'" for name in (*READ_ONLY_VARIABLES, GALERA))
    cursor.execute(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    on = {name for name, value in cursor.fetchall() if value != "OFF"}
    if GALERA in on:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'wsrep_ready'")
        _, ready = cursor.fetchone() or ("", "OFF")
        if ready != "ON":
            raise pymysql.OperationalError(NOT_READY, "the Galera node is not ready")
    if read_only := sorted(on - {GALERA}):
        raise pymysql.OperationalError(READ_ONLY_MODE, f"the server is read-only: {', '.join(read_only)}")


def _joined(errors: dict[Host, tuple[int, str]]) -> Exception:
    """Return an error for hosts none of which can be used: a permanent one only if it is the same for all of them."""
    codes = {code for code, _ in errors.values()}
    texts = {host: text for host, (_, text) in errors.items()}
    return pymysql.OperationalError(codes.pop() if len(codes) == 1 else CANNOT_CONNECT, _listed(texts))


def _listed(reasons: dict[Host, str]) -> str:
    return "; ".join(f"{host}: {reason}" for host, reason in reasons.items())
