"""Tests of a conversation's state, such as its read state against the article's flags for each message."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.chat.conversation import Conversation, PendingMessage, ReadState, Stored
from models.errors import LimitReached, StorageUnavailable
from models.records import Head, Message


class ReadStateMachine(RuleBasedStateMachine):
    """Compares a ReadState with the article's model, in which every message of the peer has a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.read_state = ReadState(read=0, first_unread=None, missed=0)
        self.last = 0
        self.flags: dict[int, bool] = {}

    @rule(live=st.booleans())
    def peer_writes(self, live: bool) -> None:
        self.last += 1
        self.flags[self.last] = live
        self.read_state.received(self.last, live=live)

    @rule()
    def user_writes(self) -> None:
        self.last += 1
        self.read_state.sent(self.last)

    @precondition(lambda self: self.read_state.first_unread is not None)
    @rule()
    def user_asks_for_what_is_unread(self) -> None:
        self.flags = dict.fromkeys(self.flags, True)
        self.read_state.shown(self.last, self.last)

    @precondition(lambda self: self.read_state.first_unread is not None)
    @rule(data=st.data(), live=st.booleans())
    def something_arrives_while_it_is_shown(self, data: st.DataObject, live: bool) -> None:
        upto = self.last
        self.peer_writes(live)
        self.flags = {seq: True if seq <= upto else flag for seq, flag in self.flags.items()}
        self.read_state.shown(upto, self.last)

    @invariant()
    def first_unread_is_the_first_without_a_flag(self) -> None:
        unread = [seq for seq, flag in self.flags.items() if not flag]
        assert self.read_state.first_unread == (min(unread) if unread else None)

    @invariant()
    def the_position_passes_nothing_unread(self) -> None:
        unread = [seq for seq, flag in self.flags.items() if not flag]
        assert self.read_state.read < min(unread, default=self.last + 1)
        assert unread or self.read_state.read == self.last


TestReading = ReadStateMachine.TestCase


def test_an_interrupted_showing_keeps_the_rest_unread() -> None:
    """A message that arrived while no socket took it stays unread, though the ones before it were shown."""
    read_state = ReadState(read=0, first_unread=1, missed=3)
    read_state.shown(2, 3)
    assert (read_state.read, read_state.first_unread) == (2, 3)


def test_what_stands_is_answered_once() -> None:
    """A refusal and a stored message are final."""
    for final in (LimitReached(), Stored(1, 0, online=True)):
        answers: list[object] = []
        pending = PendingMessage(1, 2, "hi", b"k", lambda pending, answers=answers: answers.append(pending.outcome))
        pending.resolve(final)
        pending.resolve(Stored(2, 0, online=True))
        pending.resolve(StorageUnavailable("mongodb", "slow"))
        assert answers == [final]


def test_not_known_is_not_final() -> None:
    """After 40001 the message may turn out to be stored; its sender is told once."""
    answers: list[object] = []
    pending = PendingMessage(1, 2, "hi", b"k", lambda pending: answers.append(pending.outcome))
    late, sent = StorageUnavailable("mongodb", "slow"), Stored(1, 0, online=True)
    for outcome in (late, late, sent, sent, late):
        pending.resolve(outcome)
    assert answers == [late, sent]


def test_a_conversation_advances_from_what_it_knows() -> None:
    """The head advances by the next message with its newest three senders, and is forgotten at a gap."""
    conversation = Conversation(2, 1)
    assert (conversation.name, conversation.other(2)) == ("1-2", 1)
    conversation.advance(Message(1, 2, 1, 5, "", b""))
    assert conversation.head is None
    conversation.head = Head(0, 0, 1000, ())
    for seq in range(1, 6):
        conversation.advance(Message(1, 2, seq, 10 * seq, "", b""))
    assert Head(5, 50, 1000, ((1, 50), (1, 40), (1, 30))) == conversation.head
    conversation.advance(Message(1, 2, 4, 1, "seen before", b""))
    assert conversation.head.seq == 5
    conversation.advance(Message(1, 2, 7, 70, "6 was not heard of", b""))
    assert conversation.head is None
