"""Tests of blocks: while one of two has blocked the other, nothing passes between them."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.websocket.handler import ChatSocket
from server import Server
from tests.conftest import Ask, Connect, Connect2
from tests.support.sockets import until

Pair = tuple[int, int]


async def block(ask: Ask, user: int, peer: int, method: str = "PUT") -> None:
    assert (await ask(method, f"/user/blocks/{peer}?uid={user}", body={} if method == "PUT" else None)).status == 200


async def befriend(connect2: Connect2, pair: Pair) -> tuple[Any, Any]:
    one, two = await connect2(*pair), await connect2(*pair[::-1])
    await one.say("hello", 50004)
    await two.receive(50001)
    await two.say("hello", 50004)
    await one.receive(50001)
    return one, two


async def slip_through(sender: Any, http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store a message as a process does that has not learned of the block yet."""

    async def not_heard(*_: object) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(http_server.chat.blocks, "require_open", not_heard)
        await sender.say("slipped through", 50005)


async def test_a_blocked_sender(ask: Ask, connect: Connect, connect2: Connect2, pair: Pair) -> None:
    """A blocked sender gets 403 in both protocols, on open and new sockets; nothing is stored or counted."""
    one, two = await befriend(connect2, pair)
    await block(ask, pair[1], pair[0])
    answer = await one.say("are you there?", 403)
    assert "seq" not in answer
    old = await connect(*pair)
    await old.say("and now?", 403)
    inbox = await connect2(pair[0])
    await inbox.say("or here?", 403, to=str(pair[1]))
    assert len((await two.ask(2))["messages"]) == 2
    await two.say("me neither", 403)


async def test_a_repeat_of_what_was_stored(ask: Ask, connect2: Connect2, pair: Pair) -> None:
    """A resend is acknowledged as before the block, and does not show the peer's presence."""
    one, _ = await befriend(connect2, pair)
    first = await one.say("stored before", 50004, id="again")
    await block(ask, pair[1], pair[0])
    repeat = await one.say("stored before", 50005, id="again")
    assert (repeat["seq"], repeat["dup"]) == (first["seq"], True)


async def test_lifting_a_block(ask: Ask, connect2: Connect2, pair: Pair) -> None:
    """Lifting a block lets both chat again; lifting another user's block does not."""
    one, two = await befriend(connect2, pair)
    await block(ask, pair[1], pair[0])
    await block(ask, *pair, method="DELETE")  # there is no block in this direction
    await one.say("no", 403)
    await block(ask, pair[1], pair[0], method="DELETE")
    await one.say("yes", 50004)
    two.unread.clear()
    assert [message["content"] for message in (await two.ask(6, after=2))["messages"]] == ["yes"]


async def test_typing_and_positions(ask: Ask, connect2: Connect2, pair: Pair) -> None:
    """Typing and positions do not pass in either direction."""
    one, two = await befriend(connect2, pair)
    await block(ask, pair[1], pair[0])
    for client in (one, two):
        await client.receive(50009, online=False)
    for client in (one, two):
        await client.write(5)
        await client.ask(4, read=2)
    assert await one.silent()
    assert await two.silent()


async def test_presence(ask: Ask, connect2: Connect2, pair: Pair) -> None:
    """The blocked user is told that the peer went offline, and nothing after that."""
    one, two = await befriend(connect2, pair)
    listed = (await ask("GET", f"/conversations?uid={pair[0]}")).data[0]
    assert (listed["online"], listed["blocked"]) == (True, False)
    await two.ask(4, read=1)
    await one.receive(50007)
    await block(ask, pair[1], pair[0])
    await one.receive(50009, online=False)
    listed = (await ask("GET", f"/conversations?uid={pair[0]}")).data[0]
    assert (listed["online"], listed["blocked"], listed["read"], listed["received"]) == (False, False, 0, 0)
    listed = (await ask("GET", f"/conversations?uid={pair[1]}")).data[0]
    assert (listed["online"], listed["blocked"]) == (False, True)
    again = await connect2(*pair[::-1])
    two.close()
    assert await one.silent()
    await block(ask, pair[1], pair[0], method="DELETE")
    await one.receive(50009, online=True)
    again.close()


