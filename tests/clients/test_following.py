"""Tests of following conversations, with a fake connection that answers as a test tells it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

import clients.backoff
from clients.connection import Frame
from clients.conversation import Conversation
from clients.following import Follower
from clients.server import Peer
from clients.timeline import Message
from tests.support.sockets import until

ME = 1


class Recorder:
    """A fake connection that records requests."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.over = False
        self.looks = 0  # how often it was asked whether it has ended
        self._then: list[Callable[[Frame], None]] = []

    @property
    def ended(self) -> Recorder:
        return self

    def done(self) -> bool:
        self.looks += 1
        return self.over

    def ask(self, kind: int, then: Callable[[Frame], None], **fields: Any) -> None:
        self.asked.append({"type": kind, **fields})
        self._then.append(then)

    def answer(self, code: int, **fields: Any) -> None:
        """Answer the oldest request that has no answer."""
        self._then.pop(0)({"from": "", "code": code, "content": "", **fields})


class Followed:
    """A follower of the conversations with two peers, of each of which messages are held."""

    def __init__(self) -> None:
        self.connection = Recorder()
        self.conversations = {peer: Conversation(Peer(peer, f"user {peer}", ""), 10) for peer in (2, 3)}
        self.given: list[tuple[int, int]] = []
        self.caught_up: list[int] = []
        self.follower = Follower(
            self.connection,  # type: ignore[arg-type]
            self.conversations,
            lambda conversation, messages: self.given.extend((conversation.peer.id, m.seq) for m in messages),
            self.caught_up.append,
            Random(1),
        )


def shown(peer: int, seq: int) -> dict[str, Any]:
    return {"from": str(peer), "to": str(ME), "seq": seq, "time": 5, "content": f"{peer}.{seq}"}


def live(peer: int, seq: int) -> Message:
    return Message.of(shown(peer, seq))


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.setattr(clients.backoff, "BASE", 0.001)
    return Followed()


async def test_resuming_several(followed: Followed) -> None:
    """One request resumes all; live messages wait for the answer, and history completes it."""
    followed.follower.resume([2, 3])
    assert followed.connection.asked == [{"type": 6, "after": {"2": 10, "3": 10}}]
    followed.follower.live(2, live(2, 12))
    assert followed.given == []
    followed.connection.answer(50002, messages=[shown(2, 11), shown(2, 12), shown(3, 11)], complete=False, more=["3"])
    assert followed.given == [(2, 11), (2, 12), (3, 11)]
    assert followed.caught_up == [2]
    fill = [each for each in followed.connection.asked if each["type"] == 2]
    assert fill == [{"type": 2, "to": "3", "after": 11, "limit": 100}]


async def test_many_conversations(followed: Followed) -> None:
    """No request has more conversations than the server allows."""
    for peer in range(4, 500):
        followed.conversations[peer] = Conversation(Peer(peer, "", ""), peer)
    followed.follower.resume(list(followed.conversations))
    assert [len(each["after"]) for each in followed.connection.asked] == [200, 200, 98]
    assert {name: seq for each in followed.connection.asked for name, seq in each["after"].items()} == {
        str(peer): conversation.timeline.held for peer, conversation in followed.conversations.items()
    }


async def test_a_gap_between_live_messages(followed: Followed) -> None:
    """A gap is filled, and requested once for any number of messages after it."""
    followed.follower.resume([2])
    followed.connection.answer(50002, messages=[], complete=True)
    followed.follower.live(2, live(2, 13))
    followed.follower.live(2, live(2, 14))
    assert followed.connection.asked[1:] == [{"type": 2, "to": "2", "after": 10, "limit": 100}]
    followed.connection.answer(50002, messages=[shown(2, seq) for seq in (11, 12, 13)], complete=True)
    assert followed.given == [(2, seq) for seq in (11, 12, 13, 14)]


@pytest.mark.parametrize("code", [40001, 429, 500])
async def test_no_answer_for_now(code: int, followed: Followed) -> None:
    """Each request is repeated, unless the connection has ended."""
    followed.follower.resume([2])
    followed.connection.answer(code, retry_after=0.001)
    await until(lambda: len(followed.connection.asked) == 2)
    followed.connection.answer(50002, messages=[], complete=False, more=["2"])
    followed.connection.answer(code, retry_after=0.001)
    await until(lambda: len(followed.connection.asked) == 4)
    followed.connection.answer(50002, messages=[shown(2, 11)], complete=True)
    followed.connection.answer(code, retry_after=0.001)  # the position
    await until(lambda: len(followed.connection.asked) == 6)
    assert [each["type"] for each in followed.connection.asked] == [6, 6, 2, 2, 4, 4]
    followed.connection.answer(code, retry_after=0.001)
    followed.connection.over, before = True, followed.connection.looks
    await until(lambda: followed.connection.looks > before)
    assert len(followed.connection.asked) == 6


async def test_a_seq_that_does_not_exist(followed: Followed) -> None:
    """A seq that does not exist is found among several; its conversation goes on from what the server has."""
    followed.conversations[3].listed_last = 4
    followed.follower.resume([2, 3])
    followed.connection.answer(400)
    followed.connection.answer(50002, messages=[], complete=True)
    followed.connection.answer(400)
    assert [each["after"] for each in followed.connection.asked] == [{"2": 10, "3": 10}, {"2": 10}, {"3": 10}, {"3": 4}]
    followed.connection.answer(50002, messages=[shown(3, 5)], complete=True)
    assert followed.given == [(3, 5)]
    followed.conversations[2].timeline.held = 0
    followed.follower.resume([2])
    followed.connection.answer(50002)  # the position
    followed.connection.answer(400)
    assert followed.caught_up == [2, 3, 2]  # there are no endless requests
    assert len(followed.connection.asked) == 6


async def test_positions(followed: Followed) -> None:
    """Positions are sent as they are when the last request is answered, and not for own messages."""
    followed.follower.resume([2])
    followed.connection.answer(50002, messages=[], complete=True)
    for seq in (11, 12, 13):
        followed.follower.live(2, live(2, seq))
    followed.conversations[2].shown(12)
    followed.follower.live(2, Message(14, 5, ME, "own", ""))
    assert followed.connection.asked[1:] == [{"type": 4, "to": "2", "received": 11, "read": 0}]
    followed.connection.answer(50002, received=11, read=0)
    assert followed.connection.asked[2:] == [{"type": 4, "to": "2", "received": 13, "read": 12}]
    followed.connection.answer(50002, received=13, read=12)
    assert len(followed.connection.asked) == 3
