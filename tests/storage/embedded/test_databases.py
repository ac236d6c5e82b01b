"""Tests of how the databases are started: layouts of MariaDB's files, mongod's memory, and slow queries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pymongo
import pytest

from storage.embedded import databases
from storage.embedded.databases import CHARSETS, MESSAGES, SYSTEM_TABLES, DatabaseError, bootstrap_mariadbd, cache_gb
from storage.embedded.memory import usable_memory
from storage.embedded.programs import Program, find_program
from storage.embedded.supervisor import EmbeddedDatabases

LAYOUTS = {
    "MariaDB 11": ("mariadb", SYSTEM_TABLES[0]),
    "MariaDB 10": ("mysql", SYSTEM_TABLES[1]),
    "an unpacked archive": (".", SYSTEM_TABLES[0]),
    "new names in the old directory": ("mysql", SYSTEM_TABLES[0]),
}


def stand_in(share: Path, name: str, files: tuple[str, str]) -> Program:
    """Return the real mariadbd, with its files in `share` in the layout of another version."""
    program = find_program("mariadbd")
    for real, file in zip(databases.system_tables(program), files, strict=True):
        (share / name).mkdir(parents=True, exist_ok=True)
        (share / name / file).symlink_to(real)
    for path in (MESSAGES, CHARSETS):
        directory = Path(path).parent
        (share / name / directory).symlink_to(databases.share_of(program, path) / directory)
    return program._replace(share=share)


@pytest.mark.parametrize(("name", "files"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_mariadb_makes_a_data_directory(name: str, files: tuple[str, str], tmp_path: Path) -> None:
    """The data directory is created from SQL files and messages in every version's layout."""
    program = stand_in(tmp_path / "share", name, files)
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        bootstrap_mariadbd(program, Path(directory), Path(directory), timeout=60)
        assert (Path(directory) / "mysql/mysql/global_priv.frm").exists()
        assert (Path(directory) / "mysql/tandem").is_dir()


def test_a_mariadb_without_its_files_is_named(tmp_path: Path) -> None:
    """The error names the missing files, the directories that were searched, and the package to install."""
    program = Program("/opt/mariadbd", {}, tmp_path)
    with pytest.raises(DatabaseError, match=rf"/opt/mariadbd.*_system_tables.*{tmp_path}.*mariadb-server-core"):
        bootstrap_mariadbd(program, tmp_path, tmp_path, timeout=60)
    with pytest.raises(DatabaseError, match=r"errmsg\.sys"):
        databases.mariadbd(program, tmp_path, tmp_path / "mysql.sock")
    assert not (tmp_path / "mysql").exists()


@pytest.mark.parametrize(("memory", "cache"), [(1, 0.25), (2, 0.25), (4, 0.5), (6.1, 0.76), (8, 1.0), (64, 1.0)])
def test_how_much_memory_mongod_may_take(memory: float, cache: float) -> None:
    """mongod's cache is an eighth of the memory, within limits."""
    assert cache_gb(int(memory * 2**30)) == cache


def test_mongod_takes_what_it_is_told(embedded: EmbeddedDatabases) -> None:
    """mongod uses the configured cache size and page sizes, for `messages` and for collections that are made later."""
    with pymongo.MongoClient[dict[str, Any]](embedded.addresses.mongo) as client:
        status = client.admin.command("serverStatus")["wiredTiger"]
        assert status["cache"]["maximum bytes configured"] == int(cache_gb(usable_memory()) * 1024) * 2**20
        client.tandem.made_later.insert_one({})
        made = client.tandem.command("collStats", "made_later", indexDetails=True)
        for details in (made["wiredTiger"], made["indexDetails"]["_id_"]):
            assert "memory_page_max=256KB" in details["creationString"]


def test_a_slow_query_is_not_logged(embedded: EmbeddedDatabases) -> None:
    """A slow query is not in mongod's log, since it would name both users of a conversation."""
    with pymongo.MongoClient[dict[str, Any]](embedded.addresses.mongo) as client:
        client.tandem.slow.insert_one({"conversation": "1234567->7654321"})
        query = {"conversation": "1234567->7654321", "$where": "sleep(400) || true"}
        assert len(list(client.tandem.slow.find(query))) == 1
        client.admin.command("setParameter", 1, logLevel=1)  # does not wait, and is logged after the query
        client.admin.command("setParameter", 1, logLevel=0)
    log = (embedded.data_dir / "mongod.log").read_text()
    assert '"parameterName":"logLevel"' in log
    assert "7654321" not in log
