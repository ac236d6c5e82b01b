"""Direct access to the databases, for data that a test prepares or reads without the server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
import redis
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from redis.asyncio import Redis

from storage.embedded.supervisor import Addresses


def mysql_connection(url: str, database: str | None = "tandem") -> pymysql.Connection:
    """Connect to an embedded mariadbd."""
    path = unquote(parse_qs(urlsplit(url).query)["unix_socket"][0])
    return pymysql.connect(user="root", unix_socket=path, database=database, autocommit=True, charset="utf8mb4")


def mongo_reads(url: str) -> int:
    """Return how many reads a mongod has had since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        commands = client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(commands[name]["total"] for name in ("find", "aggregate", "getMore"))


def redis_client(url: str) -> Redis:
    """Return a client, to be used as an asynchronous context."""
    return Redis.from_url(url, decode_responses=True)


def answers(addresses: Addresses, name: str) -> bool:
    """Return whether an embedded database takes writes; `name` is its program's."""
    try:
        match name:
            case "mongod":
                with MongoClient[dict[str, Any]](addresses.mongo, serverSelectionTimeoutMS=1000) as client:
                    return bool(client.admin.command("hello")["isWritablePrimary"])
            case "redis":
                with redis.Redis.from_url(addresses.redis, socket_timeout=1) as server:
                    return bool(server.ping())
            case _:
                with mysql_connection(addresses.mysql, None):
                    return True
    except (PyMongoError, redis.RedisError, pymysql.Error):
        return False


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
