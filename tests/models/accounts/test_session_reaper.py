"""Tests of the session reaper: sockets of ended sessions are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from common.tasks import end
from models.accounts.session_reaper import SessionReaper
from models.errors import StorageUnavailable
from models.records import Identity
from tests.support.sockets import until

ONE, TWO = Identity(1, b"1"), Identity(2, b"2")


class Fake:
    """A fake of two users' sockets, of which some sessions have ended."""

    def __init__(self) -> None:
        self.over: set[Identity] = set()
        self.asked: list[set[Identity]] = []
        self.closed: set[Identity] = set()
        self.away = False

    def users(self) -> Iterable[int]:
        return {1, 2} - {each.user for each in self.closed}

    def identities(self, users: Iterable[int]) -> set[Identity]:
        return {each for each in (ONE, TWO) if each.user in users} - self.closed

    def close_sessions(self, identities: Collection[Identity]) -> None:
        self.closed |= set(identities)

    async def ended(self, identities: Collection[Identity]) -> set[Identity]:
        self.asked.append(set(identities))
        if self.away:
            raise StorageUnavailable("mysql", "away")
        return self.over & set(identities)


async def test_a_dirty_user() -> None:
    """A user that is marked dirty is checked alone, at once."""
    fake: Any = Fake()
    fake.over = {ONE, TWO}
    reaper = SessionReaper(fake, fake, 1000)
    task = asyncio.ensure_future(reaper.sweep.run())
    reaper.sweep.mark_dirty(1)
    await until(lambda: fake.closed)
    await end(task)
    assert (fake.closed, fake.asked) == ({ONE}, [{ONE}])


async def test_all_users_in_turn_and_through_an_outage() -> None:
    """No socket is closed while the tables cannot be read; afterwards the checks go on."""
    fake: Any = Fake()
    fake.over, fake.away = {TWO}, True
    reaper = SessionReaper(fake, fake, 0.01)
    task = asyncio.ensure_future(reaper.sweep.run())
    await until(lambda: len(fake.asked) >= 3)
    assert fake.closed == set()
    fake.away = False
    await until(lambda: fake.closed)
    await end(task)
    assert fake.closed == {TWO}