async def test_what_slipped_through(
    ask: Ask, connect: Connect, connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that a process without knowledge of the block stores is hidden from the user who blocked.

    It is hidden live, in history, on resuming and in the list. When the block is lifted, all of it is shown, in order.
    """
    one, two = await befriend(connect2, pair)
    blocker_old = await connect(*pair[::-1])
    await block(ask, pair[1], pair[0])
    await two.receive(50009, online=False)
    await slip_through(one, http_server, monkeypatch)
    assert await two.silent()
    page = (await two.ask(2))["messages"]
    assert [message["seq"] for message in page] == [1, 2]
    assert (await two.ask(6, after=2))["messages"] == []
    assert (await two.ask(3))["messages"][-1]["content"] == "hello"
    await blocker_old.send(2)
    assert [await blocker_old.receive(50002) for _ in range(2)] == ["hello", "hello"]
    listed = (await ask("GET", f"/conversations?uid={pair[1]}")).data[0]
    assert (listed["last"]["seq"], listed["unread"]) == (2, 1)
    exported = (await ask("GET", f"/user/export?uid={pair[1]}")).body
    assert b"slipped" not in exported
    assert (await one.ask(6, after=2))["messages"][0]["content"] == "slipped through"  # the sender's own
    await block(ask, pair[1], pair[0], method="DELETE")
    assert await blocker_old.closed() == 4008  # so that the client resumes
    later = await connect2(*pair[::-1])
    assert [message["content"] for message in (await later.ask(6, after=2))["messages"]] == ["slipped through"]


async def test_a_socket_that_opens_during_a_block(
    connect2: Connect2, ask: Ask, pair: Pair, http_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that opens during a block resumes when that is lifted if messages were hidden; else it stays open."""
    one, two = await befriend(connect2, pair)
    await block(ask, pair[1], pair[0])
    await two.receive(50009, online=False)
    await slip_through(one, http_server, monkeypatch)
    two.close()
    await until(lambda: ChatSocket.hub.count == 1)
    opened = await connect2(*pair[::-1])
    assert (await opened.ask(6, after=2))["messages"] == []
    await block(ask, pair[1], pair[0], method="DELETE")
    assert await opened.connection.read_message() is None
    assert opened.connection.close_code == 4008
    stays = await connect2(*pair[::-1])
    assert [message["content"] for message in (await stays.ask(6, after=2))["messages"]] == ["slipped through"]
    await block(ask, pair[1], pair[0])
    await block(ask, pair[1], pair[0], method="DELETE")
    await one.write(1, content="all is well", id="w")
    while (frame := await stays.read())["code"] == 50009:  # presence: offline, and online again
        pass
    assert frame["content"] == "all is well"


async def test_the_list(ask: Ask, connect2: Connect2, pair: Pair, people: Any) -> None:
    """The list has each blocked user once, for the caller only, with names of those who share a conversation."""
    other, writer = people(2)
    await (await connect2(*pair)).say("hello")
    await (await connect2(writer, pair[0])).say("hello")
    for peer in (pair[1], other, writer, pair[1], 4_000_000_000, 2**63 - 1):
        await block(ask, pair[0], peer)
    listed = (await ask("GET", f"/user/blocks?uid={pair[0]}")).data
    assert sorted([pair[1], other, writer, 4_000_000_000, 2**63 - 1]) == [entry["id"] for entry in listed]
    assert [entry["id"] for entry in listed if "user_name" in entry] == sorted([pair[1], writer])
    assert "email" not in listed[0]
    assert (await ask("GET", f"/user/blocks?uid={pair[1]}")).data == []


@pytest.mark.parametrize("flags", [["--max-blocks=2"]])
async def test_bounds(ask: Ask, pair: Pair, people: Any) -> None:
    """Users can block neither themselves nor more than the limit; a block that exists can be repeated."""
    mine = f"?uid={pair[0]}"
    for path, status in (
        (f"/user/blocks/{pair[0]}{mine}", 400),
        (f"/user/blocks/x{mine}", 400),
    ):
        assert (await ask("PUT", path, body={})).status == status
    first, second, third = people(3)
    for peer, status in ((first, 200), (second, 200), (third, 403), (second, 200)):
        assert (await ask("PUT", f"/user/blocks/{peer}{mine}", body={})).status == status


async def test_a_block_does_not_tell_who_exists(ask: Ask, pair: Pair) -> None:
    """Blocking an id without an account is answered as with one."""
    answers = []
    for peer in (pair[1], 4_000_000_000, 2**63 - 1):
        for method in ("PUT", "DELETE"):
            answer = await ask(method, f"/user/blocks/{peer}?uid={pair[0]}", body={} if method == "PUT" else None)
            answers.append((answer.status, answer.body))
    assert len(set(answers)) == 1


async def test_without_any_conversation(ask: Ask, connect2: Connect2, pair: Pair) -> None:
    """A user who never wrote can be blocked in advance, and no conversation is listed for it."""
    await block(ask, pair[1], pair[0])
    one = await connect2(*pair)
    await one.say("hi", 403)
    assert (await ask("GET", f"/conversations?uid={pair[1]}")).data == []
