"""Tests of the embedded databases: start, restart, end, and one set of them per directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
import pymongo
import pytest
import redis

from storage.embedded.database_log import DatabaseLog
from storage.embedded.databases import redis_server
from storage.embedded.programs import Program, ProgramError, find_program
from storage.embedded.supervisor import BACKOFF, DatabaseProcess, DatabaseStartError, EmbeddedDatabases
from tests.support.database import answers, mysql_connection
from tests.support.patience import PATIENCE
from tests.support.processes import stop
from tests.support.sockets import until


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a name that is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    yield path
    shutil.rmtree(path)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline, "an engine outlives its server"
        time.sleep(0.02)


def start_and_tell(directory: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a process that starts the databases and then waits. Return it and the databases' pids."""
    code = (
        "import signal, sys; from pathlib import Path; from storage.embedded.supervisor import EmbeddedDatabases\n"
        "embedded = EmbeddedDatabases(Path(sys.argv[1]), float(sys.argv[2])); embedded.start()\n"
        "print(*embedded.pids.values(), flush=True); signal.pause()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(directory), str(PATIENCE)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_a_directory_with_other_files(directory: Path) -> None:
    """A directory with other files is refused, and its files are kept."""
    (directory / "thesis.txt").touch()
    directory.chmod(0o755)
    with pytest.raises(DatabaseStartError, match=r"--data-dir: .* holds other files"):
        EmbeddedDatabases(directory, PATIENCE).start()
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_data_is_kept_and_private(directory: Path) -> None:
    """Data outlives a restart, also in a directory that was moved, and other users cannot enter it."""
    data = directory / "data"
    embedded = EmbeddedDatabases(data, PATIENCE)
    addresses = embedded.start()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for process in (psutil.Process(pid) for pid in embedded.pids.values()):
        assert not [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    with pymongo.MongoClient(addresses.mongo) as mongo, redis.Redis.from_url(addresses.redis) as cache:
        mongo.kept.things.insert_one({"_id": 1})
        cache.set("kept", "1")
    with mysql_connection(addresses.mysql) as mysql, mysql.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (id int)")
        cursor.execute("SELECT User, Host FROM mysql.global_priv")
        assert cursor.fetchall() == (("root", "localhost"),)
    pids = list(embedded.pids.values())
    embedded.stop()
    wait_until_gone(pids)

    moved = data.rename(directory / "moved")
    embedded = EmbeddedDatabases(moved, PATIENCE)
    addresses = embedded.start()
    with pymongo.MongoClient(addresses.mongo) as mongo, redis.Redis.from_url(addresses.redis) as cache:
        assert mongo.kept.things.find_one() == {"_id": 1}
        assert cache.get("kept") == b"1"
    with mysql_connection(addresses.mysql) as mysql, mysql.cursor() as cursor:
        assert cursor.execute("SHOW TABLES LIKE 'kept'") == 1
    embedded.stop()


def test_a_directory_with_capitals(directory: Path) -> None:
    """MongoDB is reachable in a directory with capitals, though PyMongo converts host names to lower case."""
    embedded = EmbeddedDatabases(directory / "Chat", PATIENCE)
    try:
        with pymongo.MongoClient[dict[str, Any]](embedded.start().mongo, serverSelectionTimeoutMS=5000) as client:
            database = client.get_database("tandem", write_concern=pymongo.WriteConcern(w="majority", j=True))
            database.messages.insert_one({"_id": 1})
            assert "setName" in client.admin.command("hello")
    finally:
        embedded.stop()


def test_a_second_start_is_refused(embedded: EmbeddedDatabases) -> None:
    """A second start on the same directory is refused by its name, and the first one goes on."""
    second = EmbeddedDatabases(embedded.data_dir, PATIENCE)
    with pytest.raises(DatabaseStartError, match=rf"{embedded.data_dir} is in use by another server"):
        second.start()
    assert all(psutil.pid_exists(pid) for pid in embedded.pids.values())


def test_databases_end_with_their_server(directory: Path) -> None:
    """When the server is killed with SIGKILL, its databases end."""
    process, pids = start_and_tell(directory)
    process.kill()
    process.communicate()
    wait_until_gone(pids)


def test_what_was_left_behind_is_ended_first(directory: Path) -> None:
    """Databases that outlive a killed server, here since they are stopped, are ended before new ones start."""
    process, pids = start_and_tell(directory)
    for pid in pids:
        stop(pid)
    process.kill()
    process.communicate()
    assert all(psutil.pid_exists(pid) for pid in pids)
    embedded = EmbeddedDatabases(directory, PATIENCE)
    embedded.start()
    assert not set(pids) & set(embedded.pids.values())
    wait_until_gone(pids)
    embedded.stop()


def test_an_interrupted_bootstrap_is_repeated(directory: Path) -> None:
    """An incomplete data directory of MariaDB, from an interrupted start, is created anew."""
    (directory / "server.lock").touch()
    (directory / "mysql.making").mkdir()
    (directory / "mysql.making/ibdata1").write_bytes(b"half")
    embedded = EmbeddedDatabases(directory, PATIENCE)
    with mysql_connection(embedded.start().mysql) as mysql:
        assert mysql.ping() is None
    embedded.stop()


async def test_a_database_that_dies_is_restarted(directory: Path) -> None:
    """Each of the three databases is restarted when it has died."""
    embedded = EmbeddedDatabases(directory, PATIENCE)
    embedded.start()
    supervisor = asyncio.ensure_future(embedded.supervise())
    before = embedded.pids
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: all(embedded.pids[name] != pid for name, pid in before.items()))
    await until(lambda: all(answers(embedded.addresses, name) for name in before))
    supervisor.cancel()
    embedded.stop()


@pytest.mark.parametrize("name", ["x" * 120, "a,b:c[d]"])
def test_a_path_that_no_socket_can_have(directory: Path, name: str) -> None:
    """If a socket's path is too long, the sockets are in a temporary directory, and the data stays."""
    for expected in (0, 1):
        embedded = EmbeddedDatabases(directory / name, PATIENCE)
        addresses = embedded.start()
        with (
            pymongo.MongoClient[dict[str, Any]](addresses.mongo) as mongo,
            redis.Redis.from_url(addresses.redis) as cache,
        ):
            assert mongo.kept.things.count_documents({}) == expected
            mongo.kept.things.insert_one({})
            assert cache.incr("kept") == expected + 1
        with mysql_connection(addresses.mysql) as mysql, mysql.cursor() as cursor:
            assert cursor.execute("SHOW TABLES LIKE 'kept'") == expected
            cursor.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
        sockets = Path(unquote(urlsplit(addresses.redis).path)).parent
        assert sockets != embedded.data_dir
        embedded.stop()
        assert not sockets.exists()


def test_databases_get_no_secrets(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the server's environment are not in a database's environment."""
    monkeypatch.setenv("TANDEM_MYSQL", "mysql://u:hunter22@h/d")
    monkeypatch.setenv("SOME_API_KEY", "hunter22")
    embedded = EmbeddedDatabases(directory, PATIENCE)
    embedded.start()
    try:
        for pid in embedded.pids.values():
            assert "hunter22" not in str(psutil.Process(pid).environ())
    finally:
        embedded.stop()


async def test_a_log_is_kept_small_while_the_database_runs(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large log is truncated and its end is copied, while mongod goes on writing into it."""
    monkeypatch.setattr("storage.embedded.supervisor.LARGEST", 20_000)
    log, old = directory / "mongod.log", directory / "mongod.log.old"
    embedded = EmbeddedDatabases(directory, PATIENCE)
    with pymongo.MongoClient[dict[str, Any]](embedded.start().mongo) as client:
        supervisor = asyncio.ensure_future(embedded.supervise())
        client.admin.command("setParameter", 1, logLevel=2)
        await until(lambda: old.exists())
        inode = log.stat().st_ino
        client.admin.command("setParameter", 1, logLevel=0)
        await until(lambda: log.stat().st_size <= 20_000)
        client.admin.command("setParameter", 1, logLevel=0)
        assert log.stat().st_ino == inode
        await until(lambda: '"parameterName":"logLevel"' in log.read_text() + old.read_text())
        assert old.stat().st_size <= 20_000
        supervisor.cancel()
    embedded.stop()


def test_a_missing_program(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names a missing program, and the directory is unlocked again."""

    def missing(name: str) -> None:
        raise ProgramError(f"{name} is missing")

    monkeypatch.setattr("storage.embedded.supervisor.find_program", missing)
    for embedded in (EmbeddedDatabases(directory, PATIENCE), EmbeddedDatabases(directory, PATIENCE)):
        with pytest.raises(DatabaseStartError, match="mongod is missing"):
            embedded.start()


async def test_a_database_that_keeps_dying(directory: Path) -> None:
    """A database that keeps dying is restarted after longer and longer pauses, which `restarting` describes."""
    embedded = EmbeddedDatabases(directory, PATIENCE)
    embedded.start()
    redis_server = embedded._processes[1]  # noqa: SLF001  # pauses and times are not told more exactly
    assert redis_server.process
    assert embedded.restarting() == {}
    manifest = directory / "redis/appendonlydir/appendonly.aof.manifest"
    good = manifest.read_text()
    manifest.write_text("nonsense\n")
    supervisor = asyncio.ensure_future(embedded.supervise())
    redis_server.process.kill()
    await until(lambda: redis_server.ends == 1)
    assert embedded.restarting()["redis"].startswith("has ended once, starts again in ")
    bounds = [redis_server.backoff.bound]
    for ends in (2, 3):
        await until(lambda expected=ends: redis_server.ends == expected)
        bounds.append(redis_server.backoff.bound)
    assert bounds == [BACKOFF[0] * factor for factor in (2, 4, 8)]
    assert embedded.restarting()["redis"].startswith("has ended 3 times in a row, starts again in ")
    assert "Invalid AOF" in redis_server.log.path.read_text()
    manifest.write_text(good)
    await until(redis_server.ready)
    assert embedded.restarting() == {"redis": "has ended 3 times in a row"}
    redis_server.started -= 3600  # as if it had run for an hour
    await until(lambda: embedded.restarting() == {})
    supervisor.cancel()
    embedded.stop()


def test_pauses_have_an_end(tmp_path: Path) -> None:
    """A database is restarted within a minute, however often it has ended."""
    database = redis_server(find_program("redis-server"), tmp_path, tmp_path / "redis.sock")
    process = DatabaseProcess(database, DatabaseLog(tmp_path / "redis.log"))
    for _ in range(2000):
        process.plan_start(now=0.0)
    assert process.start_at == BACKOFF[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kill -ILL $$", r"mongod .* ended by signal 4 \(SIGILL\): .*AVX.* --mongo"),
        ("kill -KILL $$", r"mongod .* ended by signal 9 \(SIGKILL\); the last lines of"),
        ("echo no more; exit 3", r"(?s)mongod .* ended with status 3; .*no more"),
    ],
)
def test_how_a_database_has_ended(directory: Path, monkeypatch: pytest.MonkeyPatch, command: str, said: str) -> None:
    """The error names the signal. If the processor is too old, it says what is missing, and what to do."""
    script = directory / "mongod"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    found = find_program

    def find(name: str) -> Program:
        return found(name)._replace(path=str(script)) if name == "mongod" else found(name)

    monkeypatch.setattr("storage.embedded.supervisor.find_program", find)
    with pytest.raises(DatabaseStartError, match=said):
        EmbeddedDatabases(directory / "data", PATIENCE).start()


def test_a_database_that_cannot_start(directory: Path) -> None:
    """The error about a database that cannot start shows the end of its log, and the others are ended."""
    (directory / "server.lock").touch()
    (directory / "redis").write_text("not a directory")
    embedded = EmbeddedDatabases(directory, PATIENCE)
    with pytest.raises(DatabaseStartError):
        embedded.start()
    assert not embedded.pids
    (directory / "redis").unlink()
    (directory / "redis/appendonlydir").mkdir(parents=True)
    (directory / "redis/appendonlydir/appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(DatabaseStartError, match=r"(?s)redis .* ended with status 1.*Invalid AOF"):
        embedded.start()
    assert not embedded.pids
