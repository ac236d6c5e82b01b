"""Tests of GET /conversations and GET /messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from models.chat.history import LONG, SHORT
from models.records import Message, conversation_of
from server import Server
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages
from tests.conftest import Connect, Connect2
from tests.support.database import mongo_reads
from tests.support.sockets import Client2, RawSocket, until


async def get(server: Server, path: str) -> tuple[int, Any]:
    raw = await RawSocket.open(server.port)
    try:
        status, body = await raw.request(path)
    finally:
        raw.abort()
    envelope = json.loads(body)
    assert (list(envelope), envelope["status"]) == (["status", "data", "msg", "error"], status)
    return status, envelope["data"] if status == 200 else envelope["error"]


async def test_the_list(connect2: Connect2, http_server: Server, people: Callable[[int], list[int]]) -> None:
    """The list has peers, last messages, unread counts, positions and presence, newest first, in pages."""
    me, a, b, c = people(4)
    for peer, texts in ((a, ["1", "2"]), (b, ["3"]), (c, ["4"])):
        socket = await connect2(peer, me)
        for text in texts:
            await socket.say(text, 50005)
        if peer == b:
            mine = await connect2(me, b)
            await mine.say("answer", 50004)
            await socket.ask(4, read=2)
    status, listed = await get(http_server, f"/conversations?uid={me}")
    assert status == 200
    assert [entry["peer"]["id"] for entry in listed] == [c, b, a]
    assert [entry["unread"] for entry in listed] == [1, 1, 2]
    assert [entry["online"] for entry in listed] == [False, True, False]  # only acquaintances are shown as online
    assert [entry["last"]["content"] for entry in listed] == ["4", "answer", "2"]
    assert (listed[1]["received"], listed[1]["read"]) == (2, 2)
    assert listed[0]["peer"]["user_name"]
    _, first = await get(http_server, f"/conversations?uid={me}&limit=1")
    _, rest = await get(http_server, f"/conversations?uid={me}&before={first[0]['last']['time']}")
    assert [entry["peer"]["id"] for entry in first + rest] == [c, b, a]
    assert await get(http_server, f"/conversations?uid={a}&limit=1") == (200, [dict(listed[2], **own(me, listed[2]))])


async def test_pages_of_the_list(
    messages: MongoMessages, http_server: Server, people: Callable[[int], list[int]]
) -> None:
    """The next page begins after a time and a peer, so conversations of one millisecond are listed once each."""
    me, *peers = people(12)
    now = int(time.time() * 1000)
    for peer in peers:
        await messages.reserve(conversation_of(me, peer), 1)
        await messages.insert(Message(me, peer, 1, now, "to all", bytes(16)))
    found: list[int] = []
    query = ""
    while page := (await get(http_server, f"/conversations?uid={me}&limit=5{query}"))[1]:
        found += [entry["peer"]["id"] for entry in page]
        query = f"&before={page[-1]['last']['time']}&before_peer={page[-1]['peer']['id']}"
    assert found == peers


@pytest.mark.parametrize("path", ["/conversations?uid={0}", "/messages?uid={0}&toUid={1}&after=0"])
async def test_a_caller_that_has_gone(
    http_server: Server, pair: tuple[int, int], addresses: Addresses, path: str
) -> None:
    """The request of a caller that disconnects is cancelled in the queue, before it reads from the database."""
    turns = http_server.history.turns
    async with AsyncExitStack() as stack:
        for number in range(LONG):
            await stack.enter_async_context(turns.long(-number - 1))
        for _ in range(SHORT):
            await stack.enter_async_context(turns.short())
        before = mongo_reads(addresses.mongo)
        raw = await RawSocket.open(http_server.port)
        asking = asyncio.ensure_future(raw.request(path.format(*pair)))
        await until(lambda: turns.waiting == 1)
        raw.abort()
        await until(lambda: turns.waiting == 0)
        assert mongo_reads(addresses.mongo) == before
        asking.cancel()
    assert (await get(http_server, path.format(*pair)))[0] == 200


def own(me: int, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the same conversation as the other user sees it."""
    return {"peer": dict(entry["peer"], id=me, user_name=ANYTHING), "unread": 0}


class _Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANYTHING = _Anything()


async def test_unread_counts_stop_at_a_hundred(
    connect2: Connect2, connect: Connect, http_server: Server, people: Callable[[int], list[int]]
) -> None:
    """Counts are exact up to 100, then "100+"."""
    me, a = people(2)
    old = await connect(me, a)
    sender = await connect2(a, me)
    await old.say("hello", 50004)
    old.close()
    for name in [await sender.write(1, content=str(number)) for number in range(100)]:
        await sender.answer(name)
    _, listed = await get(http_server, f"/conversations?uid={me}")
    assert listed[0]["unread"] in (99, 100)  # the first one may have reached the old socket
    for number in range(2):
        await sender.say(str(number))
    _, listed = await get(http_server, f"/conversations?uid={me}")
    assert listed[0]["unread"] == "100+"


