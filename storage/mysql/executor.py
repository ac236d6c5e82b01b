"""MySQL, through PyMySQL in threads. Only this module keeps connections.

Each thread keeps one connection. Work for the database is a function of a cursor, which runs in a thread. A read is
repeated if its connection was lost. A change is one transaction that is tried once. Either is tried again if the server
refuses it because it is read-only or not ready, since then nothing was done, and another host may do it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import pymysql
from pymysql.cursors import Cursor

from models.errors import StorageUnavailable
from storage.mysql.errors import is_lost, is_misdirected, mysql_errors
from storage.mysql.hosts import HostConnection, Hosts, require_writable
from storage.mysql.url import address_in
from storage.outages import Outages

__all__ = ["MySQL"]

LOOK_AGAIN = 0.1  # seconds between two attempts to learn a change's outcome
LOOK_FOR = 4  # these attempts go on for so many times the timeout

Result = TypeVar("Result")


class _UnknownOutcome(StorageUnavailable):
    """The connection was lost while a change was being committed."""


class _Threads(threading.local):
    """The connection of each thread."""

    connection: HostConnection | None = None


class _Commit:
    """Whether a change may still be committed, on which its caller and its thread have to agree."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._abandoned = False

    @property
    def begun(self) -> bool:
        """Whether the change may have been committed."""
        return self._begun

    def begin(self) -> None:
        """Begin to commit. Raises StorageUnavailable if the caller has given up."""
        with self._lock:
            if self._abandoned:
                raise StorageUnavailable("mysql", "too late")
            self._begun = True

    def abandon(self) -> bool:
        """Prevent the change from being committed. Return False if that has already begun."""
        with self._lock:
            self._abandoned = True
            return not self._begun


class MySQL:
    """The database at a URL.

    Args:
        url: mysql://user:password@host:port/database, with further hosts and options (storage/mysql/url.py).
        timeout: Seconds for each step on a connection; a call may take twice as long.
        threads: The number of threads, each with one connection.
        waiting: How many calls may be in progress or queued.

    Raises ValueError for an invalid URL.
    """

    def __init__(self, url: str, *, timeout: float, threads: int, waiting: int) -> None:
        self.threads = threads
        self._timeout = timeout
        self._hosts = Hosts(address_in(url, timeout), time.monotonic)
        self._kept = _Threads()
        self._executor = ThreadPoolExecutor(threads, "mysql")
        self._waiting = asyncio.BoundedSemaphore(waiting)
        self._outages = Outages("mysql", time.monotonic)

    async def ping(self) -> None:
        """Raise StorageUnavailable unless the database answers and takes writes."""
        await self.always(require_writable, writes=True)

    async def close(self) -> None:
        """End the threads and their connections."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold one of the `waiting` turns. Raises StorageUnavailable at once if there is none."""
        if self._waiting.locked():
            raise StorageUnavailable("mysql", "too many requests are queued")
        async with self._waiting:
            yield

    async def run(self, work: Callable[[Cursor], Result]) -> Result:
        """Run `work`, which reads, with a cursor in a thread, and once more if the connection was lost meanwhile.

        Raises StorageUnavailable, at once if too many calls are queued; DatabaseRefused; and what `work` raises.
        """
        async with self.turn():
            return await self.always(work)

    async def always(self, work: Callable[[Cursor], Result], *, writes: bool = False) -> Result:
        """Run `work` like `run`, without taking a turn: for callers that have one, or that must not be refused.

        `writes` says that an answer shows that the database takes writes.
        """

        def in_thread() -> Result:
            began = time.monotonic()
            try:
                return self._with_cursor(work)
            except (pymysql.MySQLError, OSError) as error:
                again = is_lost(error) or self._leaves(error)
                # Noticing a lost connection may have taken all the time that is left.
                if not again or time.monotonic() - began >= self._timeout:
                    raise
                return self._with_cursor(work)

        with self._outages.watch(writes=writes):
            try:
                return await self._in_thread(in_thread)
            except TimeoutError:
                raise StorageUnavailable("mysql", "no answer in time") from None

    async def change(
        self, work: Callable[[Cursor], Result], done: Callable[[Cursor], Result | None] | None = None
    ) -> Result:
        """Run `work` with a cursor in one transaction, once.

        It runs once more only if the server refused it before the commit since it is read-only or not ready.

        If the connection is lost during the commit, `done` looks for the change. It returns what `work` would have
        returned, or None if nothing was changed. It has to read with a lock (FOR UPDATE), so that it waits for the
        transaction. Raises the same errors as `run`. Then nothing was changed, unless the commit's outcome is unknown:
        without `done`, or if the database did not answer that either.
        """
        commit = _Commit()

        def attempt() -> Result:
            connection = self._connected()
            connection.begin()
            try:
                with connection.cursor() as cursor:
                    result = work(cursor)
                commit.begin()
            except BaseException:
                with suppress(pymysql.MySQLError, OSError):  # on a lost connection the server rolls back by itself
                    connection.rollback()
                raise
            try:
                connection.commit()
            except (pymysql.MySQLError, OSError) as error:
                if is_lost(error):
                    raise _UnknownOutcome("mysql", f"{type(error).__name__}: {error}") from error
                raise
            return result

        def in_thread() -> Result:
            began = time.monotonic()
            try:
                return attempt()
            except (pymysql.MySQLError, OSError) as error:
                again = self._leaves(error) and not commit.begun
                if not again or time.monotonic() - began >= self._timeout:
                    raise
                return attempt()

        async with self.turn():
            try:
                with self._outages.watch(writes=True):
                    try:
                        return await self._in_thread(in_thread)
                    except TimeoutError:
                        kind = StorageUnavailable if commit.abandon() else _UnknownOutcome
                        raise kind("mysql", "no answer in time") from None
            except _UnknownOutcome:
                found = await self._found_out(done) if done is not None else None
                if found is None:
                    raise
                return found

    async def _found_out(self, done: Callable[[Cursor], Result | None]) -> Result | None:
        """Call `done` until the database answers. Raises StorageUnavailable if it does not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOK_FOR * self._timeout
        while True:
            try:
                return await self.always(done)
            except StorageUnavailable:
                if loop.time() >= until:
                    raise
                await asyncio.sleep(LOOK_AGAIN)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        def in_thread() -> Result:
            with mysql_errors():
                return work()

        async with asyncio.timeout(2 * self._timeout):
            return await asyncio.get_running_loop().run_in_executor(self._executor, in_thread)

    def _with_cursor(self, work: Callable[[Cursor], Result]) -> Result:
        with self._connected().cursor() as cursor:
            return work(cursor)

    def _connected(self) -> HostConnection:
        """Return this thread's connection, after checking that it works."""
        kept, self._kept.connection = self._kept.connection, None
        if kept is not None and self._hosts.is_current(kept):
            began = time.monotonic()
            try:
                kept.ping(reconnect=False)
            except (pymysql.MySQLError, OSError) as error:
                if time.monotonic() - began >= self._timeout:  # connecting to it would take as long
                    self._hosts.avoid(kept.server, str(error))
            else:
                self._kept.connection = kept
                return kept
        del kept  # which closes it
        self._kept.connection = made = self._hosts.connect()
        return made

    def _leaves(self, error: BaseException) -> bool:
        """Leave this thread's server if it refuses what another may do. Return whether to try once more."""
        kept = self._kept.connection
        return kept is not None and is_misdirected(error) and self._hosts.leave(kept, str(error))
