"""Users in MySQL: lookups, what is remembered and for how long, changes of a profile."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator

import pymysql
import pytest

from models.errors import EngineUnavailable
from models.records import Profile
from storage import users as module
from storage.engines import Addresses
from storage.mysql import MySQL
from storage.users import MySQLUsers
from tests.storage.conftest import NOBODY, MakeMySQL, SetUser

Pair = tuple[int, int]
People = Callable[[int], list[int]]

INACTIVE = ["deleted_at = NOW()", "status = 'banned'", "status = NULL", "status = ''"]


async def test_active_users_are_found(users: MySQLUsers, pair: Pair) -> None:
    """Those that exist, and nobody else."""
    found = await users.active(*pair, 4_000_000_000)
    assert set(pair) == set(found)
    assert found[pair[0]].status == "active"


@pytest.mark.parametrize("assignment", INACTIVE)
async def test_inactive_is_nobody(users: MySQLUsers, set_user: SetUser, pair: Pair, assignment: str) -> None:
    """A row that was deleted or deactivated, by id and by name."""
    set_user(pair[0], f"user_name = '{secrets.token_hex(6)}'")
    name = (await users.active(pair[0]))[pair[0]].user_name
    users.forget(pair[0])
    set_user(pair[0], assignment)
    assert {pair[1]} == set(await users.active(*pair))
    assert {pair[1]} == set(await users.active_now(pair))
    assert await users.named(name) is None


async def test_columns_that_are_null(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """Are empty texts, and the beginning of time."""
    set_user(pair[0], "user_name = NULL, nick_name = NULL, email = NULL, avatar = NULL, created_at = NULL")
    user = (await users.active(pair[0]))[pair[0]]
    assert (user.user_name, user.nick_name, user.email, user.avatar, user.created_at) == ("", "", "", "", 0)


async def test_a_lookup_is_remembered_and_forgotten(
    mysql: MySQL, users: MySQLUsers, set_user: SetUser, pair: Pair
) -> None:
    """For as long as it was told to, and not at all with no room."""
    forgetting = MySQLUsers(mysql, cache_size=0, cache_ttl=60)
    for store in (users, forgetting):
        assert len(await store.active(*pair)) == 2
    set_user(pair[0], "status = 'banned'")
    assert len(await users.active(*pair)) == 2
    assert len(await forgetting.active(*pair)) == 1


async def test_a_look_at_the_table_corrects_what_is_remembered(
    users: MySQLUsers, set_user: SetUser, pair: Pair
) -> None:
    """Of somebody who has gone, and of somebody who has changed."""
    await users.active(*pair)
    set_user(pair[0], "status = 'banned'")
    set_user(pair[1], "nick_name = 'new'")
    assert {pair[1]} == set(await users.active_now(pair))
    found = await users.active(*pair)
    assert {pair[1]: "new"} == {user.id: user.nick_name for user in found.values()}


async def test_what_is_no_longer_true_can_be_forgotten(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """Somebody who was not remembered can be forgotten as well."""
    await users.active(*pair)
    set_user(pair[0], "status = 'banned'")
    for _ in range(2):
        users.forget(pair[0])
    assert {pair[1]} == set(await users.active(*pair))


async def test_who_is_unknown_is_not_remembered(users: MySQLUsers, people: People) -> None:
    """Somebody who has just registered is found at once."""
    (one,) = people(1)
    assert not await users.active(one + 1)
    assert people(1) == [one + 1]
    assert await users.active(one + 1)


async def test_lookups_travel_together(users: MySQLUsers, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of connections is few queries."""
    ids, batches = people(50), []
    fetch = users._look_up._commit

    async def counting(batch: list[int]) -> object:
        batches.append(len(batch))
        return await fetch(batch)

    monkeypatch.setattr(users._look_up, "_commit", counting)
    found = await asyncio.gather(*(users.active(user) for user in ids))
    assert all(len(one) == 1 for one in found)
    assert len(batches) < 10


async def test_many_are_looked_up_in_parts(users: MySQLUsers, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and if there are none."""
    monkeypatch.setattr(module, "BATCH", 3)
    ids = people(7)
    assert set(ids) == set(await users.active_now(ids))
    assert await users.active_now([]) == {}


async def test_waiting_is_bounded(make_mysql: MakeMySQL, people: People) -> None:
    """More than `waiting` lookups at once are refused, not queued."""
    users, ids = MySQLUsers(make_mysql(waiting=2), cache_size=100, cache_ttl=60), people(20)
    outcomes = await asyncio.gather(*(users.active(user) for user in ids), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, EngineUnavailable)]
    assert len(refused) == 18


async def test_somebody_of_a_name(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """In any letter case; what looks like SQL is a name."""
    name = f"'; DROP--{pair[0]}"
    set_user(pair[0], f"user_name = '''; DROP--{pair[0]}'")
    for spelling in (name, name.lower()):
        assert (await users.named(spelling)).id == pair[0]
    assert await users.named("%") is None


async def test_a_profile_is_changed(users: MySQLUsers, pair: Pair) -> None:
    """What is given of it, at once."""
    await users.active(*pair)
    await users.change(pair[0], Profile(nick_name="昵称", email="a@b"))
    changed = await users.change(pair[0], Profile(avatar="https://x/'y", email=""))
    assert (changed.nick_name, changed.email, changed.avatar) == ("昵称", "", "https://x/'y")
    assert changed == await users.change(pair[0], Profile())
    assert changed == (await users.active(pair[0]))[pair[0]]
    assert (await users.active_now([pair[1]]))[pair[1]].nick_name == ""


async def test_a_profile_of_nobody(users: MySQLUsers, set_user: SetUser, pair: Pair) -> None:
    """Neither one that never was nor a deleted one is changed."""
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
    """The article's users are there if they are wanted; a second time changes nothing."""
    users = MySQLUsers(make_mysql(empty), cache_size=0, cache_ttl=1)
    await users.prepare(with_article_users=False)
    assert not await users.active(1, 2)
    for _ in range(2):
        await users.prepare(with_article_users=True)
        assert {1, 2} == set(await users.active(1, 2, 3))


async def test_the_first_users(make_mysql: MakeMySQL, empty: str, database: pymysql.Connection) -> None:
    """By id, no more than asked for, as the table has them now; nobody who is gone is among them."""
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


async def test_mysql_away(make_mysql: MakeMySQL) -> None:
    """An error for every call."""
    users = MySQLUsers(make_mysql(NOBODY.mysql), cache_size=1, cache_ttl=1)
    for call in (
        users.active(1),
        users.active_now([1]),
        users.named("nobody"),
        users.first(1),
        users.change(1, Profile(email="")),
        users.prepare(with_article_users=False),
    ):
        with pytest.raises(EngineUnavailable):
            await call
