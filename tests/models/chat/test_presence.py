"""Tests of presence: acquaintances are told of changes, whichever process sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from handlers.websocket.handler import ChatSocket
from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversation import SocketKind
from models.chat.presence import Presence
from models.errors import StorageUnavailable
from models.records import conversation_of
from server import Server
from tests.conftest import Ask, Connect, Connect2
from tests.support.chats import FailingBlocks, Friends, GatedBlocks, NoOtherProcess, Presences, Recorder, Watching
from tests.support.sockets import Client, Client2, until

Pair = tuple[int, int]


async def meet(connect2: Connect2, one: int, other: int) -> None:
    """Let both write to each other, and disconnect."""
    a, b = await connect2(one, other), await connect2(other, one)
    await a.say("hello", 50004)
    await b.say("hello", 50004)
    before = ChatSocket.hub.count - 2
    a.close()
    b.close()
    await until(lambda: ChatSocket.hub.count == before)


async def test_coming_and_going(connect2: Connect2, connect: Connect, pair: Pair) -> None:
    """The first socket and the last one change presence; other devices do not."""
    await meet(connect2, *pair)
    one = await connect2(*pair)
    phone = await connect(*pair[::-1])  # in either protocol version
    frame = await one.receive(50009, online=True)
    assert frame["from"] == str(pair[1])
    laptop = await connect2(*pair[::-1])
    phone.close()
    await until(lambda: ChatSocket.hub.count == 2)
    assert await one.silent()
    await one.say("still there?", 50004)
    await laptop.receive(50001)
    laptop.close()
    await one.receive(50009, online=False)


async def test_a_new_socket_before_the_old_one_closes(connect2: Connect2, pair: Pair) -> None:
    """Reconnecting does not change presence, and the user stays reachable."""
    await meet(connect2, *pair)
    one = await connect2(*pair)
    old = await connect2(*pair[::-1])
    await one.receive(50009, online=True)
    new = await connect2(*pair[::-1])
    old.close()
    await until(lambda: ChatSocket.hub.count == 2)
    await one.say("hi", 50004)
    await new.receive(50001)
    assert await one.silent()


async def test_a_page_that_is_loaded_again(
    connect2: Connect2,
    opened: list[Client | Client2],
    http_server: Server,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reload does not change presence: the new socket opens before the change is sent."""
    await meet(connect2, *pair)
    two, one = await connect2(*pair[::-1]), await connect2(*pair)
    monkeypatch.setattr(http_server.chat.presence, "_offline_after", 3600.0)
    two.close()
    await until(lambda: ChatSocket.hub.count == 1)
    opened.append(await Client2.open(http_server.port, *pair[::-1]))
    assert await one.silent()


async def test_only_to_those_who_have_talked(connect2: Connect2, pair: Pair) -> None:
    """A stranger who got no answer is told nothing; after the answer, everything."""
    one = await connect2(*pair)
    await one.say("hello?", 50005)
    two = await connect2(*pair[::-1])
    two.close()
    await until(lambda: ChatSocket.hub.count == 1)
    assert await one.silent()
    two = await connect2(*pair[::-1])
    await two.say("hello", 50004)
    await one.receive(50001)
    two.close()
    await one.receive(50009, online=False)


async def test_an_inbox_is_told_of_all(connect2: Connect2, ask: Ask, people: Callable[[int], list[int]]) -> None:
    """An inbox is told of all of its user's acquaintances."""
    me, a, b, stranger = people(4)
    for peer in (a, b):
        await meet(connect2, me, peer)
    inbox = await connect2(me)
    await ask("GET", f"/conversations?uid={me}")  # changes from here on are told
    there = await connect2(a, stranger)
    await inbox.receive(50009, online=True, **{"from": str(a)})
    await connect2(stranger, a)
    await connect2(b)
    await inbox.receive(50009, online=True, **{"from": str(b)})
    there.close()
    await inbox.receive(50009, online=False, **{"from": str(a)})


