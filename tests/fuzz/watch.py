"""Watch the server: findings, its log, its health, its memory and its open files."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import psutil
from tornado.httpclient import AsyncHTTPClient, HTTPError

from common.tasks import end
from tests.support.patience import PATIENCE as ANSWERED
from tests.support.processes import ServerProcess

__all__ = ["Findings", "Log", "Resources", "Watch"]

PATIENCE = 2 * ANSWERED  # seconds after which an expected answer counts as missing; servers answer long before
LOOK_EVERY = 0.25  # seconds between two health requests
EXAMPLES = 5  # the maximum of findings of one kind that are shown in full
LONGEST = 3000  # characters of a finding


class Findings:
    """The findings; those of one kind are counted, and the first ones are kept."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.examples: list[str] = []

    def report(self, kind: str, detail: str = "") -> None:
        """Record a finding of a kind."""
        self.counted[kind] += 1
        if self.counted[kind] <= EXAMPLES:
            self.examples.append(f"{kind}: {detail[:LONGEST]}")

    def __bool__(self) -> bool:
        return bool(self.counted)


class Log:
    """The server's log in JSON, read in a thread, so that the server never waits for its reader."""

    def __init__(self, lines: Iterable[str], findings: Findings, marker: str) -> None:
        self.levels: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._findings = findings
        self._marker = marker
        self._thread = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._thread.start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._look_at(line)

    def _look_at(self, line: str) -> None:
        if self._marker in line:
            self._findings.report("the secret marker in the log", line)
        try:
            entry = json.loads(line)
            level, event = entry["level"], entry["event"]
        except (ValueError, TypeError, KeyError):
            self._findings.report("a line that is not of the log on standard error", line)
            return
        self.levels[level] += 1
        self.events[f"{event} {str(entry.get('reason', ''))[:60]}".strip()] += 1
        if level in ("error", "critical"):
            trace = entry.pop("exception", "")
            self._findings.report(f"a log line of level {level}", f"{json.dumps(entry)}\n{trace[-LONGEST // 2 :]}")

    def close(self) -> None:
        """Wait until the stream has ended."""
        self._thread.join(PATIENCE)


class Resources(NamedTuple):
    """The server's resources: memory in bytes, open files, connections to its port, sockets in its registry."""

    rss: int
    files: int
    connections: int
    sockets: int


class Watch:
    """Requests the server's health all the time, as an asynchronous context."""

    def __init__(self, server: ServerProcess, findings: Findings) -> None:
        self._server = server
        self._process = psutil.Process(server.process.pid)
        self._findings = findings
        self._http = AsyncHTTPClient(force_instance=True)
        self._task: asyncio.Task[None] | None = None
        self.peak = 0  # bytes of memory
        self.slowest = 0.0  # seconds until an answer to a health request
        self.asked = 0

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._keep_asking())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await end(self._task)
        self._http.close()

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._server.process.poll() is None

    async def ended(self) -> None:
        """Wait until the server has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _keep_asking(self) -> None:
        while self.lives:
            began = time.monotonic()
            try:
                await self._registered()
                self.peak = max(self.peak, self._process.memory_info().rss)
            except (OSError, HTTPError, psutil.Error) as error:
                self._findings.report("a health request without an answer", repr(error))
            self.asked += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(LOOK_EVERY)
        self._findings.report("the server has ended", f"status {self._server.process.returncode}")

    async def _registered(self) -> int:
        """Return the number of sockets in the registry."""
        url = f"http://127.0.0.1:{self._server.port}/healthz"
        answer = await self._http.fetch(url, request_timeout=PATIENCE, connect_timeout=PATIENCE)
        return int(json.loads(answer.body)["data"]["sockets"])

    async def _held(self) -> Resources:
        sockets = await self._registered()
        at_port = [
            each
            for each in self._process.net_connections("tcp")
            if each.laddr.port == self._server.port and each.status != psutil.CONN_LISTEN
        ]
        return Resources(self._process.memory_info().rss, self._process.num_fds(), len(at_port), sockets)

    async def settled(self, sockets: int, patience: float = PATIENCE) -> Resources | None:
        """Return the server's resources once it has at most so many sockets and connections; None if it never does."""
        deadline = time.monotonic() + patience
        held = None
        while self.lives:
            try:
                held = await self._held()
            except (OSError, HTTPError, psutil.Error) as error:
                self._findings.report("a health request without an answer", repr(error))
                return None
            if held.sockets == sockets and held.connections == sockets:
                return held
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(LOOK_EVERY)
        if self.lives:
            self._findings.report("sockets that never went away", f"{held}, and {sockets} are expected")
        return None
