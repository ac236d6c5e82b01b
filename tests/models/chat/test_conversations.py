"""Tests of the states of conversations: there is one for each, and it is kept while it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from models.chat.conversation import SocketKind, Stored
from models.chat.conversations import Conversations, Lease
from models.chat.events import MessageStored
from models.chat.history import History
from models.records import ReadPositions, conversation_of
from storage.mongo.messages import MongoMessages
from tests.support.chats import Make, OtherProcess, make_friends, stored
from tests.support.sockets import until

Pair = tuple[int, int]

PAIR = SocketKind.PAIR


def conversations() -> Conversations:
    return Conversations(lambda one, other: None)


def test_all_users_share_one_state() -> None:
    """Both orders of the two users give one state, which is dropped with its last use."""
    states = conversations()
    reading_lease = states.lease(1, 2)
    assert states.follow(2, 1, PAIR) is reading_lease.conversation is states.get(conversation_of(1, 2))
    states.unfollow(2, 1, PAIR)
    assert len(states) == 1
    reading_lease.close()
    assert len(states) == 0


def test_a_state_is_kept_for_each_kind_of_sockets_of_each_user() -> None:
    """A state is followed until no kind of sockets of either user follows it, however often each was noted."""
    states = conversations()
    followers = [(user, kind) for user in (1, 2) for kind in SocketKind]
    for user, kind in followers * 2:
        assert states.follow(user, 3 - user, kind).followed
    for user, kind in followers:
        (conversation,) = states
        for _ in range(2):
            states.unfollow(user, 3 - user, kind)
    assert (conversation.followed, len(states)) == (False, 0)


def test_a_lease_is_given_back_once() -> None:
    """Closing a lease again does not end another use."""
    states = conversations()
    first, second = states.lease(1, 2), states.lease(1, 2)
    for _ in range(3):
        first.close()
    conversation = second.conversation
    assert conversation.leases == 1
    assert list(states) == [conversation]
    second.close()
    assert (conversation.leases, len(states)) == (0, 0)


def test_who_goes_late_takes_nothing_away_from_those_who_came_since() -> None:
    """Releasing a dropped state does not affect the new state of the same name."""
    states = conversations()
    old = states.lease(1, 2)
    dropped = old.conversation
    old.close()
    new = states.follow(1, 2, PAIR)
    assert new is not dropped
    states.release(dropped)
    old.close()
    assert states.get(conversation_of(1, 2)) is new


def test_a_state_that_only_requests_use_forgets_what_sockets_were_given() -> None:
    """Nothing keeps a state up to date that only requests use, so later sockets begin at the store's head."""
    states = conversations()
    with states.lease(1, 2) as conversation:
        states.follow(1, 2, PAIR)
        states.begin(conversation, 7)
        assert conversation.delivered_seq == 7
        states.unfollow(1, 2, PAIR)
        assert conversation.delivered_seq is None
        states.begin(conversation, 9)
        assert conversation.delivered_seq is None  # there are no sockets
        states.follow(1, 2, PAIR)
        states.begin(conversation, 9)
        assert conversation.delivered_seq == 9


