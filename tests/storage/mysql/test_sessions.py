"""Ended tokens in MySQL: one by itself, all of a user's, and what is remembered of them."""

from __future__ import annotations

import asyncio
import secrets
import time

import pymysql
import pytest

from models.errors import EngineUnavailable
from models.records import Identity, User
from storage.mysql import sessions as module
from storage.mysql.executor import MySQL
from storage.mysql.sessions import SPARE, SWEPT, MySQLSessions
from storage.mysql.users import MySQLUsers
from tests.conftest import Clock
from tests.storage.conftest import NOBODY, MakeMySQL, SetUser

Pair = tuple[int, int]


def token(user: int, lifetime: float = 3600) -> Identity:
    """A token of a user, as it is known once it was verified."""
    return Identity(user, secrets.token_bytes(16), "version", time.time(), time.time() + lifetime)


@pytest.fixture
def sessions(mysql: MySQL, users: MySQLUsers, clock: Clock) -> MySQLSessions:
    """The ended tokens, remembered for longer than a test takes."""
    return MySQLSessions(mysql, users, clock=clock, cache_size=100, cache_ttl=60)


@pytest.fixture
def forgetting(mysql: MySQL, users: MySQLUsers, clock: Clock) -> MySQLSessions:
    """The same in another process, which remembers nothing."""
    return MySQLSessions(mysql, users, clock=clock, cache_size=0, cache_ttl=60)


async def present(users: MySQLUsers, user: int) -> User:
    """A user as the table has it now."""
    return (await users.active_now([user]))[user]


async def test_one_token_is_ended(sessions: MySQLSessions, forgetting: MySQLSessions, pair: Pair) -> None:
    """In every process, and no other token of the same user."""
    ended, other = token(pair[0]), token(pair[0])
    await sessions.sign_out(ended)
    for store in (sessions, forgetting):
        assert await store.signed_out(ended.session)
        assert not await store.signed_out(other.session)
        assert {ended.session} == await store.signed_out_now([ended.session, other.session])


async def test_a_token_can_be_ended_twice(sessions: MySQLSessions, pair: Pair) -> None:
    """By requests that come at the same time."""
    ended = token(pair[0])
    await asyncio.gather(*(sessions.sign_out(ended) for _ in range(5)))
    assert await sessions.signed_out(ended.session)


async def test_ended_here_is_ended_at_once(sessions: MySQLSessions, pair: Pair) -> None:
    """Whatever was remembered."""
    ended = token(pair[0])
    assert not await sessions.signed_out(ended.session)
    await sessions.sign_out(ended)
    assert await sessions.signed_out(ended.session)


async def test_ended_elsewhere_is_learnt(sessions: MySQLSessions, forgetting: MySQLSessions, pair: Pair) -> None:
    """Not while another answer is remembered, but when the table is asked, and from then on."""
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
    """However many there are, and if there are none."""
    monkeypatch.setattr(module, "BATCH", 3)
    tokens = [token(pair[0]) for _ in range(7)]
    for each in tokens[::3]:
        await sessions.sign_out(each)
    assert {each.session for each in tokens[::3]} == await sessions.signed_out_now([each.session for each in tokens])
    assert await sessions.signed_out_now([]) == set()


async def test_old_rows_go(
    sessions: MySQLSessions, forgetting: MySQLSessions, database: pymysql.Connection, pair: Pair
) -> None:
    """Some with each sign-out, once their time has been over for longer than clocks differ."""
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
    """The last second included."""
    ended = token(pair[0])
    await sessions.sign_out(ended)
    clock.offset = 3600 + SPARE / 2
    await sessions.sign_out(token(pair[1], 7200))
    assert await forgetting.signed_out(ended.session)


async def test_all_tokens_are_ended(sessions: MySQLSessions, users: MySQLUsers, pair: Pair) -> None:
    """Those with a version have an old one at once, every time; another user's stay."""
    versions = [(await users.active(pair[0]))[pair[0]].token_version]
    for _ in range(3):
        await sessions.sign_out_everywhere(pair[0])
        versions.append((await users.active(pair[0]))[pair[0]].token_version)
    assert len(set(versions)) == 4
    assert (await present(users, pair[1])).tokens_since == 0


async def test_tokens_without_a_version_are_ended(
    sessions: MySQLSessions, users: MySQLUsers, clock: Clock, pair: Pair
) -> None:
    """Those issued until now, also by a clock that went back since."""
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
    """Each counts."""
    await asyncio.gather(*(sessions.sign_out_everywhere(pair[0]) for _ in range(10)))
    with database.cursor() as cursor:
        cursor.execute("SELECT generation FROM `tandem_account` WHERE user_id = %s", (pair[0],))
        assert cursor.fetchone() == (10,)


@pytest.mark.parametrize("digest", ["'$2a$12$other'", "''", "NULL", "'!'"])
async def test_another_program_changes_a_password(
    users: MySQLUsers, set_user: SetUser, pair: Pair, digest: str
) -> None:
    """Which ends the user's tokens as well; a change of anything else does not."""
    set_user(pair[0], "password_digest = '$2a$12$one'")
    before = await present(users, pair[0])
    set_user(pair[0], "email = 'a@b', updated_at = '2020-01-01', nick_name = 'x'")
    assert (await present(users, pair[0])).token_version == before.token_version
    set_user(pair[0], f"password_digest = {digest}")
    assert (await present(users, pair[0])).token_version != before.token_version


async def test_versions_differ(users: MySQLUsers, sessions: MySQLSessions, set_user: SetUser, pair: Pair) -> None:
    """A password of another time does not bring that time's tokens back."""
    set_user(pair[0], "password_digest = 'one'")
    before = await present(users, pair[0])
    await sessions.sign_out_everywhere(pair[0])
    set_user(pair[0], "password_digest = 'two'")
    set_user(pair[0], "password_digest = 'one'")
    assert (await present(users, pair[0])).token_version != before.token_version


async def test_mysql_away(make_mysql: MakeMySQL, users: MySQLUsers, clock: Clock) -> None:
    """An error for every call: an ended token is never taken for a good one."""
    sessions = MySQLSessions(make_mysql(NOBODY.mysql), users, clock=clock, cache_size=1, cache_ttl=1)
    for call in (
        sessions.signed_out(bytes(16)),
        sessions.signed_out_now([bytes(16)]),
        sessions.sign_out(token(1)),
        sessions.sign_out_everywhere(1),
    ):
        with pytest.raises(EngineUnavailable):
            await call
