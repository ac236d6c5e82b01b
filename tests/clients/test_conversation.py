"""Tests of what a client knows of a conversation."""

from __future__ import annotations

from typing import Any

import pytest

import clients.conversation
from clients.conversation import COUNTED, Conversation
from clients.server import Peer
from clients.timeline import Message

ME, PEER = 1, 2


def message(seq: int, sender: int = PEER) -> Message:
    return Message(seq, seq * 1000, sender, f"m{seq}", "")


def entry(last: int, unread: int | str = 0, **fields: Any) -> dict[str, Any]:
    return {
        "peer": {"id": PEER, "user_name": "xiaohong", "nick_name": "Hong", "avatar": ""},
        "last": {"from": "2", "to": "1", "seq": last, "time": 5, "content": "m"},
        "unread": unread,
        "received": 0,
        "read": 0,
        "online": False,
        "blocked": False,
        **fields,
    }


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(Peer(PEER, "", ""), 10)


def test_the_list(conversation: Conversation) -> None:
    """The list names the peer, the unread messages and the peer's positions, which do not move back."""
    conversation.listed(entry(10, 3, received=9, read=8, online=True))
    conversation.moved(7, 7)
    assert (conversation.peer, conversation.unread) == (Peer(PEER, "xiaohong", "Hong"), 3)
    assert (conversation.received, conversation.read, conversation.online) == (9, 8, True)
    conversation.listed(entry(12, "100+", received=1))
    assert (conversation.unread, conversation.received) == (COUNTED, 9)
    assert conversation.last is not None
    assert conversation.last.seq == 12


def test_an_own_message_behind_what_was_read(conversation: Conversation) -> None:
    """An own message makes nothing unread, also if the list is older than the read position."""
    for seq, sender in ((11, PEER), (12, PEER), (13, ME)):
        conversation.said(message(seq, sender))
    assert conversation.shown(13)
    conversation.listed(entry(13, 2))
    assert conversation.unread == 0
    conversation.said(message(14))
    conversation.listed(entry(14, 1))
    assert conversation.unread == 1


def test_unread_messages_that_were_opened_before_they_were_listed(conversation: Conversation) -> None:
    """There are as many as the list says, while nothing has been read here."""
    conversation.said(message(11))
    conversation.listed(entry(11, 3))
    assert conversation.unread == 3


def test_unread_messages_are_counted_once(conversation: Conversation) -> None:
    """Messages that the list has counted are not counted again when they arrive; own ones never count."""
    conversation.listed(entry(12, 2))
    for seq, sender in ((11, PEER), (12, PEER), (13, PEER), (14, ME)):
        conversation.said(message(seq, sender))
    assert conversation.unread == 3
    assert conversation.shown(12)
    assert conversation.unread == 1
    assert not conversation.shown(12)
    assert conversation.shown(14)
    assert (conversation.unread, conversation.own_read, conversation.own_received) == (0, 13, 13)
    conversation.listed(entry(13, 3))  # older than the position on the server
    assert conversation.unread == 0


def test_history_is_put_before(conversation: Conversation) -> None:
    """A page of history is added before the messages, without those that are there already."""
    assert conversation.first == 11
    conversation.said(message(11))
    conversation.preceded([message(9), message(10), message(11)], complete=False)
    assert [each.seq for each in conversation.messages] == [9, 10, 11]
    assert (conversation.first, conversation.beginning) == (9, False)
    conversation.preceded([], complete=True)
    assert conversation.beginning


def test_no_more_is_kept_than_may_be(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest messages are dropped, and can be read from history."""
    monkeypatch.setattr(clients.conversation, "KEPT", 3)
    conversation.beginning = True
    for seq in range(11, 16):
        conversation.said(message(seq))
    assert [each.seq for each in conversation.messages] == [13, 14, 15]
    assert (conversation.first, conversation.beginning) == (13, False)


def test_a_message_ends_typing(conversation: Conversation) -> None:
    """A message of the peer ends typing; an own one does not."""
    conversation.typing_until = 99.0
    conversation.said(message(11, ME))
    assert conversation.typing_until
    conversation.said(message(12))
    assert not conversation.typing_until


def test_restart(conversation: Conversation) -> None:
    """What the server no longer knows is forgotten."""
    conversation.timeline.held = 12
    for seq in (11, 12):
        conversation.said(message(seq))
    conversation.listed(entry(11))
    conversation.restart()
    assert conversation.timeline.held == 11
    assert [each.seq for each in conversation.messages] == [11]
