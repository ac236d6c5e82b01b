"""Tests of users in MySQL: lookups, the cache, and changes of a profile."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pymysql
import pytest

from models.errors import InvalidRequest, StorageUnavailable
from models.records import Profile
from storage.embedded.supervisor import Addresses
from storage.mysql import users as module
from storage.mysql.executor import MySQL
from storage.mysql.users import MySQLUsers
from tests.storage.conftest import UNAVAILABLE, MakeFresh, MakeMySQL, SetUser, SetZone
from tests.storage.mysql.test_schema import GIN_CHAT_DEMO

Pair = tuple[int, int]
People = Callable[[int], list[int]]

INACTIVE = ["deleted_at = NOW()", "status = 'banned'", "status = NULL", "status = ''"]


async def test_active_users_are_found(users: MySQLUsers, pair: Pair) -> None:
    """Lookups find the users that exist, and no others."""
    found = await users.active(*pair, 4_000_000_000)
    assert set(pair) == set(found)
    assert found[pair[0]].status == "active"


@pytest.mark.parametrize("assignment", INACTIVE)
async def test_inactive_users_are_not_found(users: MySQLUsers, set_user: SetUser, pair: Pair, assignment: str) -> None:
    """A deleted or deactivated user is not found, by id or by name."""
    set_user(pair[0], f"user_name = '{secrets.token_hex(6)}'")
    name = (await users.active(pair[0]))[pair[0]].user_name
    users.forget(pair[0])
    set_user(pair[0], assignment)
    assert {pair[1]} == set(await users.active(*pair))
    assert {pair[1]} == set(await users.active_now(pair))
    assert await users.named(name) is None


async def test_columns_that_are_null(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """Columns that are NULL are empty texts, and time 0."""
    set_user(pair[0], "user_name = NULL, nick_name = NULL, email = NULL, avatar = NULL, created_at = NULL")
    user = (await users.active(pair[0]))[pair[0]]
    assert (user.user_name, user.nick_name, user.email, user.avatar, user.created_at) == ("", "", "", "", 0)


async def test_a_lookup_is_cached(mysql: MySQL, users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """A lookup is cached for its time to live, and not at all if the cache has no capacity."""
    forgetting = MySQLUsers(mysql, cache_size=0, cache_ttl=60)
    for store in (users, forgetting):
        assert len(await store.active(*pair)) == 2
    set_user(pair[0], "status = 'banned'")
    assert len(await users.active(*pair)) == 2
    assert len(await forgetting.active(*pair)) == 1


async def test_active_now_updates_the_cache(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """`active_now` updates the cache for users who have changed or were deleted."""
    await users.active(*pair)
    set_user(pair[0], "status = 'banned'")
    set_user(pair[1], "nick_name = 'new'")
    assert {pair[1]} == set(await users.active_now(pair))
    found = await users.active(*pair)
    assert {pair[1]: "new"} == {user.id: user.nick_name for user in found.values()}


async def test_forget(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """`forget` drops a user from the cache, and does nothing for a user that is not in it."""
    await users.active(*pair)
    set_user(pair[0], "status = 'banned'")
    for _ in range(2):
        users.forget(pair[0])
    assert {pair[1]} == set(await users.active(*pair))


async def test_unknown_users_are_not_cached(users: MySQLUsers, people: People) -> None:
    """An unknown user is not cached, so a user who has just registered is found at once."""
    (one,) = people(1)
    assert not await users.active(one + 1)
    assert people(1) == [one + 1]
    assert await users.active(one + 1)


async def test_lookups_share_queries(users: MySQLUsers, people: People, database: pymysql.Connection) -> None:
    """Concurrent lookups share a few queries."""
    ids = people(50)

    def selects() -> int:
        with database.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
            ((_, count),) = cursor.fetchall()
            return int(count)

    before = selects()
    found = await asyncio.gather(*(users.active(user) for user in ids))
    assert all(len(one) == 1 for one in found)
    assert 0 < selects() - before < 10


async def test_many_are_looked_up_in_parts(users: MySQLUsers, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of users, also none, can be looked up."""
    monkeypatch.setattr(module, "BATCH", 3)
    ids = people(7)
    assert set(ids) == set(await users.active_now(ids))
    assert await users.active_now([]) == {}


async def test_waiting_is_bounded(make_mysql: MakeMySQL, people: People) -> None:
    """More than `waiting` lookups at once are refused, not queued."""
    users, ids = MySQLUsers(make_mysql(waiting=2), cache_size=100, cache_ttl=60), people(20)
    outcomes = await asyncio.gather(*(users.active(user) for user in ids), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, StorageUnavailable)]
    assert len(refused) == 18


