"""Tests of a conversation's state: the read state against the article's flags, the queue, its runs and deadlines."""

from __future__ import annotations

import asyncio

import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from models.chat.conversation import Conversation, PendingMessage, ReadState, Stored
from models.errors import LimitReached, StorageUnavailable
from models.records import Head, Message
from tests.support.sockets import until


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


async def test_a_run_is_the_front_of_the_queue() -> None:
    """A run has at most as many messages as are allowed. What is put back comes before what came later."""
    conversation = Conversation(1, 2)
    a, b, c, d = pending_messages(conversation, *[asyncio.get_running_loop().time() + 1000] * 4)
    run = conversation.take_run(3)
    assert run is not None
    assert (run.pending, conversation.queue) == ([a, b, c], [d])
    assert not conversation.inserting
    conversation.put_back(run.pending[1:])
    assert conversation.queue == [b, c, d]
    conversation.overdue.cancel()


async def test_a_run_leaves_out_what_is_answered() -> None:
    """Messages that have passed their deadline make no run: they are dropped, up to the first one that has not."""
    conversation = Conversation(1, 2)
    a, b, c, d = pending_messages(conversation, *[asyncio.get_running_loop().time() + 1000] * 4)
    for late in (a, b, d):
        late.resolve(StorageUnavailable("storage", "late"))
    run = conversation.take_run(1)
    assert run is not None
    assert (run.pending, conversation.queue) == ([c], [d])
    assert conversation.active
    assert conversation.take_run(1) is None
    assert not conversation.active
    conversation.overdue.cancel()


def pending_messages(conversation: Conversation, *deadlines: float) -> list[PendingMessage]:
    """Return queued messages with these deadlines, in this order."""
    made = [PendingMessage(1, 2, "", b"", lambda _: None, deadline=deadline) for deadline in deadlines]
    for pending in made:
        conversation.enqueue(pending)
    return made


async def test_each_message_has_its_own_deadline() -> None:
    """A later deadline does not delay an earlier one, in a run or in the queue, and the nearest of the rest is next."""
    now = asyncio.get_running_loop().time()
    conversation = Conversation(1, 2)
    first, second, far = pending_messages(conversation, now + 500, now + 0.02, now + 1000)
    assert conversation.take_run(1) is not None
    await until(lambda: second.outcome is not None)
    assert isinstance(second.outcome, StorageUnavailable)
    assert (first.outcome, far.outcome) == (None, None)
    assert conversation.overdue is not None
    assert conversation.overdue_at == first.deadline
    conversation.overdue.cancel()


async def test_one_deadline_after_the_other() -> None:
    """When one deadline has passed, the timer is set for the next one, and that one is kept too."""
    now = asyncio.get_running_loop().time()
    conversation = Conversation(1, 2)
    pending_messages(conversation, now + 0.04, now + 0.02)
    await until(lambda: all(pending.outcome is not None for pending in conversation.queue))
    assert {type(pending.outcome) for pending in conversation.queue} == {StorageUnavailable}
    assert conversation.overdue is None


def test_deadlines_that_are_past_or_near_on_the_servers_loop() -> None:
    """Past and very near deadlines are kept too; uvloop has no timers for them."""

    async def wait() -> list[PendingMessage]:
        now = asyncio.get_running_loop().time()
        conversation = Conversation(1, 2)
        pending_messages(conversation, now - 1, now - 1, now, now + 0.0001, now + 0.0001)
        await until(lambda: all(pending.outcome is not None for pending in conversation.queue))
        return conversation.queue

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert {type(pending.outcome) for pending in runner.run(wait())} == {StorageUnavailable}


async def test_an_outcome_stands() -> None:
    """A message with an outcome is not answered again, and there is no timer without pending messages."""
    conversation = Conversation(1, 2)
    (pending,) = pending_messages(conversation, asyncio.get_running_loop().time())
    assert conversation.take_run(1) is not None
    pending.resolve(sent := Stored(1, 1, online=True))
    await until(lambda: conversation.overdue is None)
    assert pending.outcome is sent
