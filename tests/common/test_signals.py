"""Tests of signals to a server. SIGHUP ends it only if it has lost its terminal."""

from __future__ import annotations

import fcntl
import os
import signal
import ssl
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pymysql
import pytest

from storage.embedded.supervisor import Addresses
from tests.conftest import StartServer
from tests.support.certificates import certificate
from tests.support.processes import ServerProcess, external
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


def in_a_terminal(stack: ExitStack, *flags: str, wrapper: tuple[str, ...] = ()) -> tuple[ServerProcess, int]:
    """Start a server with a controlling terminal. Return it and the terminal's other end; its output goes to pipes."""
    master, slave = os.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    server = ServerProcess(*flags, wrapper=wrapper, stdin=slave, preexec_fn=take_terminal)
    os.close(slave)
    stack.callback(server.kill)
    return server, master


async def socket_of(port: int, pair: tuple[int, int], *, tls: bool) -> RawSocket:
    """Return a WebSocket to a server."""
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await RawSocket.upgraded(port, *pair, tls=context)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_the_terminal_is_closed(
    tls: bool, tmp_path: Path, addresses: Addresses, database: pymysql.Connection, pair: tuple[int, int]
) -> None:
    """When its terminal is closed, the server drains and ends, instead of keeping its port unseen.

    The shell in the terminal may send a SIGHUP besides the kernel's: it is one end all the same.
    """
    with ExitStack() as stack:
        flags = external(addresses)
        if tls:
            certfile, keyfile = certificate(tmp_path, "localhost")
            flags += [f"--certfile={certfile}", f"--keyfile={keyfile}"]
        server, terminal = in_a_terminal(stack, *flags)
        raw = await socket_of(server.ready(), pair, tls=tls)  # draining waits for it
        server.signal(signal.SIGHUP)  # not from the terminal, which is still open
        os.close(terminal)
        assert server.process.stderr
        while "draining" not in (line := server.process.stderr.readline()):
            assert line
        for _ in range(3):
            server.signal(signal.SIGHUP)
        raw.abort()
        assert server.failed()[0] == 0


def test_nohup_is_heeded(addresses: Addresses, database: pymysql.Connection) -> None:
    """A server that was started with nohup outlives its terminal."""
    with ExitStack() as stack:
        server, terminal = in_a_terminal(stack, *external(addresses), wrapper=("nohup",))
        server.ready()
        os.close(terminal)
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGTERM)
        status, errors = server.failed()
        assert (status, errors.count("draining")) == (0, 1)
