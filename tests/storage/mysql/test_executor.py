"""Tests of MySQL's URL, threads, connections and limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pymysql
import pytest
from pymysql.cursors import Cursor
from structlog.testing import capture_logs

from models.errors import DatabaseRefused, NameTaken, StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mysql.executor import MySQL
from tests.storage.conftest import UNAVAILABLE, MakeFresh, MakeMySQL, MakeRelay, SetZone
from tests.support.patience import PATIENCE
from tests.support.sockets import until


async def connection_id(mysql: MySQL) -> int:
    """Return the id of the cursor's connection."""

    def work(cursor: Cursor) -> int:
        cursor.execute("SELECT CONNECTION_ID()")
        return cursor.fetchone()[0]

    return await mysql.run(work)


async def test_work_stays_off_the_event_loop(mysql: MySQL) -> None:
    """Work runs in the executor's threads, since PyMySQL blocks."""
    name = await mysql.run(lambda cursor: threading.current_thread().name)
    assert name.startswith("mysql")


async def test_each_thread_keeps_one_connection(mysql: MySQL) -> None:
    """There are no more connections than threads."""
    numbers = await asyncio.gather(*(connection_id(mysql) for _ in range(20)))
    assert len(set(numbers)) <= 2


async def test_what_is_read_is_what_is_there(mysql: MySQL, database: pymysql.Connection, pair: tuple[int, int]) -> None:
    """Each read sees the current rows, since it runs without a transaction."""

    def work(cursor: Cursor) -> object:
        cursor.execute("SELECT email FROM `user` WHERE id = %s", (pair[0],))
        with database.cursor() as other:
            other.execute("UPDATE `user` SET email = 'a@b' WHERE id = %s", (pair[0],))
        cursor.execute("SELECT email FROM `user` WHERE id = %s", (pair[0],))
        return cursor.fetchone()

    assert await mysql.run(work) == ("a@b",)


async def test_connections_that_died_are_replaced(make_mysql: MakeMySQL, database: pymysql.Connection) -> None:
    """A connection that MySQL has closed is replaced, and no call fails."""
    mysql = make_mysql(threads=1)
    before = await connection_id(mysql)
    with database.cursor() as cursor:
        cursor.execute("KILL %s", (before,))
    assert await connection_id(mysql) != before


async def test_closing_ends_the_threads(mysql: MySQL, database: pymysql.Connection) -> None:
    """After `close` no thread and no connection is left."""
    number = await connection_id(mysql)
    await mysql.close()
    await until(lambda: not any(thread.name.startswith("mysql") for thread in threading.enumerate()))

    def connected() -> int:
        with database.cursor() as cursor:
            return cursor.execute("SELECT 1 FROM information_schema.processlist WHERE id = %s", (number,))

    await until(lambda: not connected())


async def test_waiting_is_bounded(make_mysql: MakeMySQL) -> None:
    """A call is refused at once if all turns are taken, and a turn that ends is free again."""
    mysql = make_mysql(waiting=2)
    async with mysql.turn(), mysql.turn():
        with pytest.raises(StorageUnavailable, match="too many"):
            async with mysql.turn():
                pass
    async with mysql.turn():
        await mysql.ping()


async def test_a_cancelled_call_frees_its_turn(make_mysql: MakeMySQL) -> None:
    """A cancelled call frees its turn."""
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
    """A caller gets StorageUnavailable after the timeout, though its thread still waits."""
    mysql, answer = make_mysql(timeout=0.05), threading.Event()
    try:
        with pytest.raises(StorageUnavailable, match="mysql: no answer in time"):
            await mysql.run(lambda cursor: answer.wait(PATIENCE))
    finally:
        answer.set()


async def test_no_database(make_mysql: MakeMySQL) -> None:
    """Without a database at the URL, the error names MySQL."""
    with pytest.raises(StorageUnavailable) as caught:
        await make_mysql(UNAVAILABLE.mysql).ping()
    assert caught.value.database == "mysql"


async def test_errors(mysql: MySQL) -> None:
    """The driver's errors are translated, and the work's own errors are not."""
    with pytest.raises(DatabaseRefused, match="ProgrammingError"):
        await mysql.run(lambda cursor: cursor.execute("SELECT * FROM nowhere"))

    def work(cursor: Cursor) -> None:
        raise NameTaken("somebody")

    with pytest.raises(NameTaken):
        await mysql.run(work)


