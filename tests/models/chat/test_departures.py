"""Departures: what is written to users who are gone is refused, soon, and without waiting for the user table."""

from __future__ import annotations

import asyncio
from collections.abc import Container

import pytest

from models.chat import departures as module
from models.chat.departures import Departures, all_active
from models.errors import EngineUnavailable, UnknownUser
from tests.support.chats import active
from tests.support.sockets import until


class Table:
    """A user table from which users can go."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.away = False
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def active(self, *ids: int) -> Container[int]:
        self.asked += 1
        await self.answers.wait()
        if self.away:
            raise EngineUnavailable("mysql", "away")
        return set(ids) - self.gone


async def looked(departures: Departures) -> None:
    await until(lambda: not departures._looks)


@pytest.mark.parametrize("gone", [1, 2])
async def test_whoever_is_gone_is_refused_from_the_next_message_on(gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two it is, and until the account is there again."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)
    table = Table()
    _, conversation = active(1, 2)
    departures = Departures(table.active)
    departures.require_here(conversation)
    await looked(departures)
    table.gone = {gone}
    conversation.unblocked_until = asyncio.get_running_loop().time() + 1000
    departures.require_here(conversation)
    await looked(departures)
    assert conversation.unblocked_until < 0
    with pytest.raises(UnknownUser) as caught:
        departures.require_here(conversation)
    assert caught.value.user == gone
    table.gone = set()
    with pytest.raises(UnknownUser):
        departures.require_here(conversation)
    await looked(departures)
    departures.require_here(conversation)
    await departures.close()


async def test_the_table_is_not_asked_for_each_message_to_one_who_is_gone() -> None:
    """Once a second is enough."""
    table = Table()
    table.gone = {2}
    _, conversation = active(1, 2)
    departures = Departures(table.active)
    departures.require_here(conversation)
    await looked(departures)
    for _ in range(100):
        with pytest.raises(UnknownUser):
            departures.require_here(conversation)
    assert table.asked == 1


async def test_while_the_table_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it, nobody is taken to have gone, and only so many looks wait."""
    monkeypatch.setattr(module, "LOOKS", 3)
    table = Table()
    table.answers.clear()
    _, conversation = active(1, 2)
    departures = Departures(table.active)
    for _ in range(10):
        departures.require_here(conversation)
    await until(lambda: table.asked == 3)
    table.away = True
    table.answers.set()
    await looked(departures)
    departures.require_here(conversation)
    await departures.close()
    assert not departures._looks


async def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is looked up again when somebody writes to it."""
    monkeypatch.setattr(module, "KNOWN", 2)
    table = Table()
    table.gone = {2, 3, 4}
    departures = Departures(table.active)
    for peer in (2, 3, 4):
        departures.require_here(active(1, peer)[1])
        await looked(departures)
    departures.require_here(active(1, 2)[1])
    with pytest.raises(UnknownUser):
        departures.require_here(active(1, 4)[1])
    await departures.close()


async def test_where_nobody_goes() -> None:
    """All are there."""
    assert await all_active(1, 2) == (1, 2)