async def test_unread_counts_while_messages_race_with_marks(
    connect2: Connect2, http_server: Server, pair: tuple[int, int]
) -> None:
    """While two users write and mark messages, the messages after the marks are counted."""

    async def write(socket: Client2) -> int:
        names = [await socket.write(1, content="x") for _ in range(20)]
        return max([(await socket.answer(name))["seq"] for name in names])

    async def mark(device: Client2, peer: int) -> int:
        """Mark the peer's first ten messages as they come, each time also an older one."""
        read = heard = 0
        while heard < 10:
            frame = await device.read()
            if frame["code"] == 50001 and frame["from"] == str(peer):
                heard += 1
                for seq in (frame["seq"], frame["seq"] // 2):
                    read = max(read, (await device.ask(4, read=seq))["read"])
        return read

    one, two = await connect2(*pair), await connect2(*pair[::-1])
    for _ in range(3):
        first, second = await connect2(*pair), await connect2(*pair[::-1])
        *ends, read_1, read_2 = await asyncio.gather(
            write(one), write(two), mark(first, pair[1]), mark(second, pair[0])
        )
        _, history = await get(
            http_server, f"/messages?uid={pair[0]}&toUid={pair[1]}&after={min(read_1, read_2)}&limit=100"
        )
        for user, read in zip(pair, (read_1, read_2), strict=True):
            _, (entry,) = await get(http_server, f"/conversations?uid={user}")
            behind = [m for m in history["messages"] if m["from"] != str(user) and m["seq"] > read]
            assert (entry["unread"], entry["last"]["seq"]) == (len(behind), max(ends))


async def test_history(connect2: Connect2, http_server: Server, pair: tuple[int, int]) -> None:
    """Messages are shown as in answers to type 2."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await one.say("a", 50004)
    await two.say("b", 50004)
    for number in range(5):
        await one.say(str(number), 50004)
    for query, seqs, complete in (
        ("", [1, 2, 3, 4, 5, 6, 7], True),
        ("&limit=2", [6, 7], False),
        ("&before=3", [1, 2], True),
        ("&after=5", [6, 7], True),
        ("&after=1&limit=2", [2, 3], False),
    ):
        status, data = await get(http_server, f"/messages?uid={pair[1]}&toUid={pair[0]}{query}")
        assert (status, [m["seq"] for m in data["messages"]], data["complete"]) == (200, seqs, complete)
    shown = data["messages"][0]
    assert (shown["from"], shown["to"], shown["content"]) == (str(pair[1]), str(pair[0]), "b")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/conversations", 400),
        ("/conversations?uid=x", 400),
        ("/conversations?uid=4000000000", 404),
        ("/conversations?uid=1&limit=0", 400),
        ("/conversations?uid=1&limit=101", 400),
        ("/conversations?uid=1&before=-1", 400),
        ("/messages?uid=1", 400),
        ("/messages?uid=1&toUid=1", 400),
        ("/messages?uid=1&toUid=4000000000", 200),  # as with a stranger: the answer does not say which users exist
        ("/messages?uid=1&toUid=2&before=1&after=1", 400),
        ("/conversations?uid=1&before_peer=2", 400),
        ("/conversations?uid=1&before=1&before_peer=x", 400),
        ("/conversations?uid=1&before=1&before_peer=2&before_peer=3", 400),
        ("/messages?uid=1&toUid=2&after=99999999999999999999", 400),
    ],
)
async def test_bad_requests(http_server: Server, path: str, status: int) -> None:
    """Invalid requests are answered in the envelope with the name of the field."""
    assert (await get(http_server, path))[0] == status


async def test_a_long_last_message(http_server: Server, connect2: Any, pair: tuple[int, int], ask: Any) -> None:
    """A long last message is cut in the list and marked as cut; history has all of it."""
    one = await connect2(*pair)
    await one.say("x" * 300)
    last = (await ask("GET", f"/conversations?uid={pair[0]}")).data[0]["last"]
    assert (last["content"], last["cut"]) == ("x" * 256, True)
    page = (await ask("GET", f"/messages?uid={pair[0]}&toUid={pair[1]}")).data["messages"]
    assert (page[0]["content"], "cut" in page[0]) == ("x" * 300, False)


async def test_messages_of_a_deleted_user(connect2: Any, pair: tuple[int, int], ask: Any, database: Any) -> None:
    """Messages of a deleted user can still be read."""
    one = await connect2(*pair)
    await one.say("goodbye")
    one.close()
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET deleted_at = NOW() WHERE id = %s", (pair[0],))
    page = await ask("GET", f"/messages?uid={pair[1]}&toUid={pair[0]}")
    assert [message["content"] for message in page.data["messages"]] == ["goodbye"]


async def test_history_with_a_stranger(pair: tuple[int, int], ask: Any) -> None:
    """History with a stranger is empty, whether the stranger exists or not."""
    answers = [
        await ask("GET", f"/messages?uid={pair[0]}&toUid={peer}") for peer in (pair[1], 4_000_000_000, 2**63 - 1)
    ]
    assert [(answer.status, answer.data) for answer in answers] == [(200, {"messages": [], "complete": True})] * 3
