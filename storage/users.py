"""Users in gin-chat-demo's MySQL table, through PyMySQL in threads of its own; no other module imports it.

Each thread keeps one connection. Lookups that come together travel in one query, and are remembered for a
few seconds; whether a user is active is looked up again after that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import bcrypt
import pymysql
from cachetools import TTLCache
from dbutils.persistent_db import PersistentDB
from pymysql.constants import ER
from pymysql.cursors import Cursor

from models.errors import EngineUnavailable, NameTaken
from models.records import User
from storage.group_commit import GroupCommit
from storage.schema import migrate, seed

__all__ = ["MySQLUsers"]

ACTIVE = "active"  # the status of a usable account in gin-chat-demo
PASSWORD_COST = 12  # bcrypt's, as gin-chat-demo's
BATCH = 500  # users looked up in one query

Result = TypeVar("Result")


def _connection(url: str, timeout: float) -> dict[str, Any]:
    """PyMySQL's arguments for mysql://user:password@host:port/database[?unix_socket=path]."""
    parts = urlsplit(url)
    if parts.scheme != "mysql" or not parts.path.strip("/"):
        raise ValueError("a URL like mysql://user:password@host:3306/database is expected")
    seconds = math.ceil(timeout)
    arguments: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": parts.port or 3306,
        "user": unquote(parts.username or "root"),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.strip("/")),
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        "charset": "utf8mb4",
        "autocommit": True,
    }
    socket = parse_qs(parts.query).get("unix_socket")
    return arguments | {"unix_socket": socket[0]} if socket else arguments


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        raise EngineUnavailable("mysql", f"{type(error).__name__}: {error}") from error


def _select(cursor: Cursor, ids: Sequence[int]) -> dict[int, User]:
    """The active users among `ids`."""
    cursor.execute(
        "SELECT id, user_name, nick_name, email, avatar, status, UNIX_TIMESTAMP(created_at) FROM `user` "
        "WHERE id IN %s AND deleted_at IS NULL AND status = %s",
        (tuple(set(ids)), ACTIVE),
    )
    users = {}
    for number, user_name, nick_name, email, avatar, status, created in cursor.fetchall():
        users[number] = User(
            number, user_name or "", nick_name or "", email or "", avatar or "", status, int(created or 0)
        )
    return users


class MySQLUsers:
    """The user table behind `url`.

    `timeout` (seconds) bounds each step on a connection and the wait for a thread; `waiting` bounds how many
    lookups and registrations wait at once, `cache_size` and `cache_ttl` (seconds) what is remembered.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        threads: int,
        password_threads: int,
        waiting: int,
        cache_size: int,
        cache_ttl: float,
    ) -> None:
        self._timeout = timeout
        self._connections = PersistentDB(pymysql, **_connection(url, timeout))
        self._executor = ThreadPoolExecutor(threads, "mysql")
        self._password_executor = ThreadPoolExecutor(password_threads, "password")
        self._waiting = asyncio.BoundedSemaphore(waiting)
        self._cache: TTLCache[int, User] = TTLCache(cache_size, cache_ttl)
        self._look_up = GroupCommit(self._fetch, max_batch=BATCH, max_flights=threads)

    async def prepare(self, *, with_article_users: bool) -> None:
        """Brings the table up to date; `with_article_users` puts ids 1 and 2 into an empty one."""

        def work(cursor: Cursor) -> None:
            migrate(cursor)
            if with_article_users:
                seed(cursor)

        await self._run(work)

    async def ping(self) -> None:
        """Raises EngineUnavailable unless the database answers."""
        await self._run(lambda cursor: cursor.execute("SELECT 1"))

    async def close(self) -> None:
        """Ends the threads and their connections."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._password_executor.shutdown(wait=False, cancel_futures=True)

    async def active(self, *ids: int) -> dict[int, User]:
        """The active users among `ids`, from what is remembered or from the table."""
        found = {user: self._cache[user] for user in ids if user in self._cache}
        unknown = [user for user in ids if user not in found]
        if not unknown:
            return found
        async with self._turn():
            for user in await asyncio.gather(*(self._look_up(user) for user in unknown)):
                if user is not None:
                    found[user.id] = user
                    if self._cache.maxsize:
                        self._cache[user.id] = user
        return found

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user; `password` has 8 to 72 bytes. Raises NameTaken, EngineUnavailable."""

        def taken(cursor: Cursor) -> bool:
            return bool(cursor.execute("SELECT 1 FROM `user` WHERE user_name = %s", (user_name,)))

        async with self._turn():
            if await self._run(taken):  # spares the hash
                raise NameTaken(user_name)
            loop = asyncio.get_running_loop()
            salt = bcrypt.gensalt(PASSWORD_COST)
            digest = await loop.run_in_executor(self._password_executor, bcrypt.hashpw, password, salt)

        def insert(cursor: Cursor) -> User:
            try:
                cursor.execute(
                    "INSERT INTO `user` (created_at, updated_at, user_name, nick_name, password_digest, email, "
                    "avatar, phone, status) VALUES (NOW(), NOW(), %s, %s, %s, '', '', '', %s)",
                    (user_name, nick_name, digest.decode(), ACTIVE),
                )
            except pymysql.IntegrityError as error:
                if error.args[0] == ER.DUP_ENTRY:
                    raise NameTaken(user_name) from None
                raise
            cursor.execute("SELECT LAST_INSERT_ID()")
            (number,) = cursor.fetchone() or (0,)
            return _select(cursor, [number])[number]

        return await self._run(insert)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the `waiting` places; refuses at once when there is none."""
        if self._waiting.locked():
            raise EngineUnavailable("mysql", "too many requests are waiting")
        async with self._waiting:
            yield

    async def _fetch(self, ids: Sequence[int]) -> Sequence[User | None]:
        users = await self._run(lambda cursor: _select(cursor, ids))
        return [users.get(user) for user in ids]

    async def _run(self, work: Callable[[Cursor], Result]) -> Result:
        """Runs `work` with a cursor, in a thread that has a connection."""

        def in_thread() -> Result:
            with _translated(), self._connections.connection() as connection, connection.cursor() as cursor:
                return work(cursor)

        try:
            async with asyncio.timeout(2 * self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._executor, in_thread)
        except TimeoutError:
            raise EngineUnavailable("mysql", "no answer in time") from None
