"""Fixtures that tests of several stores share: MySQL, users, Redis, and addresses without a database."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import pymysql
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pymysql.cursors import Cursor
from tornado.ioloop import IOLoop

from storage.embedded.supervisor import Addresses
from storage.mysql.executor import MySQL
from storage.mysql.users import MySQLUsers
from storage.redis.client import RedisServer
from tests.support.database import mysql_connection
from tests.support.patience import PATIENCE
from tests.support.relay import Relay

UNAVAILABLE = Addresses("mongodb://127.0.0.1:9", "redis://127.0.0.1:9", "mysql://root@127.0.0.1:9/tandem")

MakeMySQL = Callable[..., MySQL]


class Fresh(NamedTuple):
    """A database of the test's own: its name, its URL, and a cursor in it."""

    name: str
    url: str
    cursor: Cursor


MakeFresh = Callable[..., Fresh]
MakeRelay = Callable[[], Relay]
SetZone = Callable[[str], None]
SetUser = Callable[[int, str], None]


def pem(key: Any) -> bytes:
    """Return a private or public key as PEM."""
    if hasattr(key, "private_bytes"):
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def make_mysql(io_loop: IOLoop, addresses: Addresses, database: pymysql.Connection) -> Iterator[MakeMySQL]:
    """Open MySQL."""
    opened: list[MySQL] = []

    def make(url: str = addresses.mysql, *, timeout: float = 2, threads: int = 2, waiting: int = 100) -> MySQL:
        opened.append(MySQL(url, timeout=timeout, threads=threads, waiting=waiting))
        return opened[-1]

    yield make
    for mysql in opened:
        io_loop.run_sync(mysql.close)


@pytest.fixture
def make_fresh(addresses: Addresses) -> Iterator[MakeFresh]:
    """Create databases without tables, with a character set."""
    with ExitStack() as stack:

        def make(charset: str = "utf8mb4") -> Fresh:
            name = f"fresh_{secrets.token_hex(4)}"
            connection = stack.enter_context(mysql_connection(addresses.mysql, database=None))
            cursor = stack.enter_context(connection.cursor())
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {charset}")
            stack.callback(cursor.execute, f"DROP DATABASE {name}")
            cursor.execute(f"USE {name}")
            return Fresh(name, addresses.mysql.replace("/tandem?", f"/{name}?"), cursor)

        yield make


@pytest.fixture
def set_zone(database: pymysql.Connection) -> Iterator[SetZone]:
    """Set the default time zone of new connections."""

    def set_zone(zone: str) -> None:
        with database.cursor() as cursor:
            cursor.execute("SET GLOBAL time_zone = %s", (zone,))

    yield set_zone
    set_zone("SYSTEM")


@pytest.fixture
def make_relay(addresses: Addresses) -> Iterator[MakeRelay]:
    """Make relays to MySQL."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(Relay(addresses.mysql)))


@pytest.fixture
def mysql(make_mysql: MakeMySQL) -> MySQL:
    """MySQL."""
    return make_mysql()


@pytest.fixture
def users(mysql: MySQL) -> MySQLUsers:
    """The users, with a cache that outlives the test."""
    return MySQLUsers(mysql, cache_size=100, cache_ttl=60)


@pytest.fixture
def set_user(database: pymysql.Connection) -> SetUser:
    """Change a user's row in SQL, as another program does."""

    def set_columns(user: int, assignment: str) -> None:
        with database.cursor() as cursor:
            assert cursor.execute(f"UPDATE `user` SET {assignment} WHERE id = %s", (user,)) == 1

    return set_columns


@pytest.fixture
def redis_server(io_loop: IOLoop, addresses: Addresses) -> Iterator[RedisServer]:
    """Redis, as the stores use it."""
    server = RedisServer(addresses.redis, timeout=PATIENCE, connections=8)
    yield server
    io_loop.run_sync(server.close)


@pytest.fixture
def redis_away(io_loop: IOLoop) -> Iterator[RedisServer]:
    """A Redis that is unavailable."""
    server = RedisServer(UNAVAILABLE.redis, timeout=1, connections=1)
    yield server
    io_loop.run_sync(server.close)


@pytest.fixture
def prefix() -> str:
    """The prefix of the test's keys in Redis."""
    return f"test-{secrets.token_hex(4)}"
