"""Tests of the connection to a MySQL that offers TLS."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pymysql

from storage.embedded import databases
from storage.embedded.programs import find_program
from storage.mysql.executor import MySQL
from tests.support.certificates import certificate
from tests.support.sockets import until


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@asynccontextmanager
async def mariadb_with_tls() -> AsyncIterator[int]:
    """Start a MariaDB with a self-signed certificate. Return its port on loopback."""
    program = find_program("mariadbd")
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as name, socket.socket() as free:
        directory = Path(name)
        certfile, keyfile = certificate(directory, "localhost")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        databases.bootstrap_mariadbd(program, directory, directory, timeout=60)
        database = databases.mariadbd(program, directory, directory / "mysql.sock")
        arguments = [each for each in database.arguments if each not in ("--skip-networking", "--skip-ssl")]
        arguments += ["--bind-address=127.0.0.1", f"--port={port}", f"--ssl-cert={certfile}", f"--ssl-key={keyfile}"]
        process = start([program.path, *arguments, "--require-secure-transport=ON"], program.environment)
        try:
            await until(database.ready)
            with pymysql.connect(unix_socket=str(directory / "mysql.sock"), user="root") as connection:
                connection.cursor().execute("CREATE USER u@'%' IDENTIFIED BY 'pw'")
                connection.cursor().execute("GRANT ALL ON tandem.* TO u@'%'")
            yield port
        finally:
            process.kill()
            process.wait()


async def test_tls_is_used_where_it_is_offered() -> None:
    """The connection uses TLS if MySQL offers it, without verifying the certificate, as docs/security.md says."""
    async with mariadb_with_tls() as port:
        mysql = MySQL(f"mysql://u:pw@127.0.0.1:{port}/tandem", timeout=15, threads=1, waiting=1)

        def cipher(cursor: pymysql.cursors.Cursor) -> tuple[str, str] | None:
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            return cursor.fetchone()  # type: ignore[return-value]

        found = await mysql.run(cipher)
        assert found
        assert found[1]
        await mysql.close()
