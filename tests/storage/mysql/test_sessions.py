"""Tests of ended tokens in MySQL: single ones, all of a user's, and the cache."""

from __future__ import annotations

import asyncio
import secrets
import time

import pymysql
import pytest

from models.errors import StorageUnavailable
from models.records import Identity, User
from storage.mysql import sessions as module
from storage.mysql.executor import MySQL
from storage.mysql.sessions import SPARE, SWEPT, MySQLSessions
from storage.mysql.users import MySQLUsers
from tests.storage.conftest import UNAVAILABLE, MakeMySQL, SetUser
from tests.support.clocks import Clock

Pair = tuple[int, int]


def token(user: int, lifetime: float = 3600) -> Identity:
    """Return the identity of a user's verified token."""
    return Identity(user, secrets.token_bytes(16), "version", time.time(), time.time() + lifetime)


@pytest.fixture
def sessions(mysql: MySQL, users: MySQLUsers, clock: Clock) -> MySQLSessions:
    """The ended tokens, with a cache that outlives the test."""
    return MySQLSessions(mysql, users, clock=clock, cache_size=100, cache_ttl=60)


@pytest.fixture
def forgetting(mysql: MySQL, users: MySQLUsers, clock: Clock) -> MySQLSessions:
    """The ended tokens in another process, without a cache."""
    return MySQLSessions(mysql, users, clock=clock, cache_size=0, cache_ttl=60)


async def present(users: MySQLUsers, user: int) -> User:
    """Return a user as the table has it now."""
    return (await users.active_now([user]))[user]


async def test_one_token_is_ended(sessions: MySQLSessions, forgetting: MySQLSessions, pair: Pair) -> None:
    """Signing out ends one token in every process, and no other token of the user."""
    ended, other = token(pair[0]), token(pair[0])
    await sessions.sign_out(ended)
    for store in (sessions, forgetting):
        assert await store.signed_out(ended.session)
        assert not await store.signed_out(other.session)
        assert {ended.session} == await store.signed_out_now([ended.session, other.session])


async def test_a_token_can_be_ended_twice(sessions: MySQLSessions, pair: Pair) -> None:
    """Two concurrent requests can end the same token."""
    ended = token(pair[0])
    await asyncio.gather(*(sessions.sign_out(ended) for _ in range(5)))
    assert await sessions.signed_out(ended.session)


async def test_ended_here_is_ended_at_once(sessions: MySQLSessions, pair: Pair) -> None:
    """A token that this process ends is invalid at once, whatever the cache has."""
    ended = token(pair[0])
    assert not await sessions.signed_out(ended.session)
    await sessions.sign_out(ended)
    assert await sessions.signed_out(ended.session)


async def test_ended_elsewhere_is_learnt(sessions: MySQLSessions, forgetting: MySQLSessions, pair: Pair) -> None:
    """A token that another process ends is invalid once the cache entry has expired or the table was read."""
    ended = token(pair[0])
    assert not await sessions.signed_out(ended.session)
    await forgetting.sign_out(ended)
    assert not await sessions.signed_out(ended.session)
    assert await forgetting.signed_out(ended.session)
    assert {ended.session} == await sessions.signed_out_now([ended.session])
    assert await sessions.signed_out(ended.session)


