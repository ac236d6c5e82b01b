"""The three embedded databases: how each is started, and how to tell that it is ready.

All differences between mongod, redis-server and mariadbd are here. `supervisor.py` starts, watches and ends them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pymongo
import redis
from pymongo.errors import OperationFailure, PyMongoError
from redis.exceptions import RedisError

from storage.embedded.memory import usable_memory
from storage.embedded.programs import Program

__all__ = ["Database", "DatabaseError", "bootstrap_mariadbd", "cache_gb", "mariadbd", "mongod", "redis_server"]

LOG_TAIL = 8  # lines of a database's output in an error
# These settings keep mongod's insert times even. Its cache has to hold the data that is not on disk yet. One thread
# evicts such data, and only when it fills a fifth of the cache. No page may grow to megabytes before it is written,
# since all inserts wait while it is. docs/performance.md has the figures.
CACHE_GB = (0.25, 1.0)  # limits for an eighth of the memory: mongod's minimum, and the most that was found to help
NO_SLOW_QUERIES = str(2**31 - 1)  # milliseconds; a slow query would be logged with the ids of both users
OPLOG_MB = "256"
PAGES = "memory_page_max=256KB"
WIREDTIGER = (
    "log=(file_max=32MB)",
    "eviction=(threads_min=1,threads_max=1)",
    "eviction_dirty_target=20",
    "eviction_dirty_trigger=40",
)
# The directories of MariaDB's files in `share`, and the names of the SQL files for the system tables: in Debian, Fedora
# and Arch since MariaDB 11; in Debian before; in MariaDB's own archive.
SHARES = ("mariadb", "mysql", ".")
SYSTEM_TABLES = (
    ("mariadb_system_tables.sql", "mariadb_system_tables_data.sql"),
    ("mysql_system_tables.sql", "mysql_system_tables_data.sql"),
)
MESSAGES = "english/errmsg.sys"
CHARSETS = "charsets/Index.xml"


class DatabaseError(Exception):
    """A database's files cannot be found or made. The text says which, and what to do."""


class Database(NamedTuple):
    """A database: its program and arguments, a check that it is ready, and its socket."""

    name: str
    program: Program
    arguments: list[str]
    ready: Callable[[], bool]
    socket: Path


def mongod(program: Program, directory: Path, path: Path) -> Database:
    """Describe a mongod with its data in `directory`, listening at the socket `path`."""
    data = directory / "mongod"
    data.mkdir(exist_ok=True)
    arguments = [
        "--dbpath", str(data),
        "--bind_ip", str(path),
        "--nounixsocket",
        "--replSet", "rs0",
        "--oplogSize", OPLOG_MB,
        "--wiredTigerCacheSizeGB", str(cache_gb(usable_memory())),
        "--wiredTigerEngineConfigString", ",".join(WIREDTIGER),
        "--wiredTigerCollectionConfigString", PAGES,
        "--wiredTigerIndexConfigString", PAGES,
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
        "--slowms", NO_SLOW_QUERIES,
        "--quiet",
    ]  # fmt: skip
    return Database("mongod", program, arguments, lambda: _mongod_ready(path), path)


def redis_server(program: Program, directory: Path, path: Path) -> Database:
    """Describe a redis-server with its data in `directory`, listening at the socket `path`."""
    data = directory / "redis"
    data.mkdir(exist_ok=True)
    arguments = [
        "--port", "0",
        "--unixsocket", str(path),
        "--unixsocketperm", "700",
        "--dir", str(data),
        "--appendonly", "yes",
        "--save", "",
        "--maxmemory-policy", "noeviction",
    ]  # fmt: skip
    return Database("redis", program, arguments, lambda: _redis_ready(path), path)


def mariadbd(program: Program, directory: Path, path: Path) -> Database:
    """Describe a mariadbd with its data in `directory`, listening at the socket `path`. Raises DatabaseError."""
    arguments = [
        *_mariadbd_options(program, directory / "mysql", path.parent),
        "--skip-networking",
        "--skip-ssl",  # MariaDB 11 offers TLS on unix sockets too, where it protects nothing and takes time
        f"--socket={path}",
        f"--pid-file={directory}/mysql.pid",
    ]
    return Database("mariadbd", program, arguments, lambda: _mariadbd_ready(path), path)


def bootstrap_mariadbd(program: Program, directory: Path, temporary: Path, timeout: float) -> None:
    """Create mariadbd's data directory, with the system tables and an empty database, if it does not exist.

    It is renamed when complete, so an interrupted run leaves no partial directory. `temporary` is a directory for
    temporary files, `timeout` is in seconds. Raises DatabaseError, OSError, subprocess.SubprocessError.
    """
    data = directory / "mysql"
    if data.exists():
        return
    making = directory / "mysql.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    statements = "CREATE DATABASE mysql;\nUSE mysql;\n"
    statements += "".join(file.read_text("utf-8") for file in system_tables(program))
    # Other users cannot enter the directory, so root without a password is the only account.
    statements += "DELETE FROM global_priv WHERE User <> 'root' OR Host <> 'localhost';\n"
    statements += "CREATE DATABASE tandem CHARACTER SET utf8mb4;\n"
    done = subprocess.run(  # noqa: S603  # a program of ours
        [program.path, *_mariadbd_options(program, making, temporary), "--bootstrap"],
        env=program.environment,
        input=statements.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.decode("utf-8", "replace").splitlines()[-LOG_TAIL:])
        raise DatabaseError(f"mariadbd ({program.path}) could not create its data directory:\n{tail}")
    making.rename(data)


def cache_gb(memory: int) -> float:
    """Return the size of mongod's cache, in GB, for so many bytes of memory."""
    least, most = CACHE_GB
    return round(min(most, max(least, memory / 8 / 2**30)), 2)


def _mariadbd_options(program: Program, data: Path, temporary: Path) -> list[str]:
    options = [
        "--no-defaults",
        f"--datadir={data}",
        f"--lc-messages-dir={share_of(program, MESSAGES)}",
        f"--character-sets-dir={share_of(program, CHARSETS) / 'charsets'}",
        f"--tmpdir={temporary}",  # has no colon, which would separate two directories
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=8M",
        "--skip-log-bin",
    ]
    return [*options, "--user=root"] if os.geteuid() == 0 else options


def share_of(program: Program, *files: str) -> Path:
    """Return MariaDB's directory that has these files, in any version's layout. Raises DatabaseError."""
    for name in SHARES:
        if all((program.share / name / file).is_file() for file in files):
            return (program.share / name).resolve()
    raise DatabaseError(
        f"mariadbd ({program.path}) lacks {' and '.join(files)}: searched {program.share} in "
        f"{', '.join(SHARES)}; install the complete MariaDB server (Debian: mariadb-server-core)"
    )


def system_tables(program: Program) -> list[Path]:
    """Return the SQL files that create the system tables, in order. Raises DatabaseError."""
    for files in SYSTEM_TABLES:
        try:
            share = share_of(program, *files)
        except DatabaseError as error:
            missing = error
        else:
            return [share / file for file in files]
    raise missing


def _mongod_ready(path: Path) -> bool:
    """Return whether mongod is a writable primary. Initiate its replica set of one member if needed."""
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
    """Return whether mariadbd sends its greeting. Its socket exists before it is ready."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(path))
            return bool(client.recv(1))
    except OSError:
        return False
