"""Direct access to the databases, for data that a test prepares or reads without the server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymongo import MongoClient


def mysql_connection(url: str, database: str | None = "tandem") -> pymysql.Connection:
    """Connect to an embedded mariadbd."""
    path = unquote(parse_qs(urlsplit(url).query)["unix_socket"][0])
    return pymysql.connect(user="root", unix_socket=path, database=database, autocommit=True, charset="utf8mb4")


def mongo_reads(url: str) -> int:
    """Return how many reads a mongod has had since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        commands = client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(commands[name]["total"] for name in ("find", "aggregate", "getMore"))


def make_users(connection: pymysql.Connection, count: int) -> list[int]:
    """Insert active users without passwords; return their ids."""
    ids = []
    with connection.cursor() as cursor:
        for _ in range(count):
            cursor.execute(
                "INSERT INTO `user` (created_at, updated_at, user_name, status) VALUES (NOW(), NOW(), UUID(), 'active')"
            )
            ids.append(int(cursor.lastrowid))
    return ids