async def test_a_url_is_unquoted(make_mysql: MakeMySQL, addresses: Addresses, database: pymysql.Connection) -> None:
    """Names and passwords in a URL may contain any character."""
    with database.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER 'o@dd'@'localhost' IDENTIFIED BY 'p/:?#% @é字'")
        cursor.execute("GRANT SELECT ON tandem.* TO 'o@dd'@'localhost'")
    query = urlsplit(addresses.mysql).query
    mysql = make_mysql(f"mysql://o%40dd:p%2F%3A%3F%23%25%20%40%C3%A9%E5%AD%97@localhost/tandem?{query}")

    def work(cursor: Cursor) -> str:
        cursor.execute("SELECT CURRENT_USER()")
        return cursor.fetchone()[0]

    assert await mysql.run(work) == "o@dd@localhost"


# Changes, and connections that are lost


def write(cursor: Cursor, value: str, user: int) -> int:
    return cursor.execute("UPDATE `user` SET email = %s WHERE id = %s", (value, user))


async def email_of(mysql: MySQL, user: int) -> str:
    def work(cursor: Cursor) -> str:
        cursor.execute("SELECT email FROM `user` WHERE id = %s", (user,))
        return cursor.fetchone()[0]

    return await mysql.run(work)


async def test_a_change_is_all_or_nothing(mysql: MySQL, pair: tuple[int, int]) -> None:
    """A change that raises is rolled back, and its connection is used again."""

    def work(cursor: Cursor, then: Callable[[], object]) -> None:
        for user in pair:
            write(cursor, "a@b", user)
        then()

    def fail() -> None:
        raise NameTaken("somebody")

    with pytest.raises(NameTaken):
        await mysql.change(lambda cursor: work(cursor, fail))
    assert [await email_of(mysql, user) for user in pair] == [None, None]
    await mysql.change(lambda cursor: work(cursor, lambda: None))
    assert [await email_of(mysql, user) for user in pair] == ["a@b", "a@b"]


async def test_a_read_is_repeated(make_relay: MakeRelay, make_mysql: MakeMySQL, pair: tuple[int, int]) -> None:
    """A read whose connection was lost after its statement arrived is repeated, without an error."""
    relay = make_relay()
    mysql = make_mysql(relay.url)
    relay.lose = b"SELECT email"
    assert await email_of(mysql, pair[0]) is None
    assert relay.lost == 1


async def test_a_change_is_not_repeated(make_relay: MakeRelay, make_mysql: MakeMySQL, pair: tuple[int, int]) -> None:
    """A change whose connection was lost before the commit is not repeated, and the caller gets an error."""
    relay = make_relay()
    mysql = make_mysql(relay.url)
    tried = 0

    def work(cursor: Cursor) -> None:
        nonlocal tried
        tried += 1
        write(cursor, "a@b", pair[0])

    relay.lose = b"UPDATE"
    with pytest.raises(StorageUnavailable):
        await mysql.change(work, lambda cursor: None)
    assert (tried, await email_of(mysql, pair[0])) == (1, None)


async def test_a_change_whose_outcome_is_not_known_is_looked_up(
    make_relay: MakeRelay, make_mysql: MakeMySQL, pair: tuple[int, int]
) -> None:
    """A change whose connection was lost during the commit is looked up when the database answers again."""
    relay = make_relay()
    mysql = make_mysql(relay.url, timeout=PATIENCE)
    looked: list[object] = []

    def done(cursor: Cursor) -> int | None:
        looked.append(cursor.execute("SELECT 1 FROM `user` WHERE id = %s AND email = 'a@b' FOR UPDATE", (pair[0],)))
        return 7 if looked[-1] else None

    relay.lose = b"COMMIT"
    assert await mysql.change(lambda cursor: write(cursor, "a@b", pair[0]), done) == 7
    assert looked == [1]
    mysql = make_mysql(relay.url, timeout=1)
    relay.lose = b"COMMIT"
    task = asyncio.create_task(mysql.change(lambda cursor: write(cursor, "c@d", pair[0]), lambda cursor: None))
    with pytest.raises(StorageUnavailable):
        await task
    assert await email_of(mysql, pair[0]) == "c@d"


async def test_looking_up_waits_for_the_database(
    make_relay: MakeRelay, make_mysql: MakeMySQL, pair: tuple[int, int]
) -> None:
    """A lookup of an unknown outcome goes on during a restart, while no connection is possible."""
    relay = make_relay()
    mysql = make_mysql(relay.url)

    def done(cursor: Cursor) -> bool | None:
        return cursor.execute("SELECT 1 FROM `user` WHERE id = %s AND email = 'a@b' FOR UPDATE", (pair[0],)) > 0 or None

    def work(cursor: Cursor) -> bool:
        write(cursor, "a@b", pair[0])
        relay.lose = b"COMMIT"
        return True

    task = asyncio.create_task(mysql.change(work, done))
    await until(lambda: relay.lost)
    relay.away = True
    await asyncio.wait([task], timeout=0.5)
    relay.away = False
    assert await task


