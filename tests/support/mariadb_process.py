"""A mariadbd for tests of connections: on loopback, with a user that has a password and rights in one database."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pymysql

from storage.embedded import databases
from storage.embedded.processes import LOOK_EVERY
from storage.embedded.programs import find_program
from tests.support.patience import PATIENCE
from tests.support.redis_process import free_port

USER, PASSWORD = "chat", "pass-word"
SHARED = ("--skip-networking", "--skip-ssl")  # what embedded databases have and these have not


class MariaDB(NamedTuple):
    """A running mariadbd: its port on loopback, and a connection of its administrator."""

    port: int
    admin: pymysql.Connection
    process: subprocess.Popen[bytes]

    def url(self, query: str = "", host: str = "localhost") -> str:
        """Return the URL of its database, with options."""
        return f"mysql://{USER}:{PASSWORD}@{host}:{self.port}/tandem?{query}"

    def run(self, statement: str) -> None:
        """Run a statement as the administrator."""
        with self.admin.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def mariadb_process(*arguments: str) -> Iterator[MariaDB]:
    """Start a mariadbd with its data in a temporary directory; end it and remove both."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as name, _started(Path(name), *arguments) as server:
        yield server


@contextmanager
def _started(directory: Path, *arguments: str) -> Iterator[MariaDB]:
    program, path, port = find_program("mariadbd"), directory / "mysql.sock", free_port()
    databases.bootstrap_mariadbd(program, directory, directory, timeout=PATIENCE)
    database = databases.mariadbd(program, directory, path)
    command = [program.path, *(each for each in database.arguments if each not in SHARED)]
    command += ["--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve", *arguments]
    process = subprocess.Popen(command, env=program.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not database.ready():
            assert process.poll() is None and time.monotonic() < deadline, "mariadbd does not answer"
            time.sleep(LOOK_EVERY)
        with pymysql.connect(unix_socket=str(path), user="root", autocommit=True, ssl_disabled=True) as admin:
            server = MariaDB(port, admin, process)
            server.run(f"CREATE OR REPLACE USER {USER} IDENTIFIED BY '{PASSWORD}'")
            server.run(f"GRANT ALL ON tandem.* TO {USER}")
            yield server
    finally:
        process.kill()
        process.wait()
