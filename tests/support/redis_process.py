"""A redis-server for one test, which can become a replica or a node of a cluster."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from storage.embedded.programs import find_program
from tests.support.certificates import Authority
from tests.support.patience import PATIENCE


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def url_of(path: Path) -> str:
    """Return the URL of a redis-server with this socket."""
    return f"unix://{quote(str(path))}"


@contextmanager
def redis_process(directory: Path, name: str, *arguments: str) -> Iterator[Path]:
    """Start a redis-server, without a TCP port unless the arguments name one; yield the path of its socket."""
    program, path = find_program("redis-server"), directory / f"{name}.sock"
    file = directory / f"{name}.conf"
    file.touch()  # a Sentinel needs this file and writes to it
    command = [program.path, str(file), "--unixsocket", str(path), "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "no"]
    if "--port" not in arguments:
        command += ["--port", "0"]
    process = subprocess.Popen([*command, *arguments], env=program.environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(path):
            assert process.poll() is None and time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis_with_tls(directory: Path, authority: Authority) -> Iterator[tuple[Path, int]]:
    """Start a redis-server with a certificate for localhost; yield its socket and its port for TLS.

    On the port it requires a certificate of the same CA from clients.
    """
    (certfile, keyfile), port = authority.issue("localhost"), free_port()
    tls = {"port": port, "cert-file": certfile, "key-file": keyfile, "ca-cert-file": authority.file}
    arguments = [part for name, value in tls.items() for part in (f"--tls-{name}", str(value))]
    with redis_process(directory, "tls", "--bind", "127.0.0.1", *arguments) as path:
        yield path, port


def _answers(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False