async def test_a_change_that_is_given_up_is_not_committed(make_mysql: MakeMySQL, pair: tuple[int, int]) -> None:
    """A change that was too slow is not committed later, since its caller was told that nothing changed."""
    mysql, answer = make_mysql(timeout=0.5, threads=1), threading.Event()

    def work(cursor: Cursor) -> None:
        write(cursor, "a@b", pair[0])
        answer.wait(PATIENCE)

    with pytest.raises(StorageUnavailable, match="no answer in time"):
        await mysql.change(work, lambda cursor: None)
    answer.set()
    assert await email_of(mysql, pair[0]) is None  # the same thread does this after the change


# The state of new connections


@pytest.mark.parametrize("zone", ["+08:00", "-03:30"])
async def test_every_connection_is_in_utc_and_strict(
    zone: str, make_mysql: MakeMySQL, set_zone: SetZone, database: pymysql.Connection
) -> None:
    """Each connection uses UTC and strict mode, whatever the server's settings are, also after one was lost."""
    set_zone(zone)
    mysql = make_mysql(threads=1)

    def work(cursor: Cursor) -> tuple[object, ...]:
        cursor.execute("SELECT @@time_zone, @@sql_mode LIKE '%STRICT_ALL_TABLES%', NOW() = UTC_TIMESTAMP()")
        return cursor.fetchone()

    assert await mysql.run(work) == ("+00:00", 1, 1)
    with database.cursor() as cursor:
        cursor.execute("KILL %s", (await connection_id(mysql),))
    assert await mysql.run(work) == ("+00:00", 1, 1)


# Logging


async def test_an_outage_is_logged_once_and_so_is_its_end(make_relay: MakeRelay, make_mysql: MakeMySQL) -> None:
    """An outage is logged once with its cause, and its end once, however many calls there are."""
    relay = make_relay()
    mysql = make_mysql(relay.url)
    await mysql.ping()
    with capture_logs() as logs:
        relay.away = True
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await mysql.ping()
        with pytest.raises(StorageUnavailable):
            await mysql.change(lambda cursor: None)
        relay.away = False
        for _ in range(3):
            await mysql.ping()
    assert [(line["event"], line["database"]) for line in logs] == [
        ("outage_began", "mysql"),
        ("outage_ended", "mysql"),
    ]
    assert "Lost connection" in logs[0]["reason"]


LASTING = {
    "a right that is missing": ("1142", "INSERT INTO `user` (user_name) VALUES ('x')"),
    "a column without default": ("1364", "INSERT INTO needy (a) VALUES (1)"),
    "a value out of range": ("1264", "INSERT INTO needy (a, b) VALUES (1, 4294967296)"),
}


@pytest.mark.parametrize(("code", "statement"), LASTING.values(), ids=LASTING)
async def test_a_permanent_error_is_logged(
    code: str, statement: str, make_mysql: MakeMySQL, make_fresh: MakeFresh
) -> None:
    """A permanent error is logged with its cause, is not an outage, and is not repeated."""
    fresh = make_fresh()
    cursor = fresh.cursor
    cursor.execute("CREATE TABLE needy (a int, b int unsigned NOT NULL)")
    cursor.execute("CREATE TABLE `user` (user_name varchar(9))")
    cursor.execute("CREATE OR REPLACE USER 'reader'@'localhost' IDENTIFIED BY 'x'")
    cursor.execute(f"GRANT SELECT ON {fresh.name}.* TO 'reader'@'localhost'")
    cursor.execute(f"GRANT INSERT ON {fresh.name}.needy TO 'reader'@'localhost'")
    mysql = make_mysql(fresh.url.replace("//root@", "//reader:x@"))
    tried = 0

    def work(cursor: Cursor) -> None:
        nonlocal tried
        tried += 1
        cursor.execute(statement)

    with capture_logs() as logs:
        for ask in (mysql.run, mysql.change):
            with pytest.raises(DatabaseRefused) as caught:
                await ask(work)
            assert caught.value.kind == code
    assert tried == 2
    assert [(line["event"], line["log_level"]) for line in logs] == [("database_refused", "error")]
    assert code in logs[0]["reason"]
