"""The embedded databases: start, watch, restart and end a mongod, a redis-server and a mariadbd.

They are child processes of the server. They listen on unix sockets only, in a directory that only the server's user can
enter, and keep their data there for the next start. Three things prevent two databases of a kind in one directory:

- The server holds a lock on `server.lock`, so a second server is refused.
- The databases inherit the open `engines.lock`, so it is locked as long as one of them lives. If a server was killed,
  the next one finds its databases by this lock, and ends them before it starts its own.
- The kernel sends a database a signal when its server dies, and the database shuts down.

A database that ends while its server runs is started again. The pause before that doubles each time:

    running --ends--> pausing --pause is over--> running --HEALTHY_AFTER--> the next pause is the shortest again
"""

from __future__ import annotations

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

from common.backoff import Backoff
from common.tasks import every
from storage.embedded import databases
from storage.embedded.data_directory import DataDirectory, DataDirectoryError
from storage.embedded.database_log import LARGEST, DatabaseLog
from storage.embedded.databases import LOG_TAIL, Database, DatabaseError
from storage.embedded.processes import LOOK_EVERY, end_processes
from storage.embedded.programs import ProgramError, find_program

__all__ = ["Addresses", "DatabaseProcess", "DatabaseStartError", "EmbeddedDatabases"]

SUPERVISE_EVERY = 0.125  # seconds between two checks of the databases and their logs
# Seconds from a database's end to its next start. A service manager may send SIGTERM to the server and the databases at
# once; within the first pause the server handles that signal, and then restarts no database.
BACKOFF = (0.5, 60.0)
HEALTHY_AFTER = 10.0  # seconds of running after which a database's earlier ends are forgotten
NAMES = {"mongod": "mongodb", "mariadbd": "mysql"}  # the databases' names in the rest of the server

_log = structlog.get_logger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class DatabaseStartError(Exception):
    """The embedded databases cannot be started. The text says which one, its program, and why."""


class Addresses(NamedTuple):
    """The URLs of the three databases."""

    mongo: str
    redis: str
    mysql: str


class DatabaseProcess:
    """A database, its log, and its current process."""

    def __init__(self, database: Database, log: DatabaseLog) -> None:
        self.database = database
        self.name = database.name
        self.ready = database.ready
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0  # monotonic
        self.ends = 0  # how often it has ended in a row, without HEALTHY_AFTER seconds in between
        self.backoff = Backoff(*BACKOFF)
        self.start_at: float | None = None  # monotonic time of the next start, during a pause

    def plan_start(self, now: float) -> None:
        """Count an end or a failed start, and start after a pause."""
        self.ends += 1
        self.start_at = now + self.backoff.next_pause()

    def forget_ends(self) -> None:
        """Begin with the first pause again."""
        self.ends = 0
        self.backoff.reset()


