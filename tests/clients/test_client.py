"""Tests of the client against the real server: it loses nothing, shows nothing twice, and keeps the order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

import clients.backoff
import clients.connection
from clients.client import Client
from clients.connection import Connection, Frame
from clients.following import Follower
from clients.outbox import Outbox
from clients.server import Peer, Refused, SessionOver
from clients.server import Server as Remote
from models.errors import StorageUnavailable
from server import Server
from storage.embedded.supervisor import Addresses
from tests.clients.conftest import Open, Pair, Through
from tests.clients.device import Device, Proxy
from tests.conftest import Ask, StartServer
from tests.support.processes import external
from tests.support.sockets import until

Friends = tuple[Pair, Proxy]


def contents(device: Device, other: Device, sender: Device) -> list[str]:
    """Return the messages of one sender that a device was given, in order."""
    return [m.content for m in device.given(other) if m.sender == sender.client.user.id]


def gapless(device: Device, other: Device) -> bool:
    seqs = [message.seq for message in device.given(other)]
    return seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_two_users(friends: Friends) -> None:
    """Two users get all messages once, in the same order, and positions, typing and presence."""
    (one, two), _ = friends
    for number in range(20):
        one.say(two, f"one {number}")
        two.say(one, f"two {number}")
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 42)
    assert one.given(two) == two.given(one)
    assert gapless(one, two)
    assert contents(two, one, one) == ["hello", *(f"one {number}" for number in range(20))]
    assert len(one.client.outbox) == 0

    mine, theirs = one.client.conversations[two.client.user.id], two.client.conversations[one.client.user.id]
    last = max(m.seq for m in two.given(one) if m.sender == one.client.user.id)
    await until(lambda: mine.received == last)
    assert (mine.read, theirs.unread) == (0, 21)
    two.client.shown(theirs, 42)
    await until(lambda: mine.read == last)
    assert theirs.unread == 0

    two.client.typing(one.client.user.id)
    await until(lambda: mine.typing_until)
    await until(lambda: mine.online)
    await two.close()
    await until(lambda: not mine.online)


async def test_typing_is_told_once_a_second_at_most(friends: Friends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typing is sent at most once a second, for any number of keys."""
    (one, two), _ = friends
    told: list[Any] = []
    monkeypatch.setattr(Connection, "tell", lambda self, *frame, **fields: told.append(frame))
    for _ in range(100):
        one.client.typing(two.client.user.id)
    assert told == [(5,)]


async def test_a_server_that_is_killed(
    start_server: StartServer, addresses: Addresses, through: Through, device: Open, names: list[str]
) -> None:
    """A server that is killed and restarted during a conversation loses, doubles and reorders nothing."""
    first = start_server(*external(addresses))
    proxy = await through(first.ready())
    one, two = await device(proxy.port, names[0]), await device(proxy.port, names[1])
    await one.talk(two)
    await two.talk(one)
    two.say(one, "hello")
    await until(lambda: len(one.given(two)) == 1)
    for number in range(150):
        one.say(two, f"{number}")
        two.say(one, f"{number}")
    await until(lambda: len(one.given(two)) > 60)
    first.signal(signal.SIGKILL)
    first.failed()
    assert len(one.client.outbox) and len(two.client.outbox)
    one.say(two, "while it was away")
    await until(lambda: not one.client.status.connected and not two.client.status.connected)
    second = start_server(*external(addresses))
    proxy.target = second.ready()

    await until(lambda: not len(one.client.outbox) and not len(two.client.outbox))
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 302)
    assert one.given(two) == two.given(one)
    assert [message.seq for message in one.given(two)] == list(range(1, 303))
    assert contents(one, two, one) == [*map(str, range(150)), "while it was away"]
    assert contents(one, two, two) == ["hello", *map(str, range(150))]


async def test_a_cut_connection(friends: Friends) -> None:
    """Messages during a cut, in both directions, come with the next connection."""
    (one, two), proxy = friends
    for number in range(5):
        target, proxy.target = proxy.target, 1  # a port without a listener
        proxy.cut()
        await until(lambda: not one.client.status.connected)
        two.say(one, f"two {number}")
        one.say(two, f"one {number}")
        await until(lambda: not len(two.client.outbox))
        proxy.target = target
        await until(lambda: not len(one.client.outbox))
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 12)
    assert one.given(two) == two.given(one)
    assert gapless(one, two)
    assert contents(two, one, one) == ["hello", *(f"one {number}" for number in range(5))]
    looking = [task for task in asyncio.all_tasks() if "_look" in repr(task.get_coro())]
    assert len(looking) == 2  # one for each client, not for each connection


