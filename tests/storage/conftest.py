"""What the tests of several stores share: MySQL and the users in it, Redis, and an address where nobody answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from storage.clients import redis_client
from storage.engines import Addresses
from storage.mysql import MySQL
from storage.users import MySQLUsers

NOBODY = Addresses("mongodb://127.0.0.1:9", "redis://127.0.0.1:9", "mysql://root@127.0.0.1:9/tandem")

MakeMySQL = Callable[..., MySQL]
SetUser = Callable[[int, str], None]


def pem(key: Any) -> bytes:
    """A key as PEM, private or public as it is."""
    if hasattr(key, "private_bytes"):
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def make_mysql(io_loop: IOLoop, addresses: Addresses, database: pymysql.Connection) -> Iterator[MakeMySQL]:
    """Opens MySQL."""
    opened: list[MySQL] = []

    def make(url: str = addresses.mysql, *, timeout: float = 2, threads: int = 2, waiting: int = 100) -> MySQL:
        opened.append(MySQL(url, timeout=timeout, threads=threads, waiting=waiting))
        return opened[-1]

    yield make
    for mysql in opened:
        io_loop.run_sync(mysql.close)


@pytest.fixture
def mysql(make_mysql: MakeMySQL) -> MySQL:
    """MySQL."""
    return make_mysql()


@pytest.fixture
def users(mysql: MySQL) -> MySQLUsers:
    """The users, remembered for longer than a test takes."""
    return MySQLUsers(mysql, cache_size=100, cache_ttl=60)


@pytest.fixture
def set_user(database: pymysql.Connection) -> SetUser:
    """Changes a user's row as another program does, in SQL."""

    def set_columns(user: int, assignment: str) -> None:
        with database.cursor() as cursor:
            assert cursor.execute(f"UPDATE `user` SET {assignment} WHERE id = %s", (user,)) == 1

    return set_columns


@pytest.fixture
def redis(io_loop: IOLoop, addresses: Addresses) -> Iterator[Redis]:
    """A client of Redis."""
    client = redis_client(addresses.redis, timeout=5, connections=8)
    yield client
    io_loop.run_sync(client.aclose)


@pytest.fixture
def redis_away(io_loop: IOLoop) -> Iterator[Redis]:
    """A client of a Redis that is not there."""
    client = redis_client(NOBODY.redis, timeout=1, connections=1)
    yield client
    io_loop.run_sync(client.aclose)


@pytest.fixture
def prefix() -> str:
    """What the test's own keys in Redis begin with."""
    return f"test-{secrets.token_hex(4)}"
