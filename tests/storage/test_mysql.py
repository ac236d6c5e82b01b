"""MySQL: its URL, threads and connections, and how many may wait."""

from __future__ import annotations

import asyncio
import threading
from urllib.parse import urlsplit

import pymysql
import pytest
from pymysql.cursors import Cursor

from models.errors import EngineUnavailable, NameTaken
from storage.engines import Addresses
from storage.mysql import MySQL
from tests.sockets import PATIENCE, until
from tests.storage.conftest import NOBODY, MakeMySQL


async def connection_id(mysql: MySQL) -> int:
    """The number of the connection that the work was given."""

    def work(cursor: Cursor) -> int:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]

    return await mysql.run(work)


async def test_work_stays_off_the_event_loop(mysql: MySQL) -> None:
    """PyMySQL blocks; it does so in threads of its own."""
    name = await mysql.run(lambda cursor: threading.current_thread().name)
    assert name.startswith("mysql")


async def test_each_thread_keeps_one_connection(mysql: MySQL) -> None:
    """However much is asked, there are no more connections than threads."""
    numbers = await asyncio.gather(*(connection_id(mysql) for _ in range(20)))
    assert len(set(numbers)) <= 2


async def test_a_statement_commits_by_itself(mysql: MySQL, database: pymysql.Connection, pair: tuple[int, int]) -> None:
    """Others see it before the work is done."""

    def work(cursor: Cursor) -> object:
        cursor.execute("UPDATE `user` SET email = 'a@b' WHERE id = %s", (pair[0],))
        with database.cursor() as other:
            other.execute("SELECT email FROM `user` WHERE id = %s", (pair[0],))
            return other.fetchone()

    assert await mysql.run(work) == ("a@b",)


async def test_connections_that_died_are_replaced(make_mysql: MakeMySQL, database: pymysql.Connection) -> None:
    """A restart of MySQL costs nobody an answer."""
    mysql = make_mysql(threads=1)
    before = await connection_id(mysql)
    with database.cursor() as cursor:
        cursor.execute("KILL %s", (before,))
    assert await connection_id(mysql) != before


async def test_closing_ends_the_threads(mysql: MySQL, database: pymysql.Connection) -> None:
    """None is left, nor its connection."""
    number = await connection_id(mysql)
    await mysql.close()
    await until(lambda: not any(thread.name.startswith("mysql") for thread in threading.enumerate()))

    def connected() -> int:
        with database.cursor() as cursor:
            return cursor.execute("SELECT 1 FROM information_schema.processlist WHERE id = %s", (number,))

    await until(lambda: not connected())


async def test_waiting_is_bounded(make_mysql: MakeMySQL) -> None:
    """Who finds all places taken is refused at once; a place that was left is free again."""
    mysql = make_mysql(waiting=2)
    async with mysql.turn(), mysql.turn():
        with pytest.raises(EngineUnavailable, match="too many"):
            async with mysql.turn():
                pass
    async with mysql.turn():
        await mysql.ping()


async def test_who_gives_up_leaves_the_place(make_mysql: MakeMySQL) -> None:
    """A caller that is cancelled does not wait on."""
    mysql = make_mysql(waiting=1)
    holding = asyncio.Event()

    async def hold() -> None:
        async with mysql.turn():
            holding.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await holding.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with mysql.turn():
        pass


async def test_no_answer_in_time(make_mysql: MakeMySQL) -> None:
    """The caller is told, although the thread still waits."""
    mysql, answer = make_mysql(timeout=0.05), threading.Event()
    try:
        with pytest.raises(EngineUnavailable, match="mysql: no answer in time"):
            await mysql.run(lambda cursor: answer.wait(PATIENCE))
    finally:
        answer.set()


async def test_nobody_there(make_mysql: MakeMySQL) -> None:
    """An error that names the engine."""
    with pytest.raises(EngineUnavailable) as caught:
        await make_mysql(NOBODY.mysql).ping()
    assert caught.value.engine == "mysql"


async def test_errors(mysql: MySQL) -> None:
    """The driver's become ours, what the work itself raises stays."""
    with pytest.raises(EngineUnavailable, match="ProgrammingError"):
        await mysql.run(lambda cursor: cursor.execute("SELECT * FROM nowhere"))

    def work(cursor: Cursor) -> None:
        raise NameTaken("somebody")

    with pytest.raises(NameTaken):
        await mysql.run(work)


async def test_a_url_is_unquoted(make_mysql: MakeMySQL, addresses: Addresses, database: pymysql.Connection) -> None:
    """Names and passwords may hold any character."""
    with database.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER 'o@dd'@'localhost' IDENTIFIED BY 'p/:?#% @é字'")
        cursor.execute("GRANT SELECT ON tandem.* TO 'o@dd'@'localhost'")
    query = urlsplit(addresses.mysql).query
    mysql = make_mysql(f"mysql://o%40dd:p%2F%3A%3F%23%25%20%40%C3%A9%E5%AD%97@localhost/tandem?{query}")

    def work(cursor: Cursor) -> str:
        cursor.execute("SELECT CURRENT_USER()")
        return cursor.fetchone()[0]

    assert await mysql.run(work) == "o@dd@localhost"


@pytest.mark.parametrize("url", ["", "postgres://x/y", "mysql://host", "mysql://host/"])
def test_a_url_that_is_none(url: str) -> None:
    """Says what is expected."""
    with pytest.raises(ValueError, match="mysql://user:password@host"):
        MySQL(url, timeout=1, threads=1, waiting=1)


def test_an_option_that_is_not_known() -> None:
    """Is no wish that can be passed over in silence."""
    with pytest.raises(ValueError, match="ssl_ca: unknown in this URL"):
        MySQL("mysql://u:p@h/d?ssl_ca=/x", timeout=1, threads=1, waiting=1)


@pytest.mark.parametrize("url", ["mysql://host:port/x", "mysql://host:99999/x", "mysql://[::1/x"])
def test_a_url_with_an_impossible_host(url: str) -> None:
    """Is none either."""
    with pytest.raises(ValueError, match=r"[Pp]ort|IPv6"):
        MySQL(url, timeout=1, threads=1, waiting=1)