@pytest.mark.parametrize("how", ["positions", "resumes", "unread requests"])
async def test_reading_while_an_inbox_opens(
    make: Make, messages: MongoMessages, pair: Pair, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that overlap each other and the opening of an inbox do not keep later messages from it."""
    me, peer = pair
    here, store, sockets = make(me, cluster=OtherProcess())
    elsewhere, _, _ = make()
    await make_friends(elsewhere, pair)
    history = History(here, store, messages.directory, answer_timeout=5)
    soon = asyncio.get_running_loop().time() + 5
    gates: list[asyncio.Event] = []

    def held_up(call: Any) -> Any:
        """Hold the answers to requests back until the test releases each."""

        async def later(asked: Any) -> Any:
            if len(gates) < 2:
                gates.append(asyncio.Event())
                await gates[-1].wait()
            return await call(asked)

        return later

    with monkeypatch.context() as patch:
        for name in ("head", "newest", "newest_of"):
            patch.setattr(store, name, held_up(getattr(messages, name)), raising=False)

        async def unread() -> None:
            async for _ in history.unread(me, peer, soon):
                pass

        def request(user: int, other: int) -> Any:
            if how == "positions":
                return history.mark(me, peer, ReadPositions(received=3), soon)
            return history.resume(user, {other: 3}, 10, soon) if how == "resumes" else unread()

        requests = [asyncio.ensure_future(request(*users)) for users in (pair, pair[::-1])]
        await until(lambda: len(gates) == 2)
    here.pair_opened(me, None)
    gates[0].set()
    await here.watches(me)
    state = here.conversations.get(conversation_of(*pair))
    assert state is not None
    for gate in gates:
        gate.set()
    await asyncio.gather(*requests)
    assert here.conversations.get(conversation_of(*pair)) is state
    assert isinstance(await elsewhere.send(peer, me, "do you hear me?"), Stored)
    here.arrived(MessageStored((await stored(messages, pair))[-1]))
    await until(lambda: [message.content for message in sockets.delivered] == ["do you hear me?"])
    here.pair_closed(me, None)
    await until(lambda: not len(here.conversations))
    assert (state.leases, state.followed) == (0, False)


@pytest.mark.parametrize("activity", ["a pair socket", "the peer's pair socket", "an answer", "a resume"])
async def test_the_first_message_reaches_an_inbox_before_its_event(
    make: Make, messages: MongoMessages, pair: Pair, activity: str
) -> None:
    """An inbox gets another process's first message, also if a request activates the conversation before the event."""
    me, peer = pair
    here, store, sockets = make(me, cluster=OtherProcess())
    elsewhere, _, _ = make()
    here.pair_opened(me, None)
    await here.watches(me)
    assert isinstance(await elsewhere.send(peer, me, "first"), Stored)
    contents = ["first"]
    if activity == "a pair socket":
        here.pair_opened(me, peer)
    elif activity == "the peer's pair socket":
        here.pair_opened(peer, me)
    elif activity == "a resume":
        history = History(here, store, messages.directory, answer_timeout=5)
        await history.resume(me, {peer: 0}, 10, asyncio.get_running_loop().time() + 5)
    else:
        assert isinstance(await here.send(me, peer, "second"), Stored)
        contents.append("second")
    await until(lambda: len(sockets.delivered) == len(contents))
    here.arrived(MessageStored((await stored(messages, pair))[0]))
    assert [message.content for message in sockets.delivered] == contents
    assert isinstance(await elsewhere.send(peer, me, "third"), Stored)
    here.arrived(MessageStored((await stored(messages, pair))[-1]))
    await until(lambda: [message.content for message in sockets.delivered] == [*contents, "third"])
    here.pair_closed(me, None)


@pytest.mark.parametrize("activity", ["the next event", "a pair socket", "an answer", "a look"])
async def test_an_inbox_that_does_not_know_all_conversations(
    make: Make, messages: MongoMessages, people: Callable[[int], list[int]], activity: str, monkeypatch: Any
) -> None:
    """If the first event of an old conversation is lost, the inbox gets the messages since it opened, and no more."""
    monkeypatch.setattr("models.chat.inboxes.FOLLOWED", 1)
    me, peer, other = people(3)
    here, _, sockets = make(me, cluster=OtherProcess())
    elsewhere, _, _ = make()
    assert isinstance(await elsewhere.send(peer, me, "old"), Stored)
    await until(lambda: not len(elsewhere.conversations))
    now = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() > now + 0.002)  # times of messages are in milliseconds
    assert isinstance(await elsewhere.send(other, me, "newer"), Stored)
    here.pair_opened(me, None)
    await here.watches(me)
    assert isinstance(await elsewhere.send(peer, me, "unheard"), Stored)
    contents = ["unheard"]
    if activity == "a pair socket":
        here.pair_opened(peer, me)
    elif activity == "an answer":
        assert isinstance(await here.send(me, peer, "answer"), Stored)
        contents.append("answer")
    elif activity == "a look":
        here.followed(me, 0)
    else:
        assert isinstance(await elsewhere.send(peer, me, "heard"), Stored)
        contents.append("heard")
        here.arrived(MessageStored((await stored(messages, (me, peer)))[-1]))
    await until(lambda: [message.content for message in sockets.delivered] == contents)
    here.pair_closed(me, None)


async def test_the_first_message_comes_while_an_inbox_looks(
    make: Make, messages: MongoMessages, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inbox gets a first message that is stored while its list of conversations, still without it, is read."""
    me, peer = pair
    here, _, sockets = make(me, cluster=OtherProcess())
    elsewhere, _, _ = make()
    gate, asked, look = asyncio.Event(), asyncio.Event(), messages.directory.conversations

    async def late(*args: Any) -> Any:
        found = await look(*args)
        asked.set()
        await gate.wait()
        return found

    monkeypatch.setattr(messages.directory, "conversations", late)
    here.pair_opened(me, None)
    await asked.wait()
    assert isinstance(await elsewhere.send(peer, me, "first"), Stored)
    answering = asyncio.ensure_future(here.send(me, peer, "second"))
    await until(lambda: len(here.conversations) == 1)
    gate.set()
    assert isinstance(await answering, Stored)
    await until(lambda: [message.content for message in sockets.delivered] == ["first", "second"])
    here.pair_closed(me, None)


def test_a_lease_is_small() -> None:
    """A lease is small, since many requests may read at a time."""
    assert not hasattr(conversations().lease(1, 2), "__dict__")
    assert Lease.__slots__