@pytest.mark.parametrize("comes", [True, False])
async def test_a_list_is_no_older_than_what_its_inbox_is_told(
    connect2: Connect2, ask: Ask, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    """A change while an inbox reads its conversations is in the list that is made then."""
    me, a = pair
    await meet(connect2, me, a)
    there = None if comes else await connect2(a, me)
    directory, asked, gate = http_server.stores.messages.directory, [], asyncio.Event()
    conversations = directory.conversations

    async def late(*arguments: Any) -> Any:
        by_the_inbox = not asked
        asked.append(arguments)
        found = await conversations(*arguments)
        if by_the_inbox:
            await gate.wait()
        return found

    monkeypatch.setattr(directory, "conversations", late)
    inbox = await connect2(me)
    await until(lambda: asked)
    listing = asyncio.ensure_future(ask("GET", f"/conversations?uid={me}"))
    await until(lambda: len(asked) == 2)
    if there is None:
        there = await connect2(a, me)
    else:
        there.close()
        await until(lambda: ChatSocket.hub.count == 1)
    gate.set()
    (entry,) = (await listing).data
    assert entry["online"] == comes
    assert await inbox.silent()


async def test_what_could_not_be_told_is_told_later(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is sent later if it was unknown for a moment whether the two are acquainted."""
    await meet(connect2, *pair)
    monkeypatch.setattr("models.chat.acquaintances.KNOWN", 1)  # the next pair replaces all others
    await http_server.chat.acquaintances.introduce(conversation_of(10**9, 1))
    one = await connect2(*pair)
    asked = []

    async def away(name: str) -> bool:
        asked.append(name)
        raise StorageUnavailable("mongodb", "away")

    with monkeypatch.context() as patch:
        patch.setattr(http_server.stores.messages.directory, "mutual", away)
        await connect2(*pair[::-1])
        await until(lambda: asked)
    http_server.chat.presence.look_at_all()
    await one.receive(50009, online=True)


async def test_nothing_is_kept(connect2: Connect2, http_server: Server, pair: Pair) -> None:
    """Nothing is kept once all sockets are closed."""
    await meet(connect2, *pair)
    presence = http_server.chat.presence
    await until(lambda: presence.idle)
    assert not presence.watched


async def test_a_socket_that_is_not_known_yet(
    connect2: Connect2, http_server: Server, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whose socket has just opened in another process is not shown as offline."""
    await meet(connect2, *pair)
    one = await connect2(*pair)
    await connect2(*pair[::-1])
    await one.receive(50009, online=True)
    answers = [{pair[1]}, set()]

    async def online(users: list[int]) -> set[int]:
        return answers.pop() if len(answers) > 1 else answers[0]

    monkeypatch.setattr(http_server.chat.presence, "online", online)
    http_server.chat.presence.look(pair[1])
    await until(lambda: http_server.chat.presence.idle)
    assert await one.silent()


async def test_a_user_is_watched_for_each_kind_of_sockets() -> None:
    """A user is watched until no kind of the watcher's sockets watches, however often each was noted."""
    cluster, sockets = Watching(), Recorder()
    blocks = Blocks(GatedBlocks(), sockets, cluster, lambda *_: None)
    presence = Presence(sockets, cluster, Acquaintances(Friends()), blocks, offline_after=0)
    for kind in (*SocketKind, *SocketKind):
        presence.watch(1, 2, kind)
    for kind in SocketKind:
        assert (list(presence.watched), cluster.watched) == ([2], [2])
        presence.unwatch(1, 2, kind)
        presence.unwatch(1, 2, kind)
    assert (list(presence.watched), cluster.watched) == ([], [])
    await presence.close()


async def test_a_block_that_comes_during_a_look() -> None:
    """A block that changes while the blocks are read is noticed by the look that follows."""
    store, sockets = FailingBlocks(), Presences(2)
    cluster = NoOtherProcess()
    blocks = Blocks(store, sockets, cluster, lambda *_: None)
    presence = Presence(sockets, cluster, Acquaintances(Friends()), blocks, offline_after=0)
    presence.watch(1, 2, SocketKind.PAIR)  # the peer is online
    store.gate.clear()
    presence.doubt(1, 2)
    await until(lambda: store.asked)
    await store.block(2, 1)
    presence.doubt(1, 2)
    store.gate.set()
    await until(lambda: sockets.told == [(1, 2, False)])
    store.failures = 1
    await store.unblock(2, 1)
    presence.doubt(1, 2)
    await until(lambda: not store.failures)
    presence.look(2)
    await until(lambda: sockets.told == [(1, 2, False), (1, 2, True)])
    await presence.close()
