"""Tests of authentication: its rules, without real keys and tables."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from models.accounts.authentication import Access, Mode
from models.errors import Forbidden, InvalidRequest, Unauthenticated, UnknownUser
from models.records import Identity, User
from tests.support.accounts import KnownUsers, OneTicket, OneToken, RecordedSessions

USER = User(1, "name", "nick", "", "", "active", 0, token_version="v1", tokens_since=100)
TOKEN = Identity(1, b"s", "v1", issued=50, expires=1000)


class Tables:
    """Users, ended tokens, one token and one ticket."""

    def __init__(self) -> None:
        self.users = KnownUsers(USER)
        self.sessions = RecordedSessions([])
        self.tokens = OneToken(TOKEN)


def access(mode: Mode, tables: Tables, now: float = 500) -> Access:
    return Access(mode, tables.users, tables.sessions, tables.tokens, OneTicket(tables.tokens), clock=lambda: now)


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.LOCAL])
async def test_where_uid_is_believed(mode: Mode) -> None:
    """`uid` is the caller, whatever token is sent with it; without `uid`, a token authenticates the caller."""
    asked = access(mode, Tables())
    assert await asked.identify(uid=1, token="another") == Identity(1)
    assert await asked.identify(token="token") == TOKEN
    assert await asked.identify(ticket="token") == TOKEN
    with pytest.raises(UnknownUser):
        await asked.identify(uid=2)
    with pytest.raises(InvalidRequest, match="uid"):
        await asked.identify()
    with pytest.raises(Unauthenticated):
        await asked.identify(token="another")


async def test_where_it_is_not() -> None:
    """A token or a ticket authenticates the caller; `uid` may only agree with it."""
    asked = access(Mode.TOKEN, Tables())
    assert await asked.identify(uid=1, token="token") == TOKEN
    assert await asked.identify(ticket="token") == TOKEN
    for given, error in (
        ({}, Unauthenticated),
        ({"uid": 1}, Unauthenticated),
        ({"uid": 2, "token": "token"}, Forbidden),
        ({"token": "another"}, Unauthenticated),
        ({"token": "token", "ticket": "another"}, Unauthenticated),  # the ticket precedes the token
    ):
        with pytest.raises(error):
            await asked.identify(**given)


ENDED = {
    "gone": (lambda tables: tables.users.users.clear(), 500),
    "signed out": (lambda tables: tables.sessions.out.add(b"s"), 500),
    "of an earlier version": (
        lambda tables: tables.users.users.update({1: structs.replace(USER, token_version="v2")}),
        500,
    ),
    "expired": (lambda _: None, 1000),
    "without a version, from before": (
        lambda tables: setattr(tables.tokens, "identity", structs.replace(TOKEN, version=None, issued=100)),
        500,
    ),
}


@pytest.mark.parametrize(("change", "now"), ENDED.values(), ids=ENDED)
async def test_a_token_that_is_over(change: Any, now: float) -> None:
    """An expired or ended token is refused, and ends open sockets."""
    tables = Tables()
    change(tables)
    asked = access(Mode.TOKEN, tables, now)
    with pytest.raises(Unauthenticated):
        await asked.identify(token="token")
    assert await asked.ended([tables.tokens.identity]) == {tables.tokens.identity}


async def test_what_is_not_over() -> None:
    """A newer token of another back end stays valid, and so does a believed `uid` while its account exists."""
    tables = Tables()
    younger = structs.replace(TOKEN, version=None, issued=101)
    assert await access(Mode.TOKEN, tables).ended([TOKEN, younger, Identity(1)]) == set()
    assert await access(Mode.OPEN, tables).ended([Identity(1), Identity(2)]) == {Identity(2)}