async def test_cut_while_messages_are_on_their_way(friends: Friends) -> None:
    """After lost acknowledgements, messages are resent, and each is stored and given once."""
    (one, two), proxy = friends
    for number in range(100):
        one.say(two, f"{number}")
    for share in (20, 40, 60, 80):
        await until(lambda share=share: len(two.given(one)) > share)
        proxy.cut()
    await until(lambda: not len(one.client.outbox))
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 102)
    assert one.given(two) == two.given(one)
    assert contents(two, one, one) == ["hello", *map(str, range(100))]


async def test_an_acknowledgement_that_is_lost(friends: Friends) -> None:
    """The replay shows that the message is stored: it is not resent, and never shown twice."""
    (one, two), proxy = friends
    proxy.answering.clear()
    pending = one.say(two, "heard")
    await until(lambda: len(two.given(one)) == 3)
    assert list(one.client.outbox) == [pending]
    proxy.cut()
    proxy.answering.set()
    await until(lambda: len(one.given(two)) == 3)
    assert len(one.client.outbox) == 0
    assert one.shown_twice == []
    assert one.outcomes()[-1] == pending


async def test_more_was_missed_than_one_answer_holds(friends: Friends) -> None:
    """History fills the rest, while more messages come."""
    (one, two), proxy = friends
    target, proxy.target = proxy.target, 1
    proxy.cut()
    for number in range(250):
        two.say(one, f"{number}")
    await until(lambda: len(two.client.outbox) == 0)
    proxy.target = target
    for number in range(250, 300):
        two.say(one, f"{number}")
    await until(lambda: len(one.given(two)) == 302)
    assert gapless(one, two)
    assert contents(one, two, two) == ["hello yourself", *map(str, range(300))]


async def test_a_frame_that_is_lost(friends: Friends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap between live messages is filled from history."""
    (one, two), _ = friends
    live, lost = Follower.live, []

    def lossy(follower: Follower, peer: int, message: Any) -> None:
        if (peer, message.content) == (two.client.user.id, "lost"):
            lost.append(message)
        else:
            live(follower, peer, message)

    monkeypatch.setattr(Follower, "live", lossy)
    for content in ("before", "lost", "after"):
        two.say(one, content)
    await until(lambda: len(one.given(two)) == 5)
    assert contents(one, two, two)[1:] == ["before", "lost", "after"]
    assert len(lost) == 1


async def test_a_server_that_falls_silent(friends: Friends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer in time, the connection counts as dead, and the message is sent over the next one."""
    (one, two), proxy = friends
    monkeypatch.setattr(clients.connection, "ANSWER_WITHIN", 0.2)
    proxy.flowing.clear()
    one.say(two, "into the silence")
    await until(lambda: any(status.reason == "the server is silent" for status in one.states()))
    assert len(one.client.outbox) == 1
    monkeypatch.undo()
    proxy.flowing.set()
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 3)
    assert contents(two, one, one) == ["hello", "into the silence"]


async def test_the_limit_rule(http_server: Server, device: Open, names: list[str]) -> None:
    """A refused message is kept with the reason; it is sent after an answer, or discarded."""
    one, two = await device(http_server.port, names[0]), await device(http_server.port, names[1])
    await one.talk(two)
    for number in range(5):
        one.say(two, f"{number}")
    await until(lambda: len(one.outcomes()) == 5)
    refused = list(one.client.outbox)
    assert [pending.content for pending in refused] == ["3", "4"]
    assert all("three messages" in pending.failed for pending in refused)
    one.client.discard(refused[1])
    await until(lambda: len(two.given(one)) == 3)
    two.say(one, "an answer")
    await until(lambda: len(one.given(two)) == 4)
    one.client.retry(refused[0])
    await until(lambda: len(two.given(one)) == 5)
    assert contents(two, one, one) == ["0", "1", "2", "3"]
    assert len(one.client.outbox) == 0


async def test_a_block_and_a_stranger_to_all(friends: Friends, ask: Ask, names: list[str]) -> None:
    """403 and 404 fail at once, and a user who does not exist cannot be found."""
    (one, two), _ = friends
    await ask("PUT", f"/user/blocks/{one.client.user.id}?uid={two.client.user.id}", body="")
    one.say(two, "refused")
    one.client.send(2**31 - 2, "nobody")
    await one.client.refresh()
    await until(lambda: len([each for each in one.client.outbox if each.failed]) == 2)
    assert sorted(each.failed for each in one.client.outbox) == [
        "refused: one of you has blocked the other",
        "refused: there is no such user",
    ]
    with pytest.raises(Refused, match="no user of that name"):
        await one.client.find("nobody of this name")
    with pytest.raises(Refused, match="that is you"):
        await one.client.find(names[0])