async def test_many_are_looked_up_in_parts(
    sessions: MySQLSessions, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of tokens, also none, can be looked up."""
    monkeypatch.setattr(module, "BATCH", 3)
    tokens = [token(pair[0]) for _ in range(7)]
    for each in tokens[::3]:
        await sessions.sign_out(each)
    assert {each.session for each in tokens[::3]} == await sessions.signed_out_now([each.session for each in tokens])
    assert await sessions.signed_out_now([]) == set()


async def test_old_rows_go(
    sessions: MySQLSessions, forgetting: MySQLSessions, database: pymysql.Connection, pair: Pair
) -> None:
    """Each sign-out deletes some rows of tokens that expired longer ago than clocks differ."""
    old = [token(pair[0], -SPARE - 60) for _ in range(SWEPT + 20)]
    recent = token(pair[0], 60 - SPARE)
    with database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO `tandem_signed_out` (session, user_id, expires) VALUES (%s, %s, %s)",
            [(each.session, each.user, int(each.expires)) for each in (*old, recent)],
        )
    ended = [token(pair[1]) for _ in range(2)]
    for each, left in zip(ended, (20, 0), strict=True):
        await sessions.sign_out(each)
        assert len(await forgetting.signed_out_now([each.session for each in old])) == left
    assert len(await forgetting.signed_out_now([each.session for each in (*ended, recent)])) == 3


async def test_a_token_is_ended_for_all_of_its_time(
    sessions: MySQLSessions, forgetting: MySQLSessions, clock: Clock, pair: Pair
) -> None:
    """An ended token stays invalid up to its last second."""
    ended = token(pair[0])
    await sessions.sign_out(ended)
    clock.offset = 3600 + SPARE / 2
    await sessions.sign_out(token(pair[1], 7200))
    assert await forgetting.signed_out(ended.session)


async def test_all_tokens_are_ended(sessions: MySQLSessions, users: MySQLUsers, pair: Pair) -> None:
    """Ending all tokens changes the user's version every time, and no other user's."""
    versions = [(await users.active(pair[0]))[pair[0]].token_version]
    for _ in range(3):
        await sessions.sign_out_everywhere(pair[0])
        versions.append((await users.active(pair[0]))[pair[0]].token_version)
    assert len(set(versions)) == 4
    assert (await present(users, pair[1])).tokens_since == 0


async def test_tokens_without_a_version_are_ended(
    sessions: MySQLSessions, users: MySQLUsers, clock: Clock, pair: Pair
) -> None:
    """Tokens without a version are ended if they were issued until now, even by a clock that went back since."""
    before = clock()
    await sessions.sign_out_everywhere(pair[0])
    since = (await present(users, pair[0])).tokens_since
    assert before <= since <= clock() + 1
    clock.offset = -1000
    await sessions.sign_out_everywhere(pair[0])
    assert (await present(users, pair[0])).tokens_since == since
    clock.offset = 1000
    await sessions.sign_out_everywhere(pair[0])
    assert (await present(users, pair[0])).tokens_since >= since + 999


async def test_many_end_all_tokens_at_once(sessions: MySQLSessions, database: pymysql.Connection, pair: Pair) -> None:
    """Concurrent calls that end all tokens are all counted."""
    await asyncio.gather(*(sessions.sign_out_everywhere(pair[0]) for _ in range(10)))
    with database.cursor() as cursor:
        cursor.execute("SELECT generation FROM `tandem_account` WHERE user_id = %s", (pair[0],))
        assert cursor.fetchone() == (10,)


@pytest.mark.parametrize("digest", ["'$2a$12$other'", "''", "NULL", "'!'"])
async def test_another_program_changes_a_password(
    users: MySQLUsers, set_user: SetUser, pair: Pair, digest: str
) -> None:
    """A password that another program changes ends the user's tokens, and other changes do not."""
    set_user(pair[0], "password_digest = '$2a$12$one'")
    before = await present(users, pair[0])
    set_user(pair[0], "email = 'a@b', updated_at = '2020-01-01', nick_name = 'x'")
    assert (await present(users, pair[0])).token_version == before.token_version
    set_user(pair[0], f"password_digest = {digest}")
    assert (await present(users, pair[0])).token_version != before.token_version


async def test_versions_differ(users: MySQLUsers, sessions: MySQLSessions, set_user: SetUser, pair: Pair) -> None:
    """Setting an earlier password again does not make that time's tokens valid."""
    set_user(pair[0], "password_digest = 'one'")
    before = await present(users, pair[0])
    await sessions.sign_out_everywhere(pair[0])
    set_user(pair[0], "password_digest = 'two'")
    set_user(pair[0], "password_digest = 'one'")
    assert (await present(users, pair[0])).token_version != before.token_version


async def test_mysql_away(make_mysql: MakeMySQL, users: MySQLUsers, clock: Clock) -> None:
    """Every call raises StorageUnavailable while MySQL is unavailable, so no ended token is accepted."""
    sessions = MySQLSessions(make_mysql(UNAVAILABLE.mysql), users, clock=clock, cache_size=1, cache_ttl=1)
    for call in (
        sessions.signed_out(bytes(16)),
        sessions.signed_out_now([bytes(16)]),
        sessions.sign_out(token(1)),
        sessions.sign_out_everywhere(1),
    ):
        with pytest.raises(StorageUnavailable):
            await call
