"""Three embedded databases and two servers on them, and the faults that can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pymongo
import redis.asyncio
from pymongo.read_concern import ReadConcern
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from common.tasks import end
from storage.embedded.supervisor import EmbeddedDatabases
from storage.mysql.schema import migrate
from tests.support.database import make_users, mysql_connection
from tests.support.patience import PATIENCE
from tests.support.processes import ServerProcess, external

__all__ = ["Cluster"]

DATABASES = ("mongod", "redis", "mariadbd")
START_WITHIN = 60.0  # seconds after which a server that does not start fails the run
LONGEST_STOPS = (0.3, 1.0, 3.0, 8.0, 30.0)  # seconds for which a process is stopped
STOP_WEIGHTS = (4, 4, 4, 3, 1)

# All devices, and the reader of the histories at the end, have one address.
UNBOUNDED = ("--address-request-rate=1000000", "--address-request-burst=1000000", "--request-rate=1000000")
METRICS_TOKEN = "the token of the storm"
IDLE_FOR = 3.0  # seconds for which a server with silent sockets is observed

Fault = Callable[[], Awaitable[None]]


class _Server:
    """A server that is restarted whenever it has ended, with its log in a file."""

    def __init__(self, program: Sequence[str], flags: Sequence[str], log: Path) -> None:
        self._program = program
        self._flags = flags
        self._log = log
        self._ending = False
        self.port = 0
        self.running: ServerProcess | None = None
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while not self._ending:
            self.running = ServerProcess(
                *self._flags,
                wrapper=("setpriv", "--pdeathsig", "KILL"),
                program=self._program,
                patient=False,
                log=self._log,
            )
            with contextlib.suppress(AssertionError):  # it was killed before it was ready
                self.port = await asyncio.to_thread(self.running.ready)
            await asyncio.to_thread(self.running.process.communicate)
            await asyncio.sleep(0.1)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.running is not None
        return self.running.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self.running is not None:
            self.running.signal(number)

    async def close(self) -> None:
        """End the server without a restart."""
        self._ending = True
        self.send(signal.SIGKILL)
        await self._keeper


class Cluster:
    """Databases and servers, as an asynchronous context.

    No fault stops a process for longer than `longest_stop` seconds. `sabotage` is a kind from `tests.faults.sabotaged`.
    """

    def __init__(
        self, directory: Path, chance: random.Random, *, longest_stop: float, flags: list[str], sabotage: str = ""
    ) -> None:
        self._dir = directory
        self._random = chance
        self._stops = [(s, w) for s, w in zip(LONGEST_STOPS, STOP_WEIGHTS, strict=True) if s <= longest_stop]
        self._flags = flags
        self._sabotage = sabotage
        self._embedded = EmbeddedDatabases(directory / "engines", start_timeout=PATIENCE, death_signal=signal.SIGKILL)
        self._supervisor: asyncio.Task[None] | None = None
        self._servers: list[_Server] = []

    async def __aenter__(self) -> Cluster:
        """Start all processes."""
        addresses = self._embedded.start()
        try:
            with mysql_connection(addresses.mysql) as connection, connection.cursor() as cursor:
                migrate(cursor)
            self._supervise()
            program = ["-m", "tests.faults.sabotaged", self._sabotage] if self._sabotage else ["server.py"]
            flags = [f"--metrics-token={METRICS_TOKEN}", *UNBOUNDED, *self._flags, *external(addresses)]
            self._servers = [_Server(program, flags, self._dir / f"server{number}.log") for number in (1, 2)]
            await self.healed()
        except BaseException:
            await self.__aexit__()
            raise
        shutil.copytree(self._dir / "engines/redis", self._dir / "old", dirs_exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all processes."""
        for server in self._servers:
            await server.close()
        if self._supervisor is not None:
            await end(self._supervisor)
        self._embedded.stop()

    def _supervise(self) -> None:
        self._supervisor = asyncio.create_task(self._embedded.supervise())

    # State

    def people(self, count: int) -> list[int]:
        """Create users; return their ids."""
        with mysql_connection(self._embedded.addresses.mysql) as connection:
            return make_users(connection, count)

    def port(self) -> int:
        """Return the port of one of the servers."""
        return self._random.choice(self._servers).port

    def stored(self, conversation: str) -> list[dict[str, Any]]:
        """Return a conversation's messages that a majority of MongoDB has, in order."""
        with pymongo.MongoClient[dict[str, Any]](self._embedded.addresses.mongo) as client:
            messages = client.tandem.get_collection("messages", read_concern=ReadConcern("majority"))
            return list(messages.find({"conversation": conversation}).sort("_id"))

    def newest(self, conversations: Iterable[str]) -> dict[str, int]:
        """Return the last `seq` that a majority of MongoDB has of each conversation, 0 if it has none."""
        with pymongo.MongoClient[dict[str, Any]](self._embedded.addresses.mongo) as client:
            messages = client.tandem.get_collection("messages", read_concern=ReadConcern("majority"))
            found = {}
            for name in conversations:
                span = {"$gte": {"c": name, "s": 0}, "$lte": {"c": name, "s": 2**62}}
                last = messages.find_one({"_id": span}, {"_id": 1}, sort=[("_id", pymongo.DESCENDING)])
                found[name] = last["_id"]["s"] if last else 0
            return found

    def logged(self) -> Iterator[str]:
        """Yield the bugs that the servers have logged, each with its exceptions."""
        for log in sorted(self._dir.glob("server*.log")):
            text = log.read_text("utf-8", "replace")
            for bug in re.findall(r"^\S+ \[error .*\n(?:(?!\S+ \[\w+ +\]).*\n)*", text, re.MULTILINE):
                event, *trace = bug.splitlines()
                yield " | ".join([f"{log.name}: {event}", *(line for line in trace if re.match(r"\w|  File", line))])

    async def healed(self) -> None:
        """Wait until both servers are ready, with all databases."""
        http = AsyncHTTPClient()
        async with asyncio.timeout(START_WITHIN):
            for server in self._servers:
                while True:
                    with contextlib.suppress(OSError, HTTPClientError):
                        answer = await http.fetch(
                            f"http://127.0.0.1:{server.port}/readyz", raise_error=False, request_timeout=5
                        )
                        if answer.code == 200:
                            break
                    await asyncio.sleep(0.1)

    async def leftovers(self, patience: float) -> list[str]:
        """Return what the servers still hold once all sockets are closed; empty if all is well."""
        found: list[str] = []
        for number, server in enumerate(self._servers, 1):
            held = {"tandem_sockets": 1.0, "tandem_conversations": 1.0}
            deadline = time.monotonic() + patience
            while any(held.values()) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                measured = await self._measured(server)
                held = {name: measured[name] for name in held}
            found += [f"server{number}: {name} is {value:g} without sockets" for name, value in held.items() if value]
        return found

    async def idle_shares(self) -> list[float]:
        """Return the share of a core that each server uses while its sockets are silent."""
        shares = []
        for server in self._servers:
            process = psutil.Process(server.pid)
            begin, begun = time.monotonic(), sum(process.cpu_times()[:2])
            await asyncio.sleep(IDLE_FOR)
            shares.append((sum(process.cpu_times()[:2]) - begun) / (time.monotonic() - begin))
        return shares

    async def held(self) -> str:
        """Return what the servers hold now, as text."""
        lines = []
        for server in self._servers:
            try:
                measured = await self._measured(server)
            except (OSError, HTTPClientError):  # a fault has hit the server
                lines.append("away")
                continue
            memory = measured["process_resident_memory_bytes"] / 2**20
            lines.append(
                f"{memory:.1f} MiB, {measured['process_open_fds']:.0f} files, {measured['tandem_tasks']:.0f} tasks, "
                f"{measured['tandem_conversations']:.0f} conversations, {measured['tandem_sockets']:.0f} sockets"
            )
        return "; ".join(lines)

    async def _measured(self, server: _Server) -> dict[str, float]:
        """Return the server's metrics without labels, by name."""
        http = AsyncHTTPClient()
        headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
        answer = await http.fetch(f"http://127.0.0.1:{server.port}/metrics", headers=headers)
        return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", answer.body.decode(), re.MULTILINE)}

    # Faults

    @property
    def faults(self) -> dict[str, Fault]:
        """The faults by name. Each returns once it is over, though its target may still be recovering."""
        faults: dict[str, Fault] = {
            "server killed": self._kill_server,
            "server stopped": self._stop_server,
            "server ended": self._end_server,
            "redis flushed": self._flush,
            "redis from an old dump": self._old_redis,
            "mongod stopped, server killed": self._late_commit,
        }
        for database in DATABASES:
            faults[f"{database} killed"] = partial(self._kill, database)
            faults[f"{database} stopped"] = partial(self._stop, database)
        return faults

    def _seconds(self) -> float:
        return self._random.choices([s for s, _ in self._stops], [w for _, w in self._stops])[0]

    async def _kill_server(self) -> None:
        self._random.choice(self._servers).send(signal.SIGKILL)

    async def _end_server(self) -> None:
        self._random.choice(self._servers).send(signal.SIGTERM)

    async def _stop_server(self) -> None:
        server = self._random.choice(self._servers)
        server.send(signal.SIGSTOP)
        await asyncio.sleep(self._seconds())
        server.send(signal.SIGCONT)

    def _process(self, database: str) -> psutil.Process:
        return psutil.Process(self._embedded.pids[database])

    async def _kill(self, database: str) -> None:
        self._process(database).kill()

    async def _stop(self, database: str) -> None:
        process = self._process(database)
        process.suspend()
        await asyncio.sleep(self._seconds())
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()

    async def _late_commit(self) -> None:
        """Kill the servers while their inserts wait in mongod's sockets."""
        process = self._process("mongod")
        process.suspend()
        await asyncio.sleep(self._seconds())
        for server in self._servers:
            server.send(signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()

    async def _flush(self) -> None:
        async with redis.asyncio.Redis.from_url(self._embedded.addresses.redis) as client:
            await client.flushall()

    async def _old_redis(self) -> None:
        """Kill Redis and restart it with old data."""
        if self._supervisor is not None:
            await end(self._supervisor)
        try:
            process = self._process("redis")
            process.kill()
            await asyncio.to_thread(process.wait)
            data, old = self._dir / "engines/redis", self._dir / "old"
            kept = self._dir / "kept"
            shutil.copytree(data, kept)
            shutil.rmtree(data)
            old.rename(data)
            kept.rename(old)
        finally:
            self._supervise()