class EmbeddedDatabases:
    """The three embedded databases in `data_dir`.

    `start` and `stop` block, so they are called outside the event loop, and `supervise` on it. All three must run in
    the main thread, since the kernel sends `death_signal` when the thread that started the process ends.

    Args:
        data_dir: The data directory.
        start_timeout: Seconds for a database to become ready.
        death_signal: The signal that the databases get when their server dies.

    Raises DatabaseStartError.
    """

    def __init__(self, data_dir: Path, start_timeout: float, death_signal: int = signal.SIGTERM) -> None:
        try:
            self._directory = DataDirectory(data_dir)
        except DataDirectoryError as error:
            raise DatabaseStartError(str(error)) from None
        self._death_signal = death_signal
        self._start_timeout = start_timeout
        self._processes: list[DatabaseProcess] = []

    @property
    def data_dir(self) -> Path:
        """The data directory, without links."""
        return self._directory.path

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the databases, by name."""
        return {child.name: child.process.pid for child in self._processes if child.process}

    def start(self) -> Addresses:
        """Start the databases and wait until all three are ready. Raises DatabaseStartError."""
        try:
            self._directory.claim()
            mongod, redis_server, mariadbd = (find_program(name) for name in ("mongod", "redis-server", "mariadbd"))
            path, socket = self._directory.path, self._directory.socket
            databases.bootstrap_mariadbd(mariadbd, path, socket("mysql").parent, self._start_timeout * 4)
            self._processes = [
                DatabaseProcess(database, DatabaseLog(path / f"{database.name}.log", LARGEST))
                for database in (
                    databases.mongod(mongod, path, socket("mongod")),
                    databases.redis_server(redis_server, path, socket("redis")),
                    databases.mariadbd(mariadbd, path, socket("mysql")),
                )
            ]
            for child in self._processes:
                self._spawn(child)
            for child in self._processes:
                self._await_ready(child)
        except (OSError, subprocess.SubprocessError, ProgramError, DatabaseError, DataDirectoryError) as error:
            self.stop()
            raise DatabaseStartError(str(error)) from None
        except BaseException:
            self.stop()
            raise
        return self.addresses

    @property
    def addresses(self) -> Addresses:
        """The databases' URLs."""
        socket = self._directory.socket
        mongod = str(socket("mongod"))
        # PyMongo treats the names of a replica set's members as host names and converts them to lower case.
        option = "replicaSet=rs0" if mongod == mongod.lower() else "directConnection=true"
        return Addresses(
            f"mongodb://{quote(mongod, safe='')}/?{option}",
            f"unix://{quote(str(socket('redis')))}",
            f"mysql://root@localhost/tandem?unix_socket={quote(str(socket('mysql')), safe='')}",
        )

    def restarting(self) -> dict[str, str]:
        """Return the databases that have ended and do not run, or have ended repeatedly, each with a description."""
        now = time.monotonic()
        described = {}
        for child in self._processes:
            if child.start_at is not None or child.ends > 1:
                times = "once" if child.ends == 1 else f"{child.ends} times in a row"
                wait = "" if child.start_at is None else f", starts again in {max(0, child.start_at - now):.0f} s"
                described[NAMES.get(child.name, child.name)] = f"has ended {times}{wait}"
        return described

    async def supervise(self) -> None:
        """Restart databases that have ended, and keep their logs small, until cancelled."""
        await every(SUPERVISE_EVERY, self._look_after_all)

    def stop(self) -> None:
        """End the databases, with SIGTERM and after STOP_AFTER seconds with SIGKILL, and unlock the directory."""
        running = [psutil.Process(e.process.pid) for e in self._processes if e.process and e.process.poll() is None]
        end_processes(running)
        for child in self._processes:
            if child.process:
                child.process.wait()
        self._processes = []
        self._directory.release()

    def _look_after_all(self) -> None:
        for child in self._processes:
            self._look_after(child)

    def _look_after(self, child: DatabaseProcess) -> None:
        now = time.monotonic()
        try:
            child.log.rotate()
        except OSError as error:
            _log.warning("log_not_cut", engine=child.name, reason=str(error))
        if child.process is None:
            return
        if child.process.poll() is None:
            if child.ends and now - child.started >= HEALTHY_AFTER:
                child.forget_ends()
            return
        if child.start_at is None:
            child.plan_start(now)
        elif now >= child.start_at:
            why = _why_ended(child.name, child.process.returncode)
            _log.error("engine_died", engine=child.name, reason=why, ends=child.ends, log=str(child.log.path))
            try:
                self._spawn(child)
            except OSError as error:  # for lack of memory or file descriptors; it is tried again
                _log.error("engine_not_started", engine=child.name, reason=str(error))
                child.plan_start(now)
            else:
                _log.info("engine_restarted", engine=child.name)

    def _spawn(self, child: DatabaseProcess) -> None:
        parent = os.getpid()
        database = child.database

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, self._death_signal)
            if os.getppid() != parent:  # the server died before the line above
                os._exit(1)

        database.socket.unlink(missing_ok=True)
        with child.log.open() as output:
            child.process = subprocess.Popen(  # noqa: S603  # a program of ours
                [database.program.path, *database.arguments],
                env=database.program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C goes to the server only, which drains first
                pass_fds=[self._directory.lock],
                preexec_fn=before_exec,
            )
        child.started = time.monotonic()
        child.start_at = None

    def _await_ready(self, child: DatabaseProcess) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not child.ready():
            status = child.process.poll() if child.process else None
            if status is not None or time.monotonic() > deadline:
                what = "is not ready in time" if status is None else _why_ended(child.name, status)
                raise DatabaseStartError(
                    f"{child.name} ({child.database.program.path}) {what}; the last lines of {child.log.path}:\n"
                    f"{child.log.tail(LOG_TAIL)}"
                )
            time.sleep(LOOK_EVERY)


def _why_ended(name: str, status: int) -> str:
    """Describe how a program has ended, and what to do if that is known."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        told = f"ended by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"ended by signal {-status}"
    if name == "mongod" and -status == signal.SIGILL:
        told += (
            ": this processor lacks instructions that MongoDB needs since 5.0 (AVX on x86-64, ARMv8.2-A on ARM). "
            "In a virtual machine, choose the host's processor model. Otherwise run MongoDB elsewhere, and set the "
            "addresses of all three databases with --mongo, --redis and --mysql"
        )
    return told
