"""Tests of the session reaper: sockets of ended sessions are closed."""

from __future__ import annotations

import asyncio

from common.tasks import end
from models.accounts.authentication import Access, Mode
from models.accounts.session_reaper import SessionReaper
from models.records import Identity, User
from tests.support.accounts import KnownUsers, ListedSockets, OneTicket, OneToken, RecordedSessions
from tests.support.sockets import until

ONE, TWO = Identity(1, b"1"), Identity(2, b"2")


class Ended:
    """Two users' sockets and the access that they were opened with, of which some sessions may have ended."""

    def __init__(self) -> None:
        self.users = KnownUsers(*(User(each.user, "", "", "", "", "active", 0, tokens_since=-1) for each in (ONE, TWO)))
        self.sessions = RecordedSessions([])
        self.sockets = ListedSockets(ONE, TWO)
        tokens = OneToken(ONE)
        self.access = Access(Mode.TOKEN, self.users, self.sessions, tokens, OneTicket(tokens), clock=lambda: 0.0)


async def test_a_dirty_user() -> None:
    """A user that is marked dirty is checked alone, at once."""
    fake = Ended()
    fake.sessions.out = {ONE.session, TWO.session}
    reaper = SessionReaper(fake.access, fake.sockets, 1000)
    task = asyncio.ensure_future(reaper.sweep.run())
    reaper.sweep.mark_dirty(1)
    await until(lambda: fake.sockets.closed)
    await end(task)
    assert (fake.sockets.closed, fake.sessions.asked) == ({ONE}, [{ONE.session}])


async def test_all_users_in_turn_and_through_an_outage() -> None:
    """No socket is closed while the tables cannot be read; afterwards the checks go on."""
    fake = Ended()
    fake.sessions.out, fake.users.away = {TWO.session}, True
    reaper = SessionReaper(fake.access, fake.sockets, 0.01)
    task = asyncio.ensure_future(reaper.sweep.run())
    await until(lambda: fake.users.refused >= 3)
    assert fake.sockets.closed == set()
    fake.users.away = False
    await until(lambda: fake.sockets.closed)
    await end(task)
    assert fake.sockets.closed == {TWO}
