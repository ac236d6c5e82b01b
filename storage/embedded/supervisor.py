"""The private engines of the embedded default: a mongod, a redis-server and a mariadbd of the server's own.

They are child processes that listen on unix sockets alone, in a directory that only the server's user may
enter, and keep their data there for the next start. Three things keep two of one kind off one directory:

- the server holds a lock on `server.lock`: a second server is told so;
- the engines inherit the open `engines.lock`, which therefore stays locked exactly as long as one of them
  lives: what a killed server left behind is found by it and ended before anything is started;
- an engine is told by the kernel when its server dies, and shuts down by itself.

One that ends while its server runs is started again, each time after twice the pause:

    running --ends--> pausing --pause is over--> running --HEALTHY_AFTER--> the next pause is the shortest again
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psutil
import structlog

from storage.embedded import databases
from storage.embedded.data_directory import KEY_FILE, DataDirectory, DataDirectoryError
from storage.embedded.database_log import DatabaseLog
from storage.embedded.databases import LOG_TAIL, Database, DatabaseError
from storage.embedded.processes import LOOK_EVERY, end_processes
from storage.embedded.programs import ProgramError, find_program

__all__ = ["KEY_FILE", "Addresses", "DatabaseStartError", "EmbeddedDatabases"]

SUPERVISE_EVERY = 0.125  # seconds between two looks at running engines and their logs
# Seconds from an engine's end to its next start. The shortest one also lets the server learn that it is to end itself:
# a service manager may tell all of its processes at once.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
HEALTHY_AFTER = 10.0  # seconds of running after which an engine's earlier ends count no more
WHAT_NAMES = {"mongod": "mongodb", "mariadbd": "mysql"}  # what the rest of the server calls them

_log = structlog.get_logger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class DatabaseStartError(Exception):
    """The private engines cannot be started; the text says which one, where it was looked for, and why."""


class Addresses(NamedTuple):
    """The URLs of the three engines."""

    mongo: str
    redis: str
    mysql: str


class _DatabaseProcess:
    """One engine: the database, its log, and the process that it is now."""

    def __init__(self, database: Database, log: DatabaseLog) -> None:
        self.database = database
        self.name = database.name
        self.ready = database.ready
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0  # monotonic
        self.ends = 0  # in a row: without HEALTHY_AFTER between one and the next
        self.start_at: float | None = None  # monotonic, while it pauses

    @property
    def pause(self) -> float:
        """Seconds between the end just noticed and the next start."""
        return float(min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self.ends - 1, 16)))


class EmbeddedDatabases:
    """The three engines below `data_dir`; `start_timeout` in seconds, `death_signal` is sent when their server dies.

    `start` and `stop` block and belong outside the event loop's life, `supervise` inside it. All three must
    run in the main thread: the kernel ties an engine's life to the thread that started it. Raises DatabaseStartError.
    """

    def __init__(self, data_dir: Path, start_timeout: float, death_signal: int = signal.SIGTERM) -> None:
        try:
            self._directory = DataDirectory(data_dir)
        except DataDirectoryError as error:
            raise DatabaseStartError(str(error)) from None
        self._death_signal = death_signal
        self._start_timeout = start_timeout
        self._processes: list[_DatabaseProcess] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running engines, by name."""
        return {engine.name: engine.process.pid for engine in self._processes if engine.process}

    def start(self) -> Addresses:
        """Starts the engines and waits until all three answer. Raises DatabaseStartError."""
        try:
            self._directory.claim()
            mongod, redis_server, mariadbd = (find_program(name) for name in ("mongod", "redis-server", "mariadbd"))
            path, place = self._directory.path, self._directory.socket
            databases.bootstrap_mariadbd(mariadbd, path, place("mysql").parent, self._start_timeout * 4)
            self._processes = [
                _DatabaseProcess(database, DatabaseLog(path / f"{database.name}.log"))
                for database in (
                    databases.mongod(mongod, path, place("mongod")),
                    databases.redis_server(redis_server, path, place("redis")),
                    databases.mariadbd(mariadbd, path, place("mysql")),
                )
            ]
            for engine in self._processes:
                self._spawn(engine)
            for engine in self._processes:
                self._await_ready(engine)
        except (OSError, subprocess.SubprocessError, ProgramError, DatabaseError, DataDirectoryError) as error:
            self.stop()
            raise DatabaseStartError(str(error)) from None
        except BaseException:
            self.stop()
            raise
        return self.addresses

    @property
    def addresses(self) -> Addresses:
        """Where the engines listen."""
        place = self._directory.socket
        mongod = str(place("mongod"))
        # PyMongo takes the names of a replica set's members for those of hosts, and makes them lower case.
        way = "replicaSet=rs0" if mongod == mongod.lower() else "directConnection=true"
        return Addresses(
            f"mongodb://{quote(mongod, safe='')}/?{way}",
            f"unix://{quote(str(place('redis')))}",
            f"mysql://root@localhost/tandem?unix_socket={quote(str(place('mysql')), safe='')}",
        )

    def restarting(self) -> dict[str, str]:
        """The engines that have ended and do not run, or have ended again and again; what to say of each."""
        now = time.monotonic()
        told = {}
        for engine in self._processes:
            if engine.start_at is not None or engine.ends > 1:
                times = "once" if engine.ends == 1 else f"{engine.ends} times in a row"
                wait = "" if engine.start_at is None else f", starts again in {max(0, engine.start_at - now):.0f} s"
                told[WHAT_NAMES.get(engine.name, engine.name)] = f"has ended {times}{wait}"
        return told

    async def supervise(self) -> None:
        """Starts an engine again that has ended, and keeps the logs small, until cancelled."""
        while True:
            await asyncio.sleep(SUPERVISE_EVERY)
            for engine in self._processes:
                self._look_after(engine)

    def stop(self) -> None:
        """Ends the engines, with SIGTERM and after a while with SIGKILL, and gives the directory free."""
        running = [psutil.Process(e.process.pid) for e in self._processes if e.process and e.process.poll() is None]
        end_processes(running)
        for engine in self._processes:
            if engine.process:
                engine.process.wait()
        self._processes = []
        self._directory.release()

    def _look_after(self, engine: _DatabaseProcess) -> None:
        now = time.monotonic()
        try:
            engine.log.rotate()
        except OSError as error:
            _log.warning("log_not_cut", engine=engine.name, reason=str(error))
        if engine.process is None:
            return
        if engine.process.poll() is None:
            if engine.ends and now - engine.started >= HEALTHY_AFTER:
                engine.ends = 0
            return
        if engine.start_at is None:
            engine.ends += 1
            engine.start_at = now + engine.pause
        elif now >= engine.start_at:
            why = _why_ended(engine.name, engine.process.returncode)
            _log.error("engine_died", engine=engine.name, reason=why, ends=engine.ends, log=str(engine.log.path))
            try:
                self._spawn(engine)
            except OSError as error:  # no memory, no file descriptor: perhaps the next time
                _log.error("engine_not_started", engine=engine.name, reason=str(error))
                engine.ends += 1
                engine.start_at = now + engine.pause
            else:
                _log.info("engine_restarted", engine=engine.name)

    def _spawn(self, engine: _DatabaseProcess) -> None:
        parent = os.getpid()
        database = engine.database

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, self._death_signal)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        database.socket.unlink(missing_ok=True)
        with engine.log.open() as output:
            engine.process = subprocess.Popen(  # noqa: S603  # a program of ours
                [database.program.path, *database.arguments],
                env=database.program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the server, which drains first
                pass_fds=[self._directory.lock],
                preexec_fn=before_exec,
            )
        engine.started = time.monotonic()
        engine.start_at = None

    def _await_ready(self, engine: _DatabaseProcess) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not engine.ready():
            status = engine.process.poll() if engine.process else None
            if status is not None or time.monotonic() > deadline:
                what = "is not ready in time" if status is None else _why_ended(engine.name, status)
                raise DatabaseStartError(
                    f"{engine.name} ({engine.database.program.path}) {what}; the end of {engine.log.path}:\n"
                    f"{engine.log.tail(LOG_TAIL)}"
                )
            time.sleep(LOOK_EVERY)


def _why_ended(name: str, status: int) -> str:
    """In words, how a program has ended, and what to do where that is known."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        told = f"ended by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"ended by signal {-status}"
    if name == "mongod" and -status == signal.SIGILL:
        told += (
            ": this processor lacks instructions that MongoDB needs since 5.0 (AVX on x86-64, ARMv8.2-A on ARM). "
            "In a virtual machine choose the host's processor model; else let MongoDB run on another machine, and give "
            "its address with --mongo, and those of Redis and MySQL with --redis and --mysql"
        )
    return told
