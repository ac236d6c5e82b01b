"""Tests of signals to a server. SIGHUP ends it only if it has lost its terminal."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pymysql
import pytest

from storage.embedded.supervisor import Addresses
from tests.conftest import StartServer
from tests.support.certificates import certificate
from tests.support.patience import PATIENCE
from tests.support.processes import ROOT, external
from tests.support.sockets import RawSocket


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Set SIGHUP to its default, since nohup, with which tests may be run, sets it to be ignored by child processes."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
async def test_a_signal_that_means_nothing(
    number: signal.Signals, start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """SIGUSR1, SIGUSR2 and, without TLS, SIGHUP are logged and do nothing else, however often they come."""
    server = start_server(*external(addresses))
    port = server.ready()
    for _ in range(3):
        server.signal(number)
        raw = await RawSocket.open(port)
        assert (await raw.request("/ping"))[0] == 200
        raw.abort()
    server.signal(signal.SIGTERM)
    status, errors = server.failed()
    assert (status, "_ignored" in errors) == (0, True)


def in_a_terminal(stack: ExitStack, command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """Start a command with a controlling terminal. Return it and the terminal's other end; its output goes to pipes."""
    master, slave = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_terminal,
    )
    os.close(slave)
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process, master


def socket_of(server: subprocess.Popen[str], pair: tuple[int, int], *, tls: bool) -> socket.socket:
    """Return a WebSocket to a server that has just said where it listens."""
    assert server.stdout
    ready = re.match("Tandem is ready: https?://[^ ]*:([0-9]+)", server.stdout.readline())
    assert ready
    connection = socket.create_connection(("127.0.0.1", int(ready[1])), PATIENCE)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    path = f"/ws?uid={pair[0]}&toUid={pair[1]}"
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 101 ")
    return connection


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_terminal_is_closed(
    tls: bool, tmp_path: Path, addresses: Addresses, database: pymysql.Connection, pair: tuple[int, int]
) -> None:
    """When its terminal is closed, the server drains and ends, instead of keeping its port unseen.

    The shell in the terminal may send a SIGHUP besides the kernel's: it is one end all the same.
    """
    with ExitStack() as stack:
        command = [sys.executable, "server.py", "--port=0", *external(addresses)]
        if tls:
            certfile, keyfile = certificate(tmp_path, "localhost")
            command += [f"--certfile={certfile}", f"--keyfile={keyfile}"]
        server, terminal = in_a_terminal(stack, command)
        assert server.stderr
        with socket_of(server, pair, tls=tls):  # draining waits for it
            server.send_signal(signal.SIGHUP)  # not from the terminal, which is still open
            os.close(terminal)
            while "draining" not in (line := server.stderr.readline()):
                assert line
            for _ in range(3):
                server.send_signal(signal.SIGHUP)
        server.communicate(timeout=PATIENCE)
        assert server.returncode == 0


def test_nohup_is_heeded(addresses: Addresses, database: pymysql.Connection) -> None:
    """A server that was started with nohup outlives its terminal."""
    with ExitStack() as stack:
        command = ["nohup", sys.executable, "server.py", "--port=0", *external(addresses)]
        server, terminal = in_a_terminal(stack, command)
        assert server.stdout
        assert server.stdout.readline().startswith("Tandem is ready")
        os.close(terminal)
        server.send_signal(signal.SIGHUP)
        server.terminate()
        _, errors = server.communicate(timeout=PATIENCE)
        assert (server.returncode, errors.count("draining")) == (0, 1)