async def test_what_cannot_be_sent_is_not_kept(friends: Friends) -> None:
    """A message that is too long, or not text, is not kept."""
    (one, two), _ = friends
    for content in ("x" * 8193, "\udc80"):
        with pytest.raises(Refused):
            one.say(two, content)
    assert len(one.client.outbox) == 0
    one.say(two, "\U0001f600" * 8192)  # the longest message, in characters and in bytes
    await until(lambda: len(two.given(one)) == 3)


async def test_a_database_that_is_away(friends: Friends, http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 40001, the message is resent with its id before the next ones."""
    (one, two), _ = friends
    insert, failures = http_server.stores.messages.insert, iter(range(3))

    async def failing(*given: Any) -> Any:
        stored = await insert(*given)
        if next(failures, None) is not None:
            raise StorageUnavailable("mongodb", "the answer got lost")
        return stored

    monkeypatch.setattr(http_server.stores.messages, "insert", lambda *given: asyncio.ensure_future(failing(*given)))
    sent = [one.say(two, f"{number}") for number in range(4)]
    await until(lambda: len(one.given(two)) == len(two.given(one)) == 6)
    assert next(failures, None) is None
    assert contents(two, one, one) == ["hello", "0", "1", "2", "3"]
    assert [message.id for message in two.given(one)[2:]] == [pending.id for pending in sent]


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> list[str]:
    return getattr(request, "param", [])


@pytest.mark.parametrize("flags", [["--answer-timeout=0.3"]], indirect=True)
async def test_an_acknowledgement_after_40001(
    friends: Friends, http_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late acknowledgement is accepted, and nothing is resent."""
    (one, two), _ = friends
    monkeypatch.setattr(clients.backoff, "BASE", 1000.0)
    insert, stored = http_server.stores.messages.insert, asyncio.Event()

    async def late(*given: Any) -> Any:
        await stored.wait()
        return await insert(*given)

    monkeypatch.setattr(http_server.stores.messages, "insert", lambda *given: asyncio.ensure_future(late(*given)))
    answered: list[int] = []
    ask = Connection.ask

    def noting(connection: Connection, kind: int, then: Callable[[Frame], None], **fields: Any) -> None:
        def noted(frame: Frame) -> None:
            then(frame)
            answered.append(frame["code"])

        ask(connection, kind, noted, **fields)

    monkeypatch.setattr(Connection, "ask", noting)
    one.say(two, "late")
    await until(lambda: 40001 in answered)
    stored.set()
    await until(lambda: not len(one.client.outbox))
    await until(lambda: contents(two, one, one) == ["hello", "late"])


@pytest.mark.parametrize("flags", [["--request-rate=20", "--request-burst=30"]], indirect=True)
async def test_too_fast(friends: Friends) -> None:
    """After 429 the client waits, and all messages are stored in their order."""
    (one, two), _ = friends
    for number in range(60):
        one.say(two, f"{number}")
    await until(lambda: len(two.given(one)) == 62)
    assert contents(two, one, one) == ["hello", *map(str, range(60))]
    assert not any(each.failed for each in one.outcomes())


async def test_a_stranger_writes(friends: Friends, http_server: Server, device: Open, names: list[str]) -> None:
    """A stranger's messages are given from the first one on, to connected and disconnected clients, with the name."""
    (one, two), proxy = friends
    three = await device(http_server.port, names[2])
    await three.talk(two)
    three.say(two, "hello two")
    await until(lambda: contents(two, three, three) == ["hello two"])
    assert two.client.conversations[three.client.user.id].peer.name == names[2]
    target, proxy.target = proxy.target, 1
    proxy.cut()
    await three.talk(one)
    for number in range(3):
        three.say(one, f"{number}")
    await until(lambda: len(three.client.outbox) == 0)
    proxy.target = target
    await until(lambda: contents(one, three, three) == ["0", "1", "2"])
    assert one.client.conversations[three.client.user.id].unread == 3


async def test_a_stranger_whom_the_list_does_not_have_yet(
    friends: Friends, http_server: Server, device: Open, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The messages of a stranger whom the list does not have yet are given all the same."""
    (one, _), _ = friends
    three, get = await device(http_server.port, names[2]), one.client.server.get

    async def lagging(path: str, checked: Any, **query: Any) -> Any:
        return [] if path == "/conversations" else await get(path, checked, **query)

    monkeypatch.setattr(one.client.server, "get", lagging)
    await three.talk(one)
    three.say(one, "hello")
    await until(lambda: contents(one, three, three) == ["hello"])


async def test_a_second_device(friends: Friends, http_server: Server, device: Open, names: list[str]) -> None:
    """A second device gets the list and the newest page, then older pages, and the first device's messages."""
    (one, two), _ = friends
    for number in range(120):
        one.say(two, f"{number}")
    await until(lambda: len(one.given(two)) == 122)
    again = await device(http_server.port, names[1])
    listed = again.client.conversations[one.client.user.id]
    assert (listed.unread, listed.last.content if listed.last else "") == (101, "119")
    conversation = await again.talk(one)
    assert [m.seq for m in conversation.messages] == list(range(73, 123))
    two.say(one, "from the first")
    await until(lambda: len(conversation.messages) == 51)
    await again.client.older(conversation)
    await again.client.older(conversation)
    assert [m.seq for m in conversation.messages] == list(range(1, 124))
    assert conversation.beginning
    again.client.shown(conversation, 123)
    assert conversation.unread == 0


async def test_history_that_comes_too_late(
    friends: Friends, http_server: Server, device: Open, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the oldest message has been dropped meanwhile, a page of history is not added, and leaves no gap."""
    (one, two), _ = friends
    for number in range(60):
        one.say(two, f"{number}")
    await until(lambda: len(one.given(two)) == 62)
    again = await device(http_server.port, names[1])
    conversation, get = await again.talk(one), again.client.server.get

    async def slow(path: str, checked: Any, **query: Any) -> Any:
        page = await get(path, checked, **query)
        del conversation.messages[0]
        return page

    monkeypatch.setattr(again.client.server, "get", slow)
    await again.client.older(conversation)
    assert [m.seq for m in conversation.messages] == list(range(14, 63))


async def test_unread_messages_are_known_before_any_is_shown(
    http_server: Server, device: Open, names: list[str]
) -> None:
    """A conversation that is opened before the client is connected has its number of unread messages."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    await one.talk(two)
    one.say(two, "mine")
    await until(lambda: two.given(one))
    for number in range(5):
        two.say(one, f"{number}")
    await until(lambda: len(one.given(two)) == 6)
    one.running.cancel()
    again = Client(one.client.server, one.client.user, one.client.outbox, lambda event: None, max_content=8192)
    assert (await again.open(two.client.user)).unread == 5


async def test_a_message_from_an_older_client(http_server: Server, device: Open, names: list[str]) -> None:
    """Messages in the outbox are sent without opening the conversation."""
    one, two = await device(http_server.port, names[0]), await device(http_server.port, names[1])
    one.running.cancel()
    one.client.outbox.add(two.client.user.id, "left behind")
    again = await device(http_server.port, names[0])
    await until(lambda: len(two.given(again)) == 1)
    await until(lambda: len(again.client.outbox) == 0)
    assert len(again.given(two)) == 1


async def test_a_server_that_knows_less(friends: Friends) -> None:
    """A server restored from an old copy refuses to resume; the client then goes on from what there is."""
    (one, two), proxy = friends
    one.client.conversations[two.client.user.id].timeline.held = 50
    proxy.cut()
    await until(lambda: one.client.conversations[two.client.user.id].timeline.held == 2)
    two.say(one, "after that")
    await until(lambda: contents(one, two, two)[-1] == "after that")
    assert [m.seq for m in one.given(two)] == [1, 2, 3]


@pytest.mark.parametrize("path", ["/user/logout", "/user/logout/everywhere"])
async def test_signed_out(path: str, http_server: Server, ask: Ask, tmp_path: Any, token_of: Any, pair: Any) -> None:
    """The session ends with a clear error, by closing the socket and at the upgrade."""
    token = await token_of(pair[0])
    remote = Remote(f"http://127.0.0.1:{http_server.port}", token=token)
    device = Device(Peer(pair[0], "x", ""), remote, Outbox(tmp_path / "o" / "x", lambda: 1.0), 10)
    await until(lambda: device.client.status.connected)
    assert (await ask("POST", path, token=token, body="")).status == 200
    with pytest.raises(SessionOver, match="signed out"):
        await device.running
    with pytest.raises(SessionOver, match="no longer good"):
        await device.client.run()
    await device.close()
