"""Deadlines of messages: a sender without an outcome at the deadline gets an error. One timer for each conversation."""

from __future__ import annotations

import asyncio

from models.chat.conversation import Conversation
from models.errors import StorageUnavailable

__all__ = ["keep_deadline"]

SOON = 0.001  # seconds; uvloop makes no timer of a shorter delay, so that its handle has no `when()`


def keep_deadline(conversation: Conversation, deadline: float) -> None:
    """Resolve a message with StorageUnavailable if it has no outcome at its deadline (loop time)."""
    timer = conversation.overdue
    if timer is not None:
        if timer.when() <= deadline:
            return
        timer.cancel()
    loop = asyncio.get_running_loop()
    conversation.overdue = loop.call_at(max(deadline, loop.time() + SOON), _at_deadline, conversation)


def _at_deadline(conversation: Conversation) -> None:
    conversation.overdue = None
    now = asyncio.get_running_loop().time()
    waiting = [pending for pending in (*conversation.carried, *conversation.queue) if pending.outcome is None]
    for pending in waiting:
        if pending.deadline <= now:
            pending.resolve(StorageUnavailable("storage", "no answer yet"))
    later = [pending.deadline for pending in waiting if pending.deadline > now]
    if later:
        keep_deadline(conversation, min(later))
