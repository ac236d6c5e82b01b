"""Tests of the chat's methods for sockets and other processes. The pipeline's tests are in test_pipeline.py."""

from __future__ import annotations

import asyncio

import pytest

from common.tasks import end
from models.chat.conversation import Stored
from models.records import conversation_of
from tests.support.chats import Make, OtherProcess, make_friends
from tests.support.sockets import until


async def test_nothing_is_kept_of_an_unused_conversation(make: Make, pair: tuple[int, int]) -> None:
    """A state lives as long as its sockets and pending messages."""
    chat, _, _ = make()
    chat.pair_opened(*pair)
    await chat.send(*pair, "hi")
    await until(lambda: next(iter(chat.conversations)).run is None)
    assert len(chat.conversations) == 1
    chat.pair_closed(*pair)
    assert not len(chat.conversations)


async def test_closing_leaves_nothing_running(
    make: Make, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look-ups in progress are cancelled when the server ends, before its databases are closed."""
    chat, store, _ = make()

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "newest", never, raising=False)
    monkeypatch.setattr(chat.presence, "online", never)
    chat.pair_opened(*pair)
    chat.pair_watched(*pair)
    conversation = chat.conversations.get(conversation_of(*pair))
    chat.delivery.schedule_catch_up(conversation)
    await asyncio.sleep(0)
    assert conversation.catch_up_task is not None
    assert not chat.presence.idle
    await chat.close()
    assert conversation.catch_up_task is None
    assert chat.presence.idle


async def test_nothing_falls_between_a_replay_and_what_is_live(make: Make, pair: tuple[int, int]) -> None:
    """A message that another process stores after the replay was read is delivered, also if its event is lost."""
    here, _, sockets = make(pair[1])
    elsewhere, _, _ = make()
    await make_friends(elsewhere, pair)
    here.pair_opened(pair[1], pair[0])
    await here.follow(pair[1], [pair[0]])
    assert isinstance(await elsewhere.send(*pair, "unheard"), Stored)
    conversation = here.conversations.get(conversation_of(*pair))
    here.delivery.schedule_catch_up(conversation)
    await until(lambda: [m.content for m in sockets.delivered] == ["unheard"])
    here.pair_closed(pair[1], pair[0])


async def test_what_is_stored_before_the_subscription_stands(make: Make, pair: tuple[int, int]) -> None:
    """A message that another process stores before this one's subscription begins is found when it begins."""
    chat, _, sockets = make(pair[0], cluster=OtherProcess())
    chat.pair_opened(*pair)
    conversation = chat.conversations.get(conversation_of(*pair))
    await until(lambda: conversation.delivered_seq == 0)
    other, _, _ = make()
    assert isinstance(await other.send(pair[1], pair[0], "hi"), Stored)
    chat.followed(*pair)
    await until(lambda: sockets.delivered)
    chat.pair_closed(*pair)


async def test_a_sweep_looks_at_everything_one_after_the_other(
    make: Make, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep checks conversations with sockets, inboxes and watched users, one after the other."""
    chat, _, _ = make(pair[0])
    me, peer = pair
    chat.pair_opened(me, peer)
    chat.pair_watched(me, peer)
    chat.pair_opened(me, None)
    looks: list[object] = []
    monkeypatch.setattr(chat.delivery, "schedule_catch_up", lambda conversation: looks.append(conversation.name))
    monkeypatch.setattr(chat.inboxes, "look", lambda user: looks.append(("inbox", user)))
    monkeypatch.setattr(chat.presence, "look", lambda user: looks.append(("presence", user)))
    seen: list[int] = []

    async def one_after_the_other(pause: float) -> None:
        assert pause >= 0.005
        seen.append(len(looks))
        await pausing(0)

    pausing = asyncio.sleep
    monkeypatch.setattr("models.chat.service.asyncio.sleep", one_after_the_other)
    task = asyncio.ensure_future(chat.sweep(0.001))
    while len(seen) < 5:
        await pausing(0)
    await end(task)
    monkeypatch.undo()
    assert looks[:3] == [conversation_of(*pair), ("inbox", me), ("presence", peer)]
    assert seen[:5] == [0, 1, 2, 3, 3]
    chat.pair_unwatched(me, peer)
    for peer_or_all in (peer, None):
        chat.pair_closed(me, peer_or_all)
    await chat.close()
