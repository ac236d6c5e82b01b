"""Tests of the export of a user's messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.simple_httpclient import HTTPStreamClosedError

from models.errors import StorageUnavailable
from server import Server
from tests.conftest import Ask, Connect2

Pair = tuple[int, int]


async def test_everything_is_there(ask: Ask, connect2: Connect2, pair: Pair, people: Any) -> None:
    """The export has the account, all messages of all conversations in order, over several pages, and a last line."""
    (third,) = people(1)
    inbox = await connect2(pair[0])
    other = await connect2(*pair[::-1])
    await other.say("hello")
    for number in range(250):
        await inbox.write(1, to=str(pair[1]), content=f"message {number}")
    await inbox.say("to another", 50005, to=str(third))
    await inbox.say("last", 50004, to=str(pair[1]))
    answer = await ask("GET", f"/user/export?uid={pair[0]}")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]
    assert lines[0]["account"]["id"] == pair[0]
    assert lines[-1] == {"complete": True, "messages": 253}
    messages = [line for line in lines[1:-1] if str(third) not in (line["from"], line["to"])]
    assert [message["seq"] for message in messages] == list(range(1, 253))
    assert "to another" in {line["content"] for line in lines[1:-1]}


async def test_no_other_users_messages(ask: Ask, connect2: Connect2, pair: Pair, people: Any) -> None:
    """Messages between other users are not in the export."""
    (third,) = people(1)
    one = await connect2(*pair)
    await one.say("between us")
    assert b"between us" not in (await ask("GET", f"/user/export?uid={third}")).body


async def test_cut_off(
    ask: Ask, connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the database fails during the export, it ends without its last line; before the first line, with 503."""
    one = await connect2(*pair)
    await one.say("hello")

    async def fail(*_: object) -> Any:
        raise StorageUnavailable("mongodb", "away")

    monkeypatch.setattr(http_server.history, "after", fail)
    with pytest.raises(HTTPStreamClosedError):
        await ask("GET", f"/user/export?uid={pair[0]}")
    monkeypatch.setattr(http_server.stores.mysql, "always", fail)
    http_server.stores.users.forget(pair[0])
    assert (await ask("GET", f"/user/export?uid={pair[0]}")).status == 503


async def test_one_at_a_time(ask: Ask, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user can run one export at a time, since it reads a lot."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(user: int) -> Any:
        begun.set()
        await go_on.wait()
        yield []

    monkeypatch.setattr(http_server.history, "everything", slowly)
    first = asyncio.ensure_future(ask("GET", f"/user/export?uid={pair[0]}"))
    await begun.wait()
    assert (await ask("GET", f"/user/export?uid={pair[0]}")).status == 429
    second = asyncio.ensure_future(ask("GET", f"/user/export?uid={pair[1]}"))
    go_on.set()
    assert ((await first).status, (await second).status) == (200, 200)
    assert (await ask("GET", f"/user/export?uid={pair[0]}")).status == 200
