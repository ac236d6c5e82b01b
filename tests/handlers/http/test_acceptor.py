"""Tests of the acceptor: connections are accepted, and a lack of descriptors is logged once."""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from handlers.http import acceptor
from handlers.http.acceptor import Acceptor
from tests.conftest import StartServer
from tests.support.processes import external
from tests.support.sockets import RawSocket, until


class Listening:
    """A fake listening socket whose `accept` fails as often as a test needs."""

    def __init__(self) -> None:
        self.real = socket.create_server(("127.0.0.1", 0))
        self.real.setblocking(False)
        self.failures: list[OSError] = []

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> Any:
        if self.failures:
            raise self.failures.pop()
        return self.real.accept()


FULL = [OSError(errno.EMFILE, "Too many open files") for _ in range(3)]


@pytest.mark.parametrize(
    ("failures", "events"),
    [
        ([], []),
        (FULL, ["accept_paused", "accept_resumed"]),
        ([OSError(errno.ENOBUFS, "No buffer space available")], ["accept_paused", "accept_resumed"]),
        ([ConnectionAbortedError()], []),
    ],
)
async def test_failures(failures: list[OSError], events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage and its end are logged once each, and clients in the queue are accepted then."""
    monkeypatch.setattr(acceptor, "PAUSE", 0.01)
    listening, taken = Listening(), []
    listening.failures = list(failures)
    with capture_logs() as logs:
        accepting = Acceptor(listening, lambda *connection: taken.append(connection))  # type: ignore[arg-type]
        with socket.create_connection(listening.real.getsockname()) as client:
            await until(lambda: taken)
            assert taken[0][1] == client.getsockname()
    taken[0][0].close()
    assert [entry["event"] for entry in logs] == events
    accepting.stop()
    listening.real.close()


async def test_many_outages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several short outages are logged once."""
    monkeypatch.setattr(acceptor, "PAUSE", 0.0)
    listening, taken = Listening(), []
    with capture_logs() as logs:
        accepting = Acceptor(listening, lambda *connection: taken.append(connection))  # type: ignore[arg-type]
        for number in range(1, 6):
            listening.failures = [OSError(errno.EMFILE, "Too many open files")]
            with socket.create_connection(listening.real.getsockname()):
                await until(lambda number=number: len(taken) == number)
    for connection, _ in taken:
        connection.close()
    assert [entry["event"] for entry in logs] == ["accept_paused", "accept_resumed"]
    accepting.stop()
    listening.real.close()


@pytest.mark.parametrize("paused", [False, True])
async def test_stopping(paused: bool) -> None:
    """After `stop` nothing is accepted, also during a pause."""
    listening, taken = Listening(), []
    listening.failures = list(FULL) if paused else []
    accepting = Acceptor(listening, lambda *connection: taken.append(connection))  # type: ignore[arg-type]
    with socket.create_connection(listening.real.getsockname()):
        if paused:
            await until(lambda: len(listening.failures) < len(FULL))
        accepting.stop()
        await asyncio.sleep(0.02)
    assert not taken
    listening.real.close()


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_no_descriptor_is_left(start_server: StartServer, addresses: Any, database: Any) -> None:
    """Without a descriptor open connections go on, one line is logged, and new ones are served once there is one."""
    server = start_server(*external(addresses), "--auth=open")
    port, pid = server.ready(), server.process.pid
    first = await RawSocket.open(port)
    assert (await first.request("/ping"))[0] == 200
    most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + 5, most[1]))
    silent = [await RawSocket.open(port) for _ in range(10)]
    assert (await first.request("/ping"))[0] == 200
    resource.prlimit(pid, resource.RLIMIT_NOFILE, most)
    for raw in silent:
        assert (await raw.request("/ping"))[0] == 200
        raw.abort()
    first.abort()
    server.signal(signal.SIGTERM)
    status, errors = server.failed()
    assert (status, errors.count("accept_paused"), errors.count("Traceback")) == (0, 1, 0)
