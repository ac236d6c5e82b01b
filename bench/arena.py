"""The surroundings of a scenario: databases of its own, the real server on them, and users who may chat.

Each scenario has an arena of its own, so that no scenario finds another one's data, whatever the order.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import psutil
from rich.console import Console

from bench.alarm import UnexpectedError
from storage.embedded.supervisor import EmbeddedDatabases
from tests.support.database import mysql_connection
from tests.support.processes import Program, ServerProcess, embedded_databases, external

__all__ = ["OPEN_FILES", "Arena", "arena"]

ROOT = Path(__file__).resolve().parent.parent
USERS = 40_000
OPEN_FILES = 20_000  # of the server, and of the load generator
PATIENCE = 30.0  # seconds for the server to notice closed sockets
LOOK_EVERY = 0.02  # seconds between two checks
MOST_SHOWN = 20  # lines of the server's log
FLAGS = (
    "--auth=open",
    "--log-level=warning",
    # Limits that the load of a bench would reach.
    "--request-rate=1000000",
    "--request-burst=1000000",
    "--address-request-rate=1000000",
    "--address-request-burst=1000000",
    "--strangers-per-hour=1000000",
    "--bytes-per-day=1000000000000",
    "--max-connections=19000",
    "--max-address-connections=19000",
    "--max-user-connections=19000",
    "--max-address-http-connections=800",
    "--max-http-connections=800",
    # On a slow machine a late answer is a figure, not a fault.
    "--answer-timeout=30",
    "--engine-timeout=20",
)


class Arena:
    """Running databases and a server; `flags` are the server's, in addition to the bench's."""

    def __init__(self, embedded: EmbeddedDatabases, flags: Sequence[str], console: Console) -> None:
        self._embedded = embedded
        self._flags = flags
        self._console = console
        self._server: ServerProcess | None = None
        self._users = iter(range(0))
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        """What clients need for a server under TLS; they do not check who it is."""
        self.processes: dict[str, psutil.Process] = {}
        """The server's process as `server`, the load generator's as `load`, and those of the databases."""

    @property
    def mongo(self) -> str:
        """The URL of its mongod."""
        return self._embedded.addresses.mongo

    @property
    def redis(self) -> str:
        """The URL of its redis-server."""
        return self._embedded.addresses.redis

    @property
    def mysql(self) -> str:
        """The URL of its mariadbd."""
        return self._embedded.addresses.mysql

    def start(self, certificate: tuple[Path, Path] | None = None) -> None:
        """Start the server, under TLS with a certificate and its key. Raises UnexpectedError if it does not start."""
        flags, self.tls = list(self._flags), None
        if certificate is not None:
            flags += [f"--certfile={certificate[0]}", f"--keyfile={certificate[1]}"]
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self._server = ServerProcess(*external(self._embedded.addresses), *FLAGS, *flags)
        try:
            self.port = self._server.ready()
        except AssertionError as error:
            raise UnexpectedError(f"the server does not start: {error}") from None
        databases = {name: psutil.Process(pid) for name, pid in self._embedded.pids.items()}
        self.processes = {"server": psutil.Process(self._server.process.pid)} | databases | {"load": psutil.Process()}

    def end(self) -> None:
        """End the server as an operator does, and show its log. Raises UnexpectedError if it ends with an error."""
        server, self._server = self._server, None
        if server is None:
            return
        status, logged = 0, ""
        try:
            server.process.terminate()
            status, logged = server.failed()
        except subprocess.TimeoutExpired:
            raise UnexpectedError("the server does not end") from None
        finally:
            server.kill()
        self._show(logged)
        if status:
            raise UnexpectedError(f"the server ended with status {status}")

    def kill(self) -> None:
        """End the server at once, and show its log."""
        server, self._server = self._server, None
        if server is not None:
            server.process.kill()
            self._show(server.process.communicate()[1])

    def warn(self, text: str) -> None:
        """Show a problem that does not end the bench."""
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def _show(self, logged: str) -> None:
        lines = logged.splitlines()
        for line in lines[:MOST_SHOWN]:
            self.warn(f"the server logged: {line}")
        if len(lines) > MOST_SHOWN:
            self.warn(f"the server logged {len(lines) - MOST_SHOWN} more lines")

    def restart(self, certificate: tuple[Path, Path] | None = None) -> None:
        """End the server and start another one on the same databases, under TLS with a certificate and its key."""
        self.end()
        self.start(certificate)

    def make_users(self) -> None:
        """Insert the users' rows. Registering them would take hours, since each costs a password's digest."""
        with mysql_connection(self.mysql) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COALESCE(MAX(id), 0) FROM `user`")
            row = cursor.fetchone()
            first = int(row[0]) + 1 if row else 1
            ids = range(first, first + USERS)
            rows = ",".join(f"({each},NOW(),NOW(),'bench{each}','active')" for each in ids)
            cursor.execute(f"INSERT INTO `user` (id, created_at, updated_at, user_name, status) VALUES {rows}")  # noqa: S608
        self._users = iter(ids)

    def users(self, count: int) -> list[int]:
        """Return ids of users that were not returned before. Raises ValueError if none is left."""
        taken = [each for each, _ in zip(self._users, range(count), strict=False)]
        if len(taken) < count:
            raise ValueError("the scenario needs more users than there are")
        return taken

    async def await_sockets(self, count: int, *, port: int = 0) -> None:
        """Wait until the server, or another one on a port, has exactly so many open sockets. Raises UnexpectedError."""
        deadline = perf_counter() + PATIENCE
        while (found := self._open_sockets(port or self.port)) != count:
            if perf_counter() > deadline:
                raise UnexpectedError(f"the server has {found} sockets open instead of {count}")
            await asyncio.sleep(LOOK_EVERY)

    def _open_sockets(self, port: int) -> int:
        url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}/healthz"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=self.tls) as answer:  # noqa: S310  # a URL of ours
            return int(json.load(answer)["data"]["sockets"])

    @contextmanager
    def yardstick(self, *arguments: str) -> Iterator[tuple[int, dict[str, psutil.Process]]]:
        """Start a yardstick (bench/yardsticks.py) on the same databases.

        Yields its port and the processes, with the yardstick as `server`.
        """
        databases = (f"--mongo={self.mongo}", f"--redis={self.redis}")
        yardstick = Program([sys.executable, "-m", "bench.yardsticks", *arguments, *databases])
        try:
            port = yardstick.ready()
            yield port, self.processes | {"server": psutil.Process(yardstick.process.pid)}
        except AssertionError as error:
            raise UnexpectedError(f"a yardstick does not start: {error}") from None
        finally:
            yardstick.kill()  # it has no data to keep


@contextmanager
def arena(flags: Sequence[str], console: Console) -> Iterator[Arena]:
    """Start databases and a server with users, and remove all of it afterwards.

    Raises UnexpectedError, DatabaseStartError.
    """
    with embedded_databases() as embedded:
        running = Arena(embedded, flags, console)
        try:
            running.start()
            running.make_users()
            yield running
        except BaseException:
            running.kill()  # the cause is known already
            raise
        running.end()
