"""MySQL, through PyMySQL in threads of its own; the only place that has connections.

Each thread keeps one connection. What is asked of the database is a function of a cursor, which runs in a thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from dbutils.persistent_db import PersistentDB
from pymysql.cursors import Cursor

from models.errors import EngineUnavailable

__all__ = ["MySQL"]

Result = TypeVar("Result")


class MySQL:
    """The database behind `url`, mysql://user:password@host:port/database[?unix_socket=path].

    `timeout` (seconds) bounds each step on a connection, and twice of it the wait for an answer; `waiting` bounds how
    many requests wait at once. Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float, threads: int, waiting: int) -> None:
        self.threads = threads
        self._timeout = timeout
        self._connections = PersistentDB(
            pymysql,
            threadlocal=threading.local,  # DBUtils' own keeps connections of threads that have ended
            **_connection(url, timeout),
        )
        self._executor = ThreadPoolExecutor(threads, "mysql")
        self._waiting = asyncio.BoundedSemaphore(waiting)

    async def ping(self) -> None:
        """Raises EngineUnavailable unless the database answers."""
        await self.always(lambda cursor: cursor.execute("SELECT 1"))

    async def close(self) -> None:
        """Ends the threads and their connections."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One of the `waiting` places; refuses at once when there is none."""
        if self._waiting.locked():
            raise EngineUnavailable("mysql", "too many requests are waiting")
        async with self._waiting:
            yield

    async def run(self, work: Callable[[Cursor], Result]) -> Result:
        """Runs `work` with a cursor, in a thread that has a connection; each statement commits by itself.

        Raises EngineUnavailable, at once when too many wait, and what `work` raises itself.
        """
        async with self.turn():
            return await self.always(work)

    async def always(self, work: Callable[[Cursor], Result]) -> Result:
        """The same however many wait: for what a flood of requests must not stop, and for who has a turn."""

        def in_thread() -> Result:
            with _translated(), self._connections.connection() as connection, connection.cursor() as cursor:
                return work(cursor)

        try:
            async with asyncio.timeout(2 * self._timeout):
                return await asyncio.get_running_loop().run_in_executor(self._executor, in_thread)
        except TimeoutError:
            raise EngineUnavailable("mysql", "no answer in time") from None


def _connection(url: str, timeout: float) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "mysql" or not parts.path.strip("/"):
        raise ValueError("a URL like mysql://user:password@host:3306/database is expected")
    seconds = math.ceil(timeout)
    arguments: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": parts.port or 3306,
        "user": unquote(parts.username or "root"),
        "password": unquote(parts.password or "").encode(),  # PyMySQL would make latin1 of text
        "database": unquote(parts.path.strip("/")),
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        "charset": "utf8mb4",
        "autocommit": True,
    }
    options = parse_qs(parts.query, keep_blank_values=True)
    socket = options.pop("unix_socket", None)
    if options:  # in particular none that is about TLS may be passed over
        raise ValueError(f"{', '.join(options)}: unknown in this URL; unix_socket is the only option")
    return arguments | {"unix_socket": socket[0]} if socket else arguments


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        raise EngineUnavailable("mysql", f"{type(error).__name__}: {error}") from error
