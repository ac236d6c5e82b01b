"""Evicting: sockets of those who may no longer speak are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any

from common.tasks import end
from models.accounts.session_reaper import SessionReaper
from models.errors import EngineUnavailable
from models.records import Identity
from tests.support.sockets import until

ONE, TWO = Identity(1, b"1"), Identity(2, b"2")


class House:
    """Sockets of two, and who of them is known to have ended."""

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
            raise EngineUnavailable("mysql", "away")
        return self.over & set(identities)


async def test_whoever_is_suspected() -> None:
    """Is looked at alone, at once."""
    house: Any = House()
    house.over = {ONE, TWO}
    reaper = SessionReaper(house, house, 1000)
    task = asyncio.ensure_future(reaper.sweep.run())
    reaper.sweep.mark_dirty(1)
    await until(lambda: house.closed)
    await end(task)
    assert (house.closed, house.asked) == ({ONE}, [{ONE}])


async def test_everybody_in_turn_and_through_an_outage() -> None:
    """Nobody is sent away while the tables cannot be read; afterwards it goes on by itself."""
    house: Any = House()
    house.over, house.away = {TWO}, True
    reaper = SessionReaper(house, house, 0.01)
    task = asyncio.ensure_future(reaper.sweep.run())
    await until(lambda: len(house.asked) >= 3)
    assert house.closed == set()
    house.away = False
    await until(lambda: house.closed)
    await end(task)
    assert house.closed == {TWO}
