"""Direct access to the engines, for what a test prepares or looks up behind the server's back."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymongo import MongoClient


def mysql_connection(url: str, database: str | None = "tandem") -> pymysql.Connection:
    """A connection to a private mariadbd."""
    path = unquote(parse_qs(urlsplit(url).query)["unix_socket"][0])
    return pymysql.connect(user="root", unix_socket=path, database=database, autocommit=True, charset="utf8mb4")


def mongo_reads(url: str) -> int:
    """How many times a mongod was asked for documents since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        commands = client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(commands[name]["total"] for name in ("find", "aggregate", "getMore"))


def make_users(connection: pymysql.Connection, count: int) -> list[int]:
    """New active users without passwords; their ids."""
    ids = []
    with connection.cursor() as cursor:
        for _ in range(count):
            cursor.execute(
                "INSERT INTO `user` (created_at, updated_at, user_name, status) VALUES (NOW(), NOW(), UUID(), 'active')"
            )
            ids.append(int(cursor.lastrowid))
    return ids
