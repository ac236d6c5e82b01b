"""The private engines of the embedded default: a mongod, a redis-server and a mariadbd of the server's own.

They are child processes that listen on unix sockets alone, in a directory that only the server's user may
enter, and keep their data there for the next start. Three things keep two of one kind off one directory:

- the server holds a lock on `server.lock`: a second server is told so;
- the engines inherit the open `engines.lock`, which therefore stays locked exactly as long as one of them
  lives: what a killed server left behind is found by it and ended before anything is started;
- an engine is told by the kernel when its server dies, and shuts down by itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import psutil
import pymongo
import redis
import structlog
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError

from storage.processes import STOP_AFTER, end_processes, holders
from storage.programs import Program, ProgramError, find_program

__all__ = ["KEY_FILE", "Addresses", "EngineStartError", "PrivateEngines"]

KEY_FILE = "token-keys.json"  # a server of the directory may have left it there without any engines
SOCKET_PATH_LIMIT = 107  # bytes; unix(7), sun_path less its end
LOOK_EVERY = 0.02  # seconds between two looks at an engine that starts or ends
RESTART_AFTER = 0.5  # seconds between two starts of an engine that keeps dying
LOG_TAIL = 8  # lines of an engine's log in an error
# mongod stores messages evenly if its cache has room for what the disk does not have yet, if one thread at a time makes
# more room and only when a fifth of the cache is such, and if no page grows to megabytes before it is written, which
# holds everybody up for as long as it takes. docs/performance.md has the figures.
CACHE_GB = (0.25, 1.0)  # of an eighth of the memory: at least what mongod asks for, at most what was found to help
OPLOG_MB = "256"
PAGES = "memory_page_max=256KB"
WIREDTIGER = (
    "log=(file_max=32MB)",
    "eviction=(threads_min=1,threads_max=1)",
    "eviction_dirty_target=20",
    "eviction_dirty_trigger=40",
)

_log = structlog.get_logger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class EngineStartError(Exception):
    """The private engines cannot be started; the text says which one, where it was looked for, and why."""


class Addresses(NamedTuple):
    """The URLs of the three engines."""

    mongo: str
    redis: str
    mysql: str


class _Engine:
    """One engine: how it is started, and when it is ready."""

    def __init__(
        self, name: str, program: Program, arguments: list[str], ready: Callable[[], bool], socket: Path
    ) -> None:
        self.name = name
        self.program = program
        self.arguments = arguments
        self.ready = ready
        self.socket = socket
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0


class PrivateEngines:
    """The three engines below `data_dir`; `start_timeout` in seconds, `death_signal` is sent when their server dies.

    `start` and `stop` block and belong outside the event loop's life, `supervise` inside it. All three must
    run in the main thread: the kernel ties an engine's life to the thread that started it.
    """

    def __init__(self, data_dir: Path, start_timeout: float, death_signal: int = signal.SIGTERM) -> None:
        self._dir = data_dir.resolve()
        self._death_signal = death_signal
        self._start_timeout = start_timeout
        self._locks: list[IO[str]] = []
        self._engines: list[_Engine] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running engines, by name."""
        return {engine.name: engine.process.pid for engine in self._engines if engine.process}

    def start(self) -> Addresses:
        """Starts the engines and waits until all three answer. Raises EngineStartError."""
        try:
            self._claim_directory()
            mongod, redis_server, mariadbd = (find_program(name) for name in ("mongod", "redis-server", "mariadbd"))
            mysql_data = self._bootstrap_mysql(mariadbd)
            self._engines = [
                self._mongod(mongod),
                self._redis(redis_server),
                self._mariadbd(mariadbd, mysql_data),
            ]
            for engine in self._engines:
                self._spawn(engine)
            for engine in self._engines:
                self._await_ready(engine)
        except (OSError, subprocess.SubprocessError, ProgramError) as error:
            self.stop()
            raise EngineStartError(str(error)) from None
        except BaseException:
            self.stop()
            raise
        return self.addresses

    @property
    def addresses(self) -> Addresses:
        """Where the engines listen."""
        mongod = str(self._socket("mongod"))
        # PyMongo takes the names of a replica set's members for those of hosts, and makes them lower case.
        way = "replicaSet=rs0" if mongod == mongod.lower() else "directConnection=true"
        return Addresses(
            f"mongodb://{quote(mongod, safe='')}/?{way}",
            f"unix://{quote(str(self._socket('redis')))}",
            f"mysql://root@localhost/tandem?unix_socket={quote(str(self._socket('mysql')), safe='')}",
        )

    async def supervise(self) -> None:
        """Starts an engine again that has died, until cancelled."""
        while True:
            await asyncio.sleep(RESTART_AFTER / 4)
            for engine in self._engines:
                if engine.process is None or engine.process.poll() is None:
                    continue
                if time.monotonic() - engine.started >= RESTART_AFTER:
                    _log.error("engine_died", engine=engine.name, status=engine.process.returncode)
                    try:
                        self._spawn(engine)
                    except OSError as error:  # no memory, no file descriptor: perhaps the next time
                        _log.error("engine_not_started", engine=engine.name, reason=str(error))
                        engine.started = time.monotonic()
                    else:
                        _log.info("engine_restarted", engine=engine.name)

    def stop(self) -> None:
        """Ends the engines, with SIGTERM and after a while with SIGKILL, and gives the directory free."""
        running = [psutil.Process(e.process.pid) for e in self._engines if e.process and e.process.poll() is None]
        end_processes(running)
        for engine in self._engines:
            if engine.process:
                engine.process.wait()
        self._engines = []
        while self._locks:
            self._locks.pop().close()

    def _socket(self, name: str) -> Path:
        return self._dir / f"{name}.sock"

    def _claim_directory(self) -> None:
        longest = os.fsencode(self._socket("mongod"))
        if len(longest) > SOCKET_PATH_LIMIT:
            raise EngineStartError(
                f"--data-dir: {self._dir} is too long a path: the sockets in it would have {len(longest)} bytes "
                f"of at most {SOCKET_PATH_LIMIT}; choose another"
            )
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            others = any(path.name != KEY_FILE for path in self._dir.iterdir())
            strangers = others and not (self._dir / "server.lock").exists()
        except OSError as error:
            raise EngineStartError(f"--data-dir: {self._dir} cannot be used: {error.strerror}") from None
        if self._dir.stat().st_uid != os.geteuid():
            raise EngineStartError(f"--data-dir: {self._dir} belongs to another user")
        if strangers:
            raise EngineStartError(f"--data-dir: {self._dir} holds other files; choose a new or an empty directory")
        self._dir.chmod(0o700)
        if not self._lock("server.lock"):
            raise EngineStartError(f"--data-dir: {self._dir} is in use by another server")
        deadline = time.monotonic() + 2 * STOP_AFTER
        while not self._lock("engines.lock"):
            left = holders(self._dir / "engines.lock")
            _log.warning("engines_left_behind", pids=[process.pid for process in left])
            end_processes(left)
            if time.monotonic() > deadline:
                raise EngineStartError(f"--data-dir: {self._dir} is locked by a process that cannot be found or ended")
            time.sleep(LOOK_EVERY)

    def _lock(self, name: str) -> bool:
        file = (self._dir / name).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._locks.append(file)
        return True

    def _spawn(self, engine: _Engine) -> None:
        parent = os.getpid()

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, self._death_signal)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        engine.socket.unlink(missing_ok=True)
        log = self._dir / f"{engine.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        with log.open("wb") as output:
            engine.process = subprocess.Popen(  # noqa: S603  # a program of ours
                [engine.program.path, *engine.arguments],
                env=engine.program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the server, which drains first
                pass_fds=[self._locks[-1].fileno()],
                preexec_fn=before_exec,
            )
        engine.started = time.monotonic()

    def _await_ready(self, engine: _Engine) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not engine.ready():
            status = engine.process.poll() if engine.process else None
            if status is not None or time.monotonic() > deadline:
                what = "is not ready in time" if status is None else f"ended with status {status}"
                log = self._dir / f"{engine.name}.log"
                tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL:])
                raise EngineStartError(f"{engine.name} ({engine.program.path}) {what}; the end of {log}:\n{tail}")
            time.sleep(LOOK_EVERY)

    def _mongod(self, program: Program) -> _Engine:
        data = self._dir / "mongod"
        data.mkdir(exist_ok=True)
        path = self._socket("mongod")
        arguments = [
            "--dbpath", str(data),
            "--bind_ip", str(path),
            "--nounixsocket",
            "--replSet", "rs0",
            "--oplogSize", OPLOG_MB,
            "--wiredTigerCacheSizeGB", str(_cache_gb(psutil.virtual_memory().total)),
            "--wiredTigerEngineConfigString", ",".join(WIREDTIGER),
            "--wiredTigerCollectionConfigString", PAGES,
            "--wiredTigerIndexConfigString", PAGES,
            "--setParameter", "diagnosticDataCollectionEnabled=false",
            "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
        ]  # fmt: skip
        return _Engine("mongod", program, arguments, lambda: _mongod_ready(path), path)

    def _redis(self, program: Program) -> _Engine:
        data = self._dir / "redis"
        data.mkdir(exist_ok=True)
        path = self._socket("redis")
        arguments = [
            "--port", "0",
            "--unixsocket", str(path),
            "--unixsocketperm", "700",
            "--dir", str(data),
            "--appendonly", "yes",
            "--save", "",
            "--maxmemory-policy", "noeviction",
        ]  # fmt: skip
        return _Engine("redis", program, arguments, lambda: _redis_ready(path), path)

    def _mysql_options(self, program: Program, data: Path) -> list[str]:
        share = program.share / "mysql"
        options = [
            "--no-defaults",
            f"--datadir={data}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share}/charsets",
            f"--tmpdir={self._dir}",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            "--skip-log-bin",
        ]
        return [*options, "--user=root"] if os.geteuid() == 0 else options

    def _bootstrap_mysql(self, program: Program) -> Path:
        """Makes the data directory with the system tables and an empty database, whole or not at all."""
        data = self._dir / "mysql"
        if data.exists():
            return data
        making = self._dir / "mysql.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        share = program.share / "mysql"
        statements = "CREATE DATABASE mysql;\nUSE mysql;\n"
        for file in ("mysql_system_tables.sql", "mysql_system_tables_data.sql"):
            statements += (share / file).read_text("utf-8")
        # The directory keeps everybody else out, and root is the only account.
        statements += "DELETE FROM global_priv WHERE User <> 'root' OR Host <> 'localhost';\n"
        statements += "CREATE DATABASE tandem CHARACTER SET utf8mb4;\n"
        done = subprocess.run(  # noqa: S603  # a program of ours
            [program.path, *self._mysql_options(program, making), "--bootstrap"],
            env=program.environment,
            input=statements.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self._start_timeout * 4,
            check=False,
        )
        if done.returncode:
            tail = "\n".join(done.stdout.decode("utf-8", "replace").splitlines()[-LOG_TAIL:])
            raise EngineStartError(f"mariadbd ({program.path}) could not make its data directory:\n{tail}")
        making.rename(data)
        return data

    def _mariadbd(self, program: Program, data: Path) -> _Engine:
        path = self._socket("mysql")
        arguments = [
            *self._mysql_options(program, data),
            "--skip-networking",
            f"--socket={path}",
            f"--pid-file={self._dir}/mysql.pid",
        ]
        return _Engine("mariadbd", program, arguments, lambda: _mariadbd_ready(path), path)


def _cache_gb(memory: int) -> float:
    """What mongod's cache may take of so many bytes of memory."""
    least, most = CACHE_GB
    return round(min(most, max(least, memory / 8 / 2**30)), 2)


def _mongod_ready(path: Path) -> bool:
    """Whether mongod is a writable primary; makes it the replica set of one that it has to be."""
    url = f"mongodb://{quote(str(path), safe='')}/?directConnection=true"
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(url, serverSelectionTimeoutMS=500, connectTimeoutMS=500, socketTimeoutMS=5000) as client:
        try:
            members = [{"_id": 0, "host": str(path)}]
            try:
                config = client.admin.command("replSetGetConfig")["config"]
            except OperationFailure as error:
                if error.code != 94:  # NotYetInitialized
                    return False
                client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
                return False
            if config["members"][0]["host"] != str(path):  # the data directory was moved
                config["members"] = members
                config["version"] += 1
                client.admin.command("replSetReconfig", config, force=True)
                return False
            return bool(client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False


def _redis_ready(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path), socket_timeout=1) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


def _mariadbd_ready(path: Path) -> bool:
    """Whether mariadbd greets; that its socket exists says nothing yet."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(path))
            return bool(client.recv(1))
    except OSError:
        return False
