"""Departures: users whose accounts are gone while others still have sockets to them.

A socket's opening and an inbox's first message look the peer up, and are refused when there is none. Afterwards the
peer may be deleted or deactivated, by another program as well. So the two of a conversation in which messages are sent
are looked up again every few seconds, behind the messages: none of them waits for the user table, and while that cannot
be read open sockets chat on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container

from common.tasks import end
from models.chat.conversation import Conversation
from models.errors import EngineUnavailable, UnknownUser

__all__ = ["Active", "Departures", "all_active"]

KNOWN = 10_000  # users who are known to be gone
LOOKS = 64  # at a time
LOOK_AGAIN = 1.0  # seconds after which a user who was gone is looked up again
LONG_AGO = -1.0  # loop time

Active = Callable[..., Awaitable[Container[int]]]  # takes ids, and returns those of active users


async def all_active(*ids: int) -> Container[int]:
    """Where nobody ever goes."""
    return ids


class Departures:
    """Who is known to be gone of those who are written to. `active` may raise EngineUnavailable."""

    def __init__(self, active: Active) -> None:
        self._active = active
        self._gone: dict[int, float] = {}  # by user: when the last look was (loop time); oldest first
        self._looks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Look no more."""
        await end(*self._looks)

    def require_here(self, conversation: Conversation) -> None:
        """Raises UnknownUser when one of the two was gone at the last look. The next look begins now.

        Is to be asked whenever the conversation's `unblocked_until` is over; a look that finds one gone ends that.
        """
        loop = asyncio.get_running_loop()
        gone = next((user for user in conversation.users if user in self._gone), None)
        due = gone is None or loop.time() - self._gone[gone] >= LOOK_AGAIN
        if due and len(self._looks) < LOOKS:
            task = loop.create_task(self._look(conversation))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        if gone is not None:
            raise UnknownUser(gone)

    async def _look(self, conversation: Conversation) -> None:
        try:
            active = await self._active(*conversation.users)
        except EngineUnavailable:  # its store logs that
            return
        for user in conversation.users:
            self._gone.pop(user, None)
            if user not in active:
                self._gone[user] = asyncio.get_running_loop().time()
                conversation.unblocked_until = LONG_AGO
        while len(self._gone) > KNOWN:
            del self._gone[next(iter(self._gone))]
