"""Users in MySQL: lookups, registration, what is remembered and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import bcrypt
import pymysql
import pytest
from tornado.ioloop import IOLoop

from models.errors import EngineUnavailable, NameTaken
from storage.engines import Addresses
from storage.users import MySQLUsers

Make = Callable[..., MySQLUsers]


@pytest.fixture
def make(io_loop: IOLoop, addresses: Addresses, database: pymysql.Connection) -> Iterator[Make]:
    """Makes a user store."""
    opened: list[MySQLUsers] = []

    def make_users(
        url: str = addresses.mysql, cache_ttl: float = 60, cache_size: int = 100, waiting: int = 100
    ) -> MySQLUsers:
        users = MySQLUsers(
            url, timeout=2, threads=2, password_threads=1, waiting=waiting, cache_size=cache_size, cache_ttl=cache_ttl
        )
        opened.append(users)
        return users

    yield make_users
    for users in opened:
        io_loop.run_sync(users.close)


def set_user(database: pymysql.Connection, user: int, assignment: str) -> None:
    with database.cursor() as cursor:
        assert cursor.execute(f"UPDATE `user` SET {assignment} WHERE id = %s", (user,)) == 1


async def test_active_users_are_found(make: Make, pair: tuple[int, int]) -> None:
    """Those that exist, and nobody else."""
    found = await make().active(*pair, 4_000_000_000)
    assert set(pair) == set(found)
    assert found[pair[0]].status == "active"


@pytest.mark.parametrize("assignment", ["deleted_at = NOW()", "status = 'banned'", "status = NULL", "status = ''"])
async def test_inactive_is_nobody(
    make: Make, database: pymysql.Connection, pair: tuple[int, int], assignment: str
) -> None:
    """A row that was deleted or deactivated."""
    set_user(database, pair[0], assignment)
    assert {pair[1]} == set(await make().active(*pair))


async def test_a_lookup_is_remembered_and_forgotten(
    make: Make, database: pymysql.Connection, pair: tuple[int, int]
) -> None:
    """For as long as it was told to, and not at all with no room."""
    remembering, forgetting = make(), make(cache_size=0)
    for users in (remembering, forgetting):
        assert len(await users.active(*pair)) == 2
    set_user(database, pair[0], "status = 'banned'")
    assert len(await remembering.active(*pair)) == 2
    assert len(await forgetting.active(*pair)) == 1


async def test_who_is_unknown_is_not_remembered(make: Make, people: Callable[[int], list[int]]) -> None:
    """Somebody who has just registered is found at once."""
    users = make()
    (one,) = people(1)
    assert not await users.active(one + 1)
    assert people(1) == [one + 1]
    assert await users.active(one + 1)


async def test_registration(make: Make, database: pymysql.Connection) -> None:
    """A bcrypt digest of cost 12, an active row, and the user as it stands there."""
    user = await make().register("register1", "昵称", "pässword1".encode())
    with database.cursor() as cursor:
        cursor.execute("SELECT password_digest, status, nick_name FROM `user` WHERE id = %s", (user.id,))
        digest, status, nick_name = cursor.fetchone()
    assert digest.startswith("$2b$12$")
    assert bcrypt.checkpw("pässword1".encode(), digest.encode())
    assert (status, nick_name, user.user_name) == ("active", "昵称", "register1")
    assert user.created_at > 0


async def test_two_registrations_of_one_name(make: Make) -> None:
    """At the same moment: one wins. In other letter case it is the same name."""
    users = make()
    outcomes = await asyncio.gather(
        *(users.register(name, "nick", b"password") for name in ("same-name", "same-name", "SAME-NAME")),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NameTaken", "NameTaken", "User"]
    with pytest.raises(NameTaken):
        await users.register("same-name", "nick", b"password")


async def test_names_are_data(make: Make, database: pymysql.Connection) -> None:
    """What looks like SQL is a name."""
    user = await make().register("'; DROP--", "$ne", b"password")
    assert (await make().active(user.id))[user.id].user_name == "'; DROP--"


async def test_lookups_travel_together(
    make: Make, people: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm of connections is few queries."""
    users, ids = make(), people(50)
    batches = []
    fetch = users._look_up._commit

    async def counting(batch: list[int]) -> object:
        batches.append(len(batch))
        return await fetch(batch)

    monkeypatch.setattr(users._look_up, "_commit", counting)
    found = await asyncio.gather(*(users.active(user) for user in ids))
    assert all(len(one) == 1 for one in found)
    assert len(batches) < 10


async def test_waiting_is_bounded(make: Make, people: Callable[[int], list[int]]) -> None:
    """More than `waiting` lookups at once are refused, not queued."""
    users, ids = make(waiting=2), people(20)
    outcomes = await asyncio.gather(*(users.active(user) for user in ids), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, EngineUnavailable)]
    assert len(refused) == 18


async def test_mysql_away(make: Make) -> None:
    """An error within the timeout, for every call."""
    users = make("mysql://root@127.0.0.1:9/tandem")
    for call in (users.ping, lambda: users.active(1), lambda: users.register("nobody", "nobody", b"password")):
        with pytest.raises(EngineUnavailable):
            await call()


async def test_connections_that_died_are_replaced(
    make: Make, database: pymysql.Connection, pair: tuple[int, int]
) -> None:
    """A restart of MySQL costs nobody a lookup."""
    users = make(cache_size=0)
    await users.active(*pair)
    with database.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()")
        for (number,) in cursor.fetchall():
            cursor.execute("KILL %s", (number,))
    assert len(await users.active(*pair)) == 2


async def test_work_stays_off_the_event_loop(make: Make) -> None:
    """PyMySQL blocks; it does so in threads of its own."""
    names = []
    await make()._run(lambda cursor: names.append(threading.current_thread().name))
    assert names[0].startswith("mysql")


@pytest.mark.parametrize("url", ["", "postgres://x/y", "mysql://host", "mysql://host/"])
def test_a_url_that_is_none(url: str) -> None:
    """Says what is expected."""
    with pytest.raises(ValueError, match="mysql://user:password@host"):
        MySQLUsers(url, timeout=1, threads=1, password_threads=1, waiting=1, cache_size=1, cache_ttl=1)
