"""Deadlines of messages: who has no answer in time is told so. One timer for a conversation, not for each message."""

from __future__ import annotations

import asyncio

from models.chat.conversation import Conversation
from models.errors import EngineUnavailable

__all__ = ["keep_deadline"]

SOON = 0.001  # seconds; what uvloop is to call sooner is no timer there, and does not say when it will be called


def keep_deadline(conversation: Conversation, deadline: float) -> None:
    """Sees to it that a message is answered with EngineUnavailable if it has no outcome at its deadline (loop time)."""
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
            pending.resolve(EngineUnavailable("storage", "no answer yet"))
    later = [pending.deadline for pending in waiting if pending.deadline > now]
    if later:
        keep_deadline(conversation, min(later))