async def test_a_user_by_name(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """A user is found by name in any letter case, and a name that looks like SQL is only a name."""
    name = f"'; DROP--{pair[0]}"
    set_user(pair[0], f"user_name = '''; DROP--{pair[0]}'")
    for spelling in (name, name.lower()):
        assert (await users.named(spelling)).id == pair[0]
    assert await users.named("%") is None


async def test_a_profile_is_changed(users: MySQLUsers, pair: Pair) -> None:
    """The given fields of a profile are changed at once."""
    await users.active(*pair)
    await users.change(pair[0], Profile(nick_name="昵称", email="a@b"))
    changed = await users.change(pair[0], Profile(avatar="https://x/'y", email=""))
    assert (changed.nick_name, changed.email, changed.avatar) == ("昵称", "", "https://x/'y")
    assert changed == await users.change(pair[0], Profile())
    assert changed == (await users.active(pair[0]))[pair[0]]
    assert (await users.active_now([pair[1]]))[pair[1]].nick_name == ""


async def test_a_profile_that_does_not_exist(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """The profile of a deleted user, or of one that never existed, is not changed."""
    set_user(pair[0], "deleted_at = NOW(), nick_name = 'before'")
    assert await users.change(pair[0], Profile(nick_name="after")) is None
    set_user(pair[0], "deleted_at = NULL")
    assert (await users.active(pair[0]))[pair[0]].nick_name == "before"
    assert await users.change(4_000_000_000, Profile(nick_name="after")) is None


@pytest.fixture
def empty(addresses: Addresses, database: pymysql.Connection) -> Iterator[str]:
    """The URL of a database without tables."""
    with database.cursor() as cursor:
        cursor.execute("CREATE DATABASE no_users")
        yield addresses.mysql.replace("/tandem?", "/no_users?")
        cursor.execute("DROP DATABASE no_users")


async def test_an_empty_database_is_prepared(make_mysql: MakeMySQL, empty: str) -> None:
    """An empty database gets the tables, with the article's users on request, and a second run changes nothing."""
    users = MySQLUsers(make_mysql(empty), cache_size=0, cache_ttl=1)
    await users.prepare(with_article_users=False)
    assert not await users.active(1, 2)
    for _ in range(2):
        await users.prepare(with_article_users=True)
        assert {1, 2} == set(await users.active(1, 2, 3))


async def test_the_first_users(make_mysql: MakeMySQL, empty: str, database: pymysql.Connection) -> None:
    """`first` returns at most `count` active users by id, as the table has them now."""
    users = MySQLUsers(make_mysql(empty), cache_size=100, cache_ttl=60)
    await users.prepare(with_article_users=False)
    assert await users.first(3) == []
    await users.prepare(with_article_users=True)
    with database.cursor() as cursor:
        cursor.execute("INSERT INTO no_users.user (id, user_name, status) VALUES (9, 'nine', 'active')")
        cursor.execute("INSERT INTO no_users.user (id, user_name, status) VALUES (5, 'five', 'active')")
        assert [user.id for user in await users.first(3)] == [1, 2, 5]
        assert [user.id for user in await users.first(1_000)] == [1, 2, 5, 9]
        await users.active(1, 2, 5, 9)
        for assignment in INACTIVE:
            cursor.execute(f"UPDATE no_users.user SET {assignment} WHERE id = 2")
            assert [user.user_name for user in await users.first(3)] == ["user1", "five", "nine"]
            cursor.execute("UPDATE no_users.user SET status = 'active', deleted_at = NULL WHERE id = 2")


# Times

NEW_YEAR = 1_767_225_600  # 2026-01-01 00:00:00 UTC
DAYLIGHT = "Test/Daylight"  # an hour later from 2026-03-29 01:00 UTC on, an hour earlier from 2026-10-25 01:00 UTC on
# In that zone there is no 02:30 on the first of these days, and there are two on the other.
SKIPPED, DOUBLED = 1_774_751_400, 1_792_895_400


@pytest.fixture
def daylight(database: pymysql.Connection) -> Iterator[None]:
    """A time zone with two changes in a year."""
    with database.cursor() as cursor:
        cursor.execute("INSERT INTO mysql.time_zone (Use_leap_seconds) VALUES ('N')")
        number = cursor.lastrowid
        cursor.execute("INSERT INTO mysql.time_zone_name VALUES (%s, %s)", (DAYLIGHT, number))
        cursor.executemany(
            "INSERT INTO mysql.time_zone_transition_type VALUES (%s, %s, %s, %s, %s)",
            [(number, 0, 3600, 0, "CET"), (number, 1, 7200, 1, "CEST")],
        )
        cursor.executemany(
            "INSERT INTO mysql.time_zone_transition VALUES (%s, %s, %s)",
            [(number, 0, 0), (number, 1_774_746_000, 1), (number, 1_792_890_000, 0)],
        )
        yield
        for table in ("", "_name", "_transition", "_transition_type"):
            cursor.execute(f"DELETE FROM mysql.time_zone{table} WHERE Time_zone_id = %s", (number,))


@pytest.mark.parametrize("zone", ["SYSTEM", "+08:00", "-03:30", DAYLIGHT])
@pytest.mark.parametrize("moment", [NEW_YEAR, SKIPPED, DOUBLED])
async def test_when_an_account_was_made(
    zone: str, moment: int, daylight: None, make_fresh: MakeFresh, make_mysql: MakeMySQL, set_zone: SetZone
) -> None:
    """The time when an account was made is right for DATETIME in UTC and for TIMESTAMP, in any zone of the server."""
    fresh = make_fresh()
    for kind in ("datetime", "timestamp"):
        users = MySQLUsers(make_mysql(fresh.url), cache_size=0, cache_ttl=1)
        fresh.cursor.execute("DROP TABLE IF EXISTS `user`")
        await users.prepare(with_article_users=False)
        fresh.cursor.execute(f"ALTER TABLE `user` MODIFY created_at {kind} NULL")
        fresh.cursor.execute("SET time_zone = '+00:00'")  # so that both types read a text as UTC
        written = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
        fresh.cursor.execute(
            "INSERT INTO `user` (id, user_name, status, created_at) VALUES (7, 'seven', 'active', %s)", (written,)
        )
        set_zone(zone)
        there = MySQLUsers(make_mysql(fresh.url), cache_size=0, cache_ttl=1)
        assert (await there.active_now([7]))[7].created_at == moment
        assert (await there.named("seven")).created_at == moment
        set_zone("SYSTEM")


@pytest.mark.parametrize("zone", ["+08:00", DAYLIGHT])
async def test_when_something_is_done_now(
    zone: str, daylight: None, make_fresh: MakeFresh, make_mysql: MakeMySQL, set_zone: SetZone
) -> None:
    """Times of changes are written in UTC, as gin-chat-demo reads them."""
    fresh = make_fresh()
    set_zone(zone)
    users = MySQLUsers(make_mysql(fresh.url), cache_size=0, cache_ttl=1)
    await users.prepare(with_article_users=True)
    await users.change(1, Profile(email="a@b"))
    fresh.cursor.execute(
        "SELECT MAX(ABS(TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP()))) < 600, "
        "MAX(ABS(TIMESTAMPDIFF(SECOND, updated_at, UTC_TIMESTAMP()))) < 600 FROM `user`"
    )
    assert fresh.cursor.fetchone() == (1, 1)


# Tables that cannot store all texts


@pytest.mark.parametrize("charset", ["utf8mb3", "latin1"])
async def test_a_table_in_another_character_set(charset: str, make_fresh: MakeFresh, make_mysql: MakeMySQL) -> None:
    """Nick names may have all characters; for other fields that cannot be stored the error names the field."""
    fresh = make_fresh(charset)
    fresh.cursor.execute(GIN_CHAT_DEMO.replace("utf8mb4", charset))
    users = MySQLUsers(make_mysql(fresh.url), cache_size=0, cache_ttl=1)
    await users.prepare(with_article_users=True)
    assert (await users.change(1, Profile(nick_name="狐狸🦊"))).nick_name == "狐狸🦊"
    with pytest.raises(InvalidRequest, match=r"^email: holds a character"):
        await users.change(1, Profile(email="🦊@example.org", nick_name="another"))
    assert (await users.active_now([1]))[1].nick_name == "狐狸🦊"
    for name in ("🦊🦊🦊🦊🦊", "user🦊", "北京", "user1\U0001f98a"):
        assert await users.named(name) is None
    assert (await users.named("USER1")).id == 1
    fresh.cursor.execute("UPDATE `user` SET nick_name = 'x'")
    fresh.cursor.execute("ALTER TABLE `user` MODIFY nick_name varchar(5)")
    with pytest.raises(InvalidRequest, match=r"^nick_name: holds a character"):
        await users.change(1, Profile(nick_name="狐狸🦊"))
    with pytest.raises(InvalidRequest, match=r"^nick_name: is longer"):
        await users.change(1, Profile(nick_name="foxfox"))


async def test_a_table_that_asks_for_more(make_fresh: MakeFresh, make_mysql: MakeMySQL) -> None:
    """A value that has to be unique in the table is reported as used by another account."""
    fresh = make_fresh()
    users = MySQLUsers(make_mysql(fresh.url), cache_size=0, cache_ttl=1)
    await users.prepare(with_article_users=True)
    fresh.cursor.execute("ALTER TABLE `user` ADD UNIQUE INDEX emails (email)")
    await users.change(1, Profile(email="a@b"))
    with pytest.raises(InvalidRequest, match=r"^email: is used by another account"):
        await users.change(2, Profile(email="A@B"))


async def test_mysql_away(make_mysql: MakeMySQL) -> None:
    """Every call raises StorageUnavailable while MySQL is unavailable."""
    users = MySQLUsers(make_mysql(UNAVAILABLE.mysql), cache_size=1, cache_ttl=1)
    for call in (
        users.active(1),
        users.active_now([1]),
        users.named("nobody"),
        users.first(1),
        users.change(1, Profile(email="")),
        users.prepare(with_article_users=False),
    ):
        with pytest.raises(StorageUnavailable):
            await call
