"""Tests of accounts that are deleted while sockets to them are open: messages to them are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pymysql
import pytest

from models.chat import blocks, departures

Pair = tuple[int, int]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look users up with each message instead of every few seconds."""
    monkeypatch.setattr(blocks, "REMEMBERED", 0.0)
    monkeypatch.setattr(departures, "LOOK_AGAIN", 0.0)


@pytest.fixture
def flags() -> list[str]:
    return ["--lookup-ttl=0.05", "--request-rate=1000000", "--request-burst=1000000"]


async def until_told(say: Callable[[], Awaitable[Any]], *codes: int) -> None:
    """Send messages until one of these codes is the answer."""
    while True:
        answer = await say()
        if (answer if isinstance(answer, int) else answer["code"]) in codes:
            return


@pytest.mark.parametrize("assignment", ["deleted_at = NOW()", "status = 'banned'"])
async def test_writing_to_one_who_is_gone(
    assignment: str, connect: Any, connect2: Any, pair: Pair, database: pymysql.Connection
) -> None:
    """Messages are refused on every kind of open socket; a resend is still recognised, and history is readable.

    An account that is back can be written to again.
    """
    one, two = pair
    theirs = await connect(two, one)
    await theirs.say("hello", 50005)
    old, new, inbox = await connect(one, two), await connect2(one, two), await connect2(one)
    kept = await new.say("hello yourself", id="kept")
    to = {"to": str(two)}
    ways = (lambda: old.say("x"), lambda: new.say("x"), lambda: inbox.say("x", **to))
    with database.cursor() as cursor:
        cursor.execute(f"UPDATE `user` SET {assignment} WHERE id = %s", (two,))
        for say in ways:
            await until_told(say, 404)
        again = await new.say("hello yourself", id="kept")
        assert (again["seq"], again["dup"]) == (kept["seq"], True)
        assert (await new.ask(2, limit=1))["code"] == 50002
        cursor.execute("UPDATE `user` SET deleted_at = NULL, status = 'active' WHERE id = %s", (two,))
    for say in ways:
        await until_told(say, 50004, 50005)
