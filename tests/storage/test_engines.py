"""The private engines: started, found again, never two on one directory, gone when they should be."""

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

import psutil
import pymongo
import pytest
import redis

from storage.engines import EngineStartError, PrivateEngines, _cache_gb
from storage.programs import ProgramError
from tests.database import mysql_connection
from tests.processes import stop
from tests.sockets import until


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a short name, as sockets need it."""
    path = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    yield path
    shutil.rmtree(path)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline, "an engine outlives its server"
        time.sleep(0.02)


def start_and_tell(directory: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that starts the engines and then waits; their pids."""
    code = (
        "import sys, time; from pathlib import Path; from storage.engines import PrivateEngines\n"
        "engines = PrivateEngines(Path(sys.argv[1]), 30); engines.start()\n"
        "print(*engines.pids.values(), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_a_directory_with_other_files(directory: Path) -> None:
    """It is left as it is."""
    (directory / "thesis.txt").touch()
    directory.chmod(0o755)
    with pytest.raises(EngineStartError, match=r"--data-dir: .* holds other files"):
        PrivateEngines(directory, 30).start()
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


def test_data_stays_and_nobody_else_gets_in(directory: Path) -> None:
    """One start after the other on the same directory, also after it was moved."""
    data = directory / "data"
    engines = PrivateEngines(data, 30)
    addresses = engines.start()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for process in (psutil.Process(pid) for pid in engines.pids.values()):
        assert not [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    with pymongo.MongoClient(addresses.mongo) as mongo, redis.Redis.from_url(addresses.redis) as cache:
        mongo.kept.things.insert_one({"_id": 1})
        cache.set("kept", "1")
    with mysql_connection(addresses.mysql) as mysql, mysql.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (id int)")
        cursor.execute("SELECT User, Host FROM mysql.global_priv")
        assert cursor.fetchall() == (("root", "localhost"),)
    pids = list(engines.pids.values())
    engines.stop()
    wait_until_gone(pids)

    moved = data.rename(directory / "moved")
    engines = PrivateEngines(moved, 30)
    addresses = engines.start()
    with pymongo.MongoClient(addresses.mongo) as mongo, redis.Redis.from_url(addresses.redis) as cache:
        assert mongo.kept.things.find_one() == {"_id": 1}
        assert cache.get("kept") == b"1"
    with mysql_connection(addresses.mysql) as mysql, mysql.cursor() as cursor:
        assert cursor.execute("SHOW TABLES LIKE 'kept'") == 1
    engines.stop()


@pytest.mark.parametrize(("memory", "cache"), [(1, 0.25), (2, 0.25), (4, 0.5), (6.1, 0.76), (8, 1.0), (64, 1.0)])
def test_how_much_memory_mongod_may_take(memory: float, cache: float) -> None:
    """An eighth of what there is, within bounds; all in GB."""
    assert _cache_gb(int(memory * 2**30)) == cache


def test_mongod_takes_what_it_is_told(engines: PrivateEngines) -> None:
    """Its cache, and how its tables are made: `messages` and its indexes, and whatever is made later."""
    with pymongo.MongoClient[dict[str, Any]](engines.addresses.mongo) as client:
        status = client.admin.command("serverStatus")["wiredTiger"]
        cache = _cache_gb(psutil.virtual_memory().total)
        assert status["cache"]["maximum bytes configured"] == int(cache * 1024) * 2**20
        client.tandem.made_later.insert_one({})
        made = client.tandem.command("collStats", "made_later", indexDetails=True)
        for details in (made["wiredTiger"], made["indexDetails"]["_id_"]):
            assert "memory_page_max=256KB" in details["creationString"]


def test_a_directory_with_capitals(directory: Path) -> None:
    """PyMongo makes the names of hosts lower case, and a socket's path is one to it."""
    engines = PrivateEngines(directory / "Chat", 30)
    try:
        with pymongo.MongoClient[dict[str, Any]](engines.start().mongo, serverSelectionTimeoutMS=5000) as client:
            database = client.get_database("tandem", write_concern=pymongo.WriteConcern(w="majority", j=True))
            database.messages.insert_one({"_id": 1})
            assert "setName" in client.admin.command("hello")
    finally:
        engines.stop()


def test_a_second_start_is_refused(engines: PrivateEngines) -> None:
    """While the first runs, with the directory named; the first is unharmed."""
    second = PrivateEngines(engines._dir, 30)
    with pytest.raises(EngineStartError, match=rf"{engines._dir} is in use by another server"):
        second.start()
    assert all(psutil.pid_exists(pid) for pid in engines.pids.values())


def test_engines_end_with_their_server(directory: Path) -> None:
    """Killed with -9, the server takes them along."""
    process, pids = start_and_tell(directory)
    process.kill()
    process.communicate()
    wait_until_gone(pids)


def test_what_was_left_behind_is_ended_first(directory: Path) -> None:
    """Engines that outlive a killed server, here because they are stopped, never meet their successors."""
    process, pids = start_and_tell(directory)
    for pid in pids:
        stop(pid)
    process.kill()
    process.communicate()
    assert all(psutil.pid_exists(pid) for pid in pids)
    engines = PrivateEngines(directory, 30)
    engines.start()
    assert not set(pids) & set(engines.pids.values())
    wait_until_gone(pids)
    engines.stop()


def test_an_interrupted_bootstrap_is_repeated(directory: Path) -> None:
    """Half a data directory is no data directory."""
    (directory / "server.lock").touch()
    (directory / "mysql.making").mkdir()
    (directory / "mysql.making/ibdata1").write_bytes(b"half")
    engines = PrivateEngines(directory, 30)
    with mysql_connection(engines.start().mysql) as mysql:
        assert mysql.ping() is None
    engines.stop()


async def test_an_engine_that_dies_is_started_again(directory: Path) -> None:
    """All three, while the server lives on."""
    engines = PrivateEngines(directory, 30)
    engines.start()
    supervisor = asyncio.ensure_future(engines.supervise())
    before = engines.pids
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: all(engines.pids[name] != pid for name, pid in before.items()))
    await until(lambda: all(engine.ready() for engine in engines._engines))
    supervisor.cancel()
    engines.stop()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """Said before anything is started."""
    with pytest.raises(EngineStartError, match=r"--data-dir.*too long a path"):
        PrivateEngines(tmp_path / ("x" * 100), 30).start()


def test_a_missing_program(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it; the directory is free again."""

    def missing(name: str) -> None:
        raise ProgramError(f"{name} is missing")

    monkeypatch.setattr("storage.engines.find_program", missing)
    engines = PrivateEngines(directory, 30)
    with pytest.raises(EngineStartError, match="mongod is missing"):
        engines.start()
    assert not engines._locks


def test_an_engine_that_cannot_start(directory: Path) -> None:
    """The error shows the end of its log, and the others are ended."""
    (directory / "server.lock").touch()
    (directory / "redis").write_text("not a directory")
    engines = PrivateEngines(directory, 30)
    with pytest.raises(EngineStartError):
        engines.start()
    assert not engines.pids
    (directory / "redis").unlink()
    (directory / "redis/appendonlydir").mkdir(parents=True)
    (directory / "redis/appendonlydir/appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EngineStartError, match=r"(?s)redis .* ended with status 1.*Invalid AOF"):
        engines.start()
    assert not engines.pids
