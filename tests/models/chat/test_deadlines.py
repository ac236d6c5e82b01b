"""Tests of deadlines: each message is answered at its own."""

from __future__ import annotations

import asyncio

import uvloop

from models.chat.conversation import Conversation, PendingMessage, Stored
from models.chat.deadlines import keep_deadline
from models.errors import StorageUnavailable
from tests.support.sockets import until


def pending_messages(conversation: Conversation, *deadlines: float) -> list[PendingMessage]:
    """Return messages with these deadlines, in this order."""
    made = [PendingMessage(1, 2, "", b"", lambda _: None, deadline=deadline) for deadline in deadlines]
    for pending in made:
        keep_deadline(conversation, pending.deadline)
    return made


async def test_each_has_its_own() -> None:
    """A later deadline does not delay an earlier one, in a run or in the queue, and the nearest of the rest is next."""
    now = asyncio.get_running_loop().time()
    conversation = Conversation(1, 2)
    first, second, far = pending_messages(conversation, now + 500, now + 0.02, now + 1000)
    conversation.carried, conversation.queue = [first], [second, far]
    await until(lambda: second.outcome is not None)
    assert isinstance(second.outcome, StorageUnavailable)
    assert (first.outcome, far.outcome) == (None, None)
    assert conversation.overdue is not None
    assert conversation.overdue.when() == first.deadline
    conversation.overdue.cancel()


async def test_one_deadline_after_the_other() -> None:
    """When one deadline has passed, the timer is set for the next one, and that one is kept too."""
    now = asyncio.get_running_loop().time()
    conversation = Conversation(1, 2)
    conversation.queue = pending_messages(conversation, now + 0.04, now + 0.02)
    await until(lambda: all(pending.outcome is not None for pending in conversation.queue))
    assert {type(pending.outcome) for pending in conversation.queue} == {StorageUnavailable}
    assert conversation.overdue is None


def test_deadlines_that_are_past_or_near_on_the_servers_loop() -> None:
    """Past and very near deadlines are kept too; uvloop has no timers for them."""

    async def wait() -> list[PendingMessage]:
        now = asyncio.get_running_loop().time()
        conversation = Conversation(1, 2)
        conversation.queue = pending_messages(conversation, now - 1, now - 1, now, now + 0.0001, now + 0.0001)
        await until(lambda: all(pending.outcome is not None for pending in conversation.queue))
        return conversation.queue

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert {type(pending.outcome) for pending in runner.run(wait())} == {StorageUnavailable}


async def test_an_outcome_stands() -> None:
    """A message with an outcome is not answered again, and there is no timer without pending messages."""
    conversation = Conversation(1, 2)
    (pending,) = pending_messages(conversation, asyncio.get_running_loop().time())
    conversation.carried = [pending]
    pending.resolve(sent := Stored(1, 1, online=True))
    await until(lambda: conversation.overdue is None)
    assert pending.outcome is sent
