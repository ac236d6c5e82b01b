"""Tests of departures: messages to users who are gone are refused soon, and none waits for the user table."""

from __future__ import annotations

import asyncio

import pytest

from models.chat import departures as module
from models.chat.departures import Departures, all_active
from models.errors import UnknownUser
from tests.support.accounts import DepartingUsers
from tests.support.chats import active
from tests.support.sockets import until


async def looked(departures: Departures) -> None:
    await until(lambda: departures.idle)


@pytest.mark.parametrize("gone", [1, 2])
async def test_a_user_who_is_gone_is_refused_from_then_on(gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either user being gone refuses messages, until the account is back."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)
    table = DepartingUsers()
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
    """A user who is gone is looked up once a second."""
    table = DepartingUsers()
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
    """While the table cannot be read, no message waits, no user counts as gone, and few look-ups are in progress."""
    monkeypatch.setattr(module, "LOOKS", 3)
    table = DepartingUsers()
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
    assert departures.idle


async def test_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest entry is dropped, and looked up again with the next message."""
    monkeypatch.setattr(module, "KNOWN", 2)
    table = DepartingUsers()
    table.gone = {2, 3, 4}
    departures = Departures(table.active)
    for peer in (2, 3, 4):
        departures.require_here(active(1, peer)[1])
        await looked(departures)
    departures.require_here(active(1, 2)[1])
    with pytest.raises(UnknownUser):
        departures.require_here(active(1, 4)[1])
    await departures.close()


async def test_a_table_without_departures() -> None:
    """All users are active."""
    assert await all_active(1, 2) == (1, 2)
