"""Protocol v2 over real sockets: ids, resending, seq, resume, history, unread, positions, typing, inboxes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from handlers.websocket.connection import SocketConnection
from handlers.websocket.handler import ChatSocket
from models.chat.history import LONG
from models.errors import StorageUnavailable
from models.records import Message, conversation_of
from server import Server
from storage.mongo.messages import MongoMessages
from tests.conftest import Ask, Connect, Connect2
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE, answer_within
from tests.support.sockets import Client2, RawSocket, socket_path, until, websocket

Pair = tuple[int, int]


async def introduce(one: Client2, two: Client2) -> None:
    """Lets both write, one message each; both have read what there is."""
    await one.say("hello", 50004)
    await two.receive(50001, content="hello")
    await two.say("hello yourself", 50004)
    await one.receive(50001, content="hello yourself")


async def test_the_greeting_names_the_log(http_server: Server, pair: Pair) -> None:
    """The greeting of pair and inbox sockets has the log's id; that of protocol v1 is the article's."""
    log = http_server.stores.messages.log
    for path in (f"/ws?uid={pair[0]}&toUid={pair[1]}&v=2", f"/ws?uid={pair[0]}&v=2&lang=en"):
        socket = await websocket(http_server.port, path)
        assert json.loads(str(await socket.read_message()))["log"] == log
        socket.close()
    socket = await websocket(http_server.port, f"/ws?uid={pair[0]}&toUid={pair[1]}")
    assert await socket.read_message() == '{"from":"","code":50002,"content":"已连接至服务器"}'
    socket.close()


async def test_a_message_and_its_copies(connect2: Connect2, connect: Connect, pair: Pair) -> None:
    """An acknowledgement has id, seq and time; the peer's sockets and the sender's others get the same frame."""
    phone, laptop = await connect2(*pair), await connect2(*pair)
    theirs, old = await connect2(*pair[::-1]), await connect(*pair[::-1])
    answer = await phone.say("hi", id="k1")
    assert list(answer) == ["from", "code", "content", "id", "seq", "time"]
    assert (answer["from"], answer["code"], answer["id"], answer["seq"]) == ("", 50004, "k1", 1)
    live = {"from": str(pair[0]), "to": str(pair[1]), "code": 50001, "content": "hi"}
    live |= {"seq": 1, "time": answer["time"], "id": "k1"}
    assert live == await theirs.read() == await laptop.read()
    await old.receive(50001, "hi")  # protocol v1 as it is, …
    for own in (phone, laptop):
        await own.receive(50007, read=1)  # … where delivery counts as read
    assert await phone.silent()


async def test_a_message_without_an_id(connect2: Connect2, pair: Pair) -> None:
    """A message without an id is acknowledged without one; sent again, it is another message."""
    one = await connect2(*pair)
    for seq in (1, 2):
        await one.connection.write_message('{"type":1,"content":"hi"}')
        frame = await one.receive(50005, seq=seq)
        assert "id" not in frame


async def test_the_same_id_again(connect2: Connect2, pair: Pair, messages: MongoMessages) -> None:
    """A resend gets the first answer's seq with `dup`, on any socket; with other content it is refused.

    The message is stored, delivered and counted once.
    """
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    first = await one.say("hi", 50004, id="k1")
    await two.receive(50001, content="hi")
    other = await connect2(*pair)
    for client in (one, other, one):
        again = await client.say("hi", 50005, id="k1")  # a stranger is not told again whether the peer is here
        assert {**first, "dup": True} == again | {key: first[key] for key in ("code", "content")}
    refused = await one.say("ho", id="k1")
    assert (refused["code"], refused["error"]) == (400, "id: was used for another content")
    two.close()
    await until(lambda: not ChatSocket.hub.reaches(*pair[::-1]))
    assert (await one.say("hi", 50005, id="k1"))["dup"]
    for number in (2, 3):  # it was counted once
        await one.say(str(number), 50005, id=f"k{number}")
    await one.say("4", 50006, id="k4")
    assert (await one.say("3", 50005, id="k3"))["dup"]  # a repeat of what is stored is never refused
    assert len(await messages.page(conversation_of(*pair), 1, 100)) == 3


async def test_an_id_belongs_to_its_sender(connect2: Connect2, pair: Pair) -> None:
    """The same id of the other user is another message."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await one.say("mine", 50004, id="k")
    answer = await two.say("mine", 50004, id="k")
    assert (answer["seq"], "dup" in answer) == (2, False)


