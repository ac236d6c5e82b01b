"""Heartbeats: every socket is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from common.tasks import end
from handlers.websocket.handler import ChatSocket
from handlers.websocket.heartbeats import keep_checking_pongs
from tests.conftest import Connect
from tests.support.sockets import until


async def test_many_are_checked_in_several_turns(
    connect: Connect, people: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many sockets are checked in several turns of the loop, and none is left out."""
    monkeypatch.setattr("handlers.websocket.heartbeats.BATCH", 2)
    for _ in range(5):
        await connect(*people(2))
    check, turns = ChatSocket.hub.check_peers, []

    def checked(now: float, users: tuple[int, ...]) -> None:
        turns.append(users)
        check(now, users)

    monkeypatch.setattr(ChatSocket.hub, "check_peers", checked)
    checking = asyncio.ensure_future(keep_checking_pongs(0.02))
    await until(lambda: len(turns) >= 7)
    await end(checking)
    assert {user for users in turns for user in users} == set(ChatSocket.hub.users())
    assert max(map(len, turns)) == 2


async def test_a_bug_does_not_end_the_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one check is logged, and the next check is made."""
    looks = 0

    def broken(now: float, users: tuple[int, ...]) -> None:
        nonlocal looks
        looks += 1
        raise KeyError(now)

    monkeypatch.setattr(ChatSocket.hub, "check_peers", broken)
    with capture_logs() as logs:
        checking = asyncio.ensure_future(keep_checking_pongs(0.01))
        await until(lambda: looks >= 3 or checking.done())
        assert not checking.done()
        await end(checking)
    assert {entry["event"] for entry in logs} == {"pongs_not_checked"}