async def test_twenty_at_once(connect2: Connect2, pair: Pair, messages: MongoMessages) -> None:
    """A message that is sent on twenty sockets at once is stored once."""
    sockets = [await connect2(*pair) for _ in range(20)]
    two = await connect2(*pair[::-1])
    name = str(uuid4())
    answers = await asyncio.gather(*(socket.say("once", id=name) for socket in sockets))
    assert {(answer["code"], answer.get("dup")) for answer in answers} == {(50004, None), (50005, True)}
    assert {(answer["seq"], answer["time"]) for answer in answers} == {(1, answers[0]["time"])}
    assert [answer.get("dup") for answer in answers].count(None) == 1
    await two.receive(50001, content="once")
    assert await two.silent()
    assert len(await messages.page(conversation_of(*pair), 1, 100)) == 1


async def test_a_month_later(connect2: Connect2, redis: Redis, pair: Pair, clock: Clock) -> None:
    """A resend finds the first message while that is stored, also when Redis has lost everything."""
    one = await connect2(*pair)
    first = await one.say("hi", 50005, id="k1")
    clock.offset = 30 * 86_400
    await redis.flushdb()
    assert {**first, "dup": True} == await one.say("hi", 50005, id="k1")


async def test_what_was_not_stored_is_no_resend(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first attempt that failed is not mistaken for a stored message."""
    one = await connect2(*pair)

    async def away(*_: object) -> Any:
        raise StorageUnavailable("mongodb", "away")

    with monkeypatch.context() as patch:
        patch.setattr(http_server.stores.messages, "head", away)
        await one.say("hi", 40001, id="k1")
    answer = await one.say("hi", 50005, id="k1")
    assert (answer["seq"], "dup" in answer) == (1, False)


async def test_not_known_is_told_later(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 40001 the acknowledgement may still come, once, and a resend is recognised."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    gate, reached, insert = asyncio.Event(), asyncio.Event(), http_server.stores.messages.insert

    async def slow(*run: Message) -> Any:
        reached.set()
        await gate.wait()
        return await insert(*run)

    monkeypatch.setattr(http_server.stores.messages, "insert", lambda *run: asyncio.ensure_future(slow(*run)))
    answer_within(0.2)
    while not reached.is_set():  # what is late before it is on its way is never tried
        await one.say("hi", 40001, id="k1")
    answer_within(PATIENCE)
    resent = asyncio.ensure_future(one.write(1, id="k1", content="hi"))
    gate.set()
    await resent
    answers = [await one.read(), await one.read()]
    assert [(a["code"], a["seq"], a.get("dup")) for a in answers] == [(50004, 1, None), (50005, 1, True)]
    await two.receive(50001, content="hi", seq=1)
    assert await two.silent()


async def test_bad_frames(connect2: Connect2, pair: Pair) -> None:
    """A frame that is not valid gets 400 with its id and the reason; nothing is stored, the socket stays open."""
    one = await connect2(*pair)
    bad = {
        '{"type":1,"id":"x","content":5}': "content: expected string, got integer",
        '{"type":1,"id":"x","content":null}': "content: expected string, got null",
        '{"Type":1,"id":"x","content":"hi"}': "type: is missing",
        '{"type":7,"id":"x"}': "type: is not one of 1, 2, 3, 4, 5, 6",
        '{"type":1,"id":"x","content":"hi","to":"999"}': "to: is not the peer of this socket",
        '{"type":2,"id":"x","before":1,"after":1}': "before: cannot stand beside after",
        '{"type":2,"id":"x","before":-1}': "before: expected integer >= 0",
        '{"type":2,"id":"x","limit":101}': "limit: expected integer <= 100",
        '{"type":2,"id":"x","after":{"1":1}}': "after: is not a seq",
    }
    for text, error in bad.items():
        await one.connection.write_message(text)
        await one.receive(400, id="x", error=error)
    await one.say("the count of bad frames begins anew", 50005)
    await one.connection.write_message('{"type":4,"id":"x"}')
    await one.receive(400, id="x", error="received: is missing, and so is read")
    await one.connection.write_message('{"type":4,"id":"x","read":99}')
    await one.receive(400, id="x", error="seq: 99 does not exist yet")
    await one.connection.write_message(b"{}", binary=True)
    await one.receive(400, id=None, error="frame: is binary")
    await one.say("reset the count", 50005)
    for text in ('{"type":6,"id":"x"}', '{"type":6,"id":"x","after":{"2":1}}', '{"type":6,"id":"x","after":1}'):
        await one.connection.write_message(text)
        await one.receive(50002 if text.endswith(":1}") else 400, id="x")
    await one.connection.write_message('{"type":6,"id":"x","after":{"2":0},"y":' + "9" * 5000 + "}")
    await one.receive(400, id="x")
    for text in ("[]", '{"type":1,"id":"","content":"hi"}', '{"type":1,"id":5,"content":"hi"}', "{" * 100):
        await one.connection.write_message(text)
        assert "id" not in await one.receive(400)
    await one.connection.write_message('{"type":1,"id":"' + "x" * 65 + '","content":"hi"}')
    await one.receive(400)


async def test_pages(connect2: Connect2, pair: Pair, clock: Clock) -> None:
    """Pages in both directions have each message once, though all have one time and others are written meanwhile."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    clock.offset += 3600
    await one.say("later", 50004)
    clock.offset -= 3600  # from now on every message has the time of the last one
    ids = [await one.write(1, content=str(number)) for number in range(97)]
    for name in ids:
        await one.answer(name)
    writing = asyncio.gather(*(one.write(1, content="more") for _ in range(30)))
    for step in ("before", "after"):
        seqs: list[int] = []
        edge: dict[str, int] = {"before": 101} if step == "before" else {"after": 0}
        while True:
            answer = await two.ask(2, limit=7, **edge)
            page = [message["seq"] for message in answer["messages"] if message["seq"] <= 100]
            assert sorted(page) == page
            seqs = page + seqs if step == "before" else seqs + page
            if answer["complete"] or not page:
                break
            edge = {step: page[0] if step == "before" else page[-1]}
        assert list(range(1, 101)) == seqs
    await writing
    newest = await two.ask(2, limit=3)
    assert len(newest["messages"]) == 3
    assert not newest["complete"]


async def test_big_pages_are_cut(connect2: Connect2, pair: Pair) -> None:
    """A page holds about 256 KiB of content, and says whether there is more."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    for _ in range(20):
        await one.say("长" * 8000, 50004)
    older = await two.ask(2, limit=100)
    assert (len(older["messages"]), older["complete"], older["messages"][-1]["seq"]) == (10, False, 22)
    newer = await two.ask(2, after=2, limit=100)
    assert (len(newer["messages"]), newer["complete"], newer["messages"][0]["seq"]) == (10, False, 3)


@pytest.mark.parametrize("flags", [["--write-buffer=300000"]])
async def test_a_slow_reader_is_not_too_slow(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer waits until the client has read those before it, counted in bytes of JSON."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    for _ in range(10):
        await one.say("\x01" * 8000, 50004)
    two.close()
    await until(lambda: pair[1] not in ChatSocket.hub.users())
    slow = await RawSocket.open(http_server.port)  # reads no further than it is asked for
    await slow.request(socket_path(*pair[::-1], v="2"), upgrade=True)
    await slow.frame()
    (socket,) = ChatSocket.hub.sockets_of(pair[1:])
    for end, size in (
        (slow.writer.get_extra_info("socket"), SO_RCVBUF),
        (socket.get_extra_info("socket"), SO_SNDBUF),
    ):
        end.setsockopt(SOL_SOCKET, size, 65_536)  # so that the kernel holds little
    for number in range(20):
        slow.write_frame(1, json.dumps({"type": 2, "id": f"{number}", "limit": 12}).encode())
    await until(lambda: not socket.is_open or socket.unsent > 150_000)
    for _ in range(40):  # as many pages as are owed could have been written by then
        await one.ask(2, limit=12)
    for number in range(20):
        page = json.loads((await slow.frame())[1])
        assert (page["id"], len(page["messages"]), page["complete"]) == (f"{number}", 5, False)
    slow.abort()


async def test_an_inbox_resume_has_a_size(connect2: Connect2, people: Callable[[int], list[int]]) -> None:
    """The limit of a resume on an inbox is for all conversations together."""
    me, *peers = people(3)
    for peer in peers:
        mine, theirs = await connect2(me, peer), await connect2(peer, me)
        await introduce(mine, theirs)
        for _ in range(8):
            await theirs.say("长" * 8000, 50004)
    inbox = await connect2(me)
    answer = await inbox.ask(6, after={str(peer): 0 for peer in peers})
    assert sum(len(m["content"].encode()) for m in answer["messages"]) <= 262_144
    assert (answer["complete"], answer["more"]) == (False, [str(peers[1])])


async def test_unread(connect2: Connect2, pair: Pair) -> None:
    """Unread are the peer's messages after the read position, which only type 4 moves."""
    one = await connect2(*pair)
    for text in ("a", "b"):
        await one.say(text, 50005)
    two = await connect2(*pair[::-1])
    await two.say("own", 50004)
    for _ in range(2):
        unread = await two.ask(3)
        assert [message["content"] for message in unread["messages"]] == ["a", "b"]
        assert unread["complete"]
    await two.ask(4, read=1)
    assert [message["seq"] for message in (await two.ask(3))["messages"]] == [2]


async def test_positions(connect2: Connect2, pair: Pair) -> None:
    """Positions only move forward, read implies received, and one after the last seq is refused; the peer is told."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    for number in range(3, 11):
        await one.say(str(number), 50004)
    two.unread.clear()
    steps: list[tuple[dict[str, int], tuple[int, int]]] = [
        ({"received": 5}, (5, 0)),
        ({"read": 3}, (5, 3)),
        ({"read": 10}, (10, 10)),
        ({"read": 5}, (10, 10)),
        ({"received": 4, "read": 4}, (10, 10)),
    ]
    for wanted, (received, read) in steps:
        answer = await two.ask(4, **wanted)
        assert (answer["code"], answer["received"], answer["read"]) == (50002, received, read)
    for received, read in ((5, 0), (5, 3), (10, 10)):  # told when they moved
        frame = await one.receive(50007, received=received, read=read)
        assert frame["from"] == str(pair[1])
    assert (await two.ask(4, read=11))["code"] == 400
    assert await one.silent()


async def test_delivery_to_protocol_v1_counts_as_read(connect: Connect, connect2: Connect2, pair: Pair) -> None:
    """A sender with protocol v2 is told that a message was read when a socket of protocol v1 got it."""
    one = await connect2(*pair)
    await connect(*pair[::-1])
    await one.say("hi", 50004)
    await one.receive(50007, received=1, read=1)


async def test_typing(connect2: Connect2, pair: Pair) -> None:
    """The peer's sockets are told of typing at most once a second; nothing is answered or stored."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    for _ in range(5):
        await one.connection.write_message('{"type":5}')
    frame = await two.receive(50008)
    assert frame["from"] == str(pair[0])
    assert await two.silent()
    assert await one.silent()


async def test_a_pair_socket_does_not_reveal_accounts(connect2: Connect2, pair: Pair) -> None:
    """A pair socket with an unknown peer opens and is empty; only a message to it gets 404."""
    for peer in (pair[1], 4_000_000_000, 2**63 - 1):
        one = await connect2(pair[0], peer)
        assert (await one.ask(2))["messages"] == (await one.ask(6, after=0))["messages"] == []
        assert (await one.ask(4, read=1))["code"] == 400
        await one.write(5)
        assert await one.silent()
        await one.say("hello?", 50005 if peer == pair[1] else 404)


async def test_a_stranger_who_types(connect2: Connect2, pair: Pair) -> None:
    """A peer is told of typing only when both users have written to each other."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    inbox, theirs = await connect2(pair[0]), await connect2(pair[1])
    for _ in range(2):
        await one.connection.write_message('{"type":5}')
        await inbox.connection.write_message(f'{{"type":5,"to":"{pair[1]}"}}')
        assert await two.silent()
        assert await theirs.silent()
        await one.say("hello?", 50004)
        for client in (two, theirs):
            await client.receive(50001)
        await inbox.receive(50001)
    await two.write(5)  # the user who got the message is a stranger too
    assert await one.silent()
    await two.say("hello yourself", 50004)
    await one.receive(50001)
    await theirs.connection.write_message(f'{{"type":5,"to":"{pair[0]}"}}')
    await one.receive(50008)


async def test_a_stranger_who_repeats_a_message(connect2: Connect2, pair: Pair) -> None:
    """A stranger learns once whether the peer is online; resends get the offline code until both have written."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    for number in range(3):
        await one.say("hello?", 50004, id=f"m{number}")
    for number in range(3):
        assert (await one.say("hello?", 50005, id=f"m{number}"))["dup"]
    await one.say("one too many", 50006, id="m3")
    again = await connect2(pair[0])
    await again.say("hello?", 50005, id="m1", to=str(pair[1]))
    await two.say("hello yourself")
    assert (await one.say("hello?", 50004, id="m1"))["dup"]
    two.close()
    await until(lambda: not ChatSocket.hub.reaches(*pair[::-1]))
    assert (await one.say("hello?", 50005, id="m1"))["dup"]


async def test_resume(connect2: Connect2, pair: Pair) -> None:
    """A resume brings all messages after a seq, then live ones; it can be repeated. A future seq gets 400."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    two.close()
    await until(lambda: not ChatSocket.hub.reaches(*pair[::-1]))
    for text in ("c", "d"):
        await one.say(text, 50005)
    back = await connect2(*pair[::-1])
    for _ in range(2):
        replay = await back.ask(6, after=2)
        assert [(m["seq"], m["content"]) for m in replay["messages"]] == [(3, "c"), (4, "d")]
        assert replay["complete"]
    await one.say("e", 50004)
    await back.receive(50001, seq=5)
    assert [m["seq"] for m in (await back.ask(6, after=0))["messages"]] == [1, 2, 3, 4, 5]
    assert (await back.ask(6, after=5))["messages"] == []
    assert (await back.ask(6, after=6))["code"] == 400
    assert await back.silent()


async def test_a_message_in_the_middle_of_a_replay(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that arrive while a replay is read follow it, without a gap or a repeat."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    after = http_server.stores.messages.after
    said: list[int] = []

    async def meanwhile(*args: Any) -> list[Message]:
        said.append((await one.say("before the read", 50004))["seq"])
        found = await after(*args)
        said.append((await one.say("after the read", 50004))["seq"])
        return found

    monkeypatch.setattr(http_server.stores.messages, "after", meanwhile)
    for round_ in range(3):
        two.unread.clear()
        replay = await two.ask(6, after=1)
        seqs = [m["seq"] for m in replay["messages"]]
        live = await two.read()
        assert [*range(2, 5 + 2 * round_)] == [*seqs, live["seq"]]
    assert await two.silent()


async def test_a_process_that_is_behind_its_client(connect2: Connect2, http_server: Server, pair: Pair) -> None:
    """A message that the process still has to fetch, and the client said to have, is not written to it again."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    back = await connect2(*pair[::-1])
    assert (await back.ask(6, after=2))["messages"] == []
    conversation = http_server.chat.conversations.get(conversation_of(*pair))
    assert conversation is not None
    conversation.delivered_seq = 0
    http_server.chat.delivery.schedule_catch_up(conversation)
    for seq in (1, 2):
        await two.receive(50001, seq=seq)
    await one.say("c", 50004)
    for client in (two, back):
        await client.receive(50001, seq=3)


async def test_a_failed_resume_loses_nothing(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a resume that got 40001, messages that arrived meanwhile are delivered."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)

    async def failing(*_: Any) -> list[Message]:
        await one.say("meanwhile", 50004)
        raise StorageUnavailable("mongodb", "away")

    with monkeypatch.context() as patch:
        patch.setattr(http_server.stores.messages, "after", failing)
        assert (await two.ask(6, after=0))["code"] == 40001
    await two.receive(50001, content="meanwhile")


async def test_beyond_the_cap(connect2: Connect2, pair: Pair) -> None:
    """A resume brings a hundred messages and says that there are more, which history has."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    for name in [await one.write(1, content=str(number)) for number in range(228)]:
        await one.answer(name)
    two.unread.clear()
    replay = await two.ask(6, after=10)
    seqs = [m["seq"] for m in replay["messages"]]
    assert (len(seqs), replay["complete"]) == (100, False)
    while not replay["complete"]:
        replay = await two.ask(2, after=seqs[-1], limit=100)
        seqs += [m["seq"] for m in replay["messages"]]
    assert list(range(11, 231)) == seqs
    await one.say("live", 50004)
    while (await two.read())["seq"] != 231:
        pass


async def test_an_inbox(connect2: Connect2, people: Callable[[int], list[int]]) -> None:
    """An inbox socket gets the messages of all conversations, and its requests name the peer."""
    me, a, b, c = people(4)
    from_a = await connect2(a, me)
    await from_a.say("before", 50005)
    inbox = await connect2(me)
    inbox.inbox = True
    from_b = await connect2(b, me)
    await from_a.say("from a", 50004)
    await inbox.receive(50001, **{"from": str(a), "to": str(me), "content": "from a", "seq": 2})
    await from_b.say("from b", 50004)
    await inbox.receive(50001, **{"from": str(b), "content": "from b", "seq": 1})
    answer = await inbox.say("to a", 50004, to=str(a))
    assert (answer["seq"], answer["to"]) == (3, str(a))
    await from_a.receive(50001, content="to a", seq=3)
    assert (await inbox.say("to c", to=str(c)))["code"] == 50005
    pair_socket = await connect2(me, a)
    await pair_socket.say("from another device", 50004)
    await inbox.receive(50001, **{"from": str(me), "to": str(a), "content": "from another device"})
    for kind, fields in ((2, {}), (3, {}), (4, {"read": 1}), (1, {"content": "x"})):
        refused = await inbox.ask(kind, **fields)
        assert (refused["code"], refused["error"]) == (400, "to: is missing")
    history = await inbox.ask(2, to=str(a))
    assert [m["content"] for m in history["messages"]] == ["before", "from a", "to a", "from another device"]
    assert history["to"] == str(a)
    for unknown in ("0", str(me), "x", "4000000000"):
        assert (await inbox.say("hello?", to=unknown))["code"] == (404 if unknown == "4000000000" else 400)


async def test_a_peer_whose_look_up_breaks(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message that waits for a failed look-up is answered; the next message looks the peer up again."""
    inbox = await connect2(pair[0])

    async def broken(*_: object) -> list[int]:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as broken_users:
        broken_users.setattr(http_server.stores.users, "active", broken)
        for number in range(3):
            await inbox.write(1, to=str(pair[1]), content="hello", id=f"m{number}")
        answers = [await inbox.receive(500) for _ in range(3)]
    assert [answer["id"] for answer in answers] == ["m0", "m1", "m2"]
    await inbox.say("hello", 50005, to=str(pair[1]))


async def test_an_inbox_resumes(connect2: Connect2, people: Callable[[int], list[int]]) -> None:
    """One request resumes several conversations, and the answer names those with more messages."""
    me, a, b = people(3)
    mine = {peer: await connect2(me, peer) for peer in (a, b)}
    theirs = {peer: await connect2(peer, me) for peer in (a, b)}
    for peer in (a, b):
        await introduce(mine[peer], theirs[peer])
    for name in [await theirs[b].write(1, content=str(n)) for n in range(120)]:
        await theirs[b].answer(name)
    inbox = await connect2(me)
    inbox.inbox = True
    replay = await inbox.ask(6, after={str(a): 1, str(b): 2})
    assert [(m["from"], m["seq"]) for m in replay["messages"][:2]] == [(str(a), 2), (str(b), 3)]
    assert (len(replay["messages"]), replay["complete"], replay["more"]) == (100, False, [str(b)])
    await theirs[a].say("live", 50004)
    await inbox.receive(50001, content="live", seq=3)
    for after in (5, {str(a): 99}, {"x": 1}, {str(me): 1}, {str(n + 1): 0 for n in range(10**6, 10**6 + 201)}):
        refused = await inbox.ask(6, after=after)
        assert (refused["code"], refused["error"].partition(": ")[0] in ("after", "seq")) == (400, True)


async def test_a_resume_of_a_socket_that_has_gone(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume whose socket closes while it waits for its turn does not query the database."""
    turns, messages = http_server.history.turns, http_server.stores.messages
    asked: list[object] = []

    async def newest_of(conversations: Sequence[str]) -> dict[str, int]:
        asked.extend(conversations)
        return await type(messages).newest_of(messages, conversations)

    monkeypatch.setattr(messages, "newest_of", newest_of)
    async with AsyncExitStack() as stack:
        for number in range(LONG):
            await stack.enter_async_context(turns.long(-number - 1))
        device = await connect2(*pair)
        await device.write(6, after=0)
        await until(lambda: turns.waiting == 1)
        device.close()
        await until(lambda: turns.waiting == 0)
    assert asked == []
    await (await connect2(*pair)).ask(6, after=0)
    assert asked == [conversation_of(*pair)]


async def test_an_inbox_resume_that_fails_promises_nothing(
    connect2: Connect2, people: Callable[[int], list[int]]
) -> None:
    """If one peer's seq is from the future, nothing is replayed, and new messages of the others are delivered."""
    me, a, b = people(3)
    mine, theirs = await connect2(me, a), await connect2(a, me)
    await introduce(mine, theirs)
    inbox = await connect2(me)
    assert (await inbox.ask(6, after={str(a): 1, str(b): 9}))["code"] == 400
    (socket,) = (each for each in ChatSocket.hub.sockets_of((me,)) if each.peer is None)
    assert not socket.session._client_has  # noqa: SLF001  # later messages have greater seqs, and show nothing of it
    await theirs.say("live", 50004)
    await inbox.receive(50001, seq=3)


async def test_order_on_an_inbox(connect2: Connect2, people: Callable[[int], list[int]]) -> None:
    """Messages to a peer that is looked up first keep their order."""
    me, a = people(2)
    inbox, theirs = await connect2(me), await connect2(a, me)
    await theirs.say("hello", 50004)
    for number in range(50):
        await inbox.write(1, to=str(a), content=str(number))
    for number in range(50):
        await theirs.receive(50001, content=str(number))


async def test_slow_sockets_go_without_typing(connect2: Connect2, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typing and presence are left out while many bytes are unsent, and messages are not."""
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await introduce(one, two)
    monkeypatch.setattr(SocketConnection, "busy", True)
    await one.connection.write_message('{"type":5}')
    await one.say("hi", 50004)
    await two.receive(50001)
    assert await two.silent()


async def test_numbers_from_the_store(connect: Connect, connect2: Connect2, ask: Ask, pair: Pair) -> None:
    """A conversation that no process has in memory continues with the seq of the stored messages."""
    writer = await connect(*pair)
    await writer.say("hi", 50005)
    writer.close()
    await until(lambda: ChatSocket.hub.count == 0)
    one, two = await connect2(*pair), await connect(*pair[::-1])
    await two.send(3)
    await two.receive(50002, "hi")
    await one.receive(50007, read=1)
    two.close()
    later = await connect2(*pair[::-1])
    assert (await later.ask(4, received=0))["read"] == 1
    assert (await ask("GET", f"/conversations?uid={pair[0]}")).data[0]["read"] == 1


async def test_a_clock_that_was_set_back(connect2: Connect2, pair: Pair, clock: Clock) -> None:
    """A message that is stored while the clock is behind gets the time of the message before it."""
    clock.offset = 100
    one = await connect2(*pair)
    first = await one.say("one", 50005)
    one.close()
    await until(lambda: ChatSocket.hub.count == 0)
    clock.offset = 0
    one = await connect2(*pair)
    assert (await one.say("two", 50005))["time"] == first["time"]
