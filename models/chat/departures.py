"""Departures: users whose accounts are gone while others still have sockets to them.

Opening a socket and an inbox's first message look the peer up, and are refused if there is none. Afterwards the peer
may be deleted or deactivated, also by another program. So the two users of a conversation in which messages are sent
are looked up again every few seconds, beside the messages. No message waits for the user table, and open sockets work
while the table cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container

from common.tasks import end
from models.chat.conversation import Conversation
from models.errors import StorageUnavailable, UnknownUser

__all__ = ["Active", "Departures", "all_active"]

KNOWN = 10_000  # users known to be gone that are kept
LOOKS = 64  # concurrent look-ups
LOOK_AGAIN = 1.0  # seconds after which a user who was gone is looked up again

Active = Callable[..., Awaitable[Container[int]]]  # takes ids, and returns those of active users


async def all_active(*ids: int) -> Container[int]:
    """Return all ids: a user table from which no account goes."""
    return ids


class Departures:
    """Which recipients and senders are known to be gone. `active` may raise StorageUnavailable."""

    def __init__(self, active: Active) -> None:
        self._active = active
        self._gone: dict[int, float] = {}  # by user: when they were last looked up (loop time); oldest first
        self._looks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Cancel the look-ups in progress."""
        await end(*self._looks)

    @property
    def idle(self) -> bool:
        """Whether no look-up is in progress."""
        return not self._looks

    def require_here(self, conversation: Conversation) -> None:
        """Raise UnknownUser if one of the two was gone at the last look-up. Start the next look-up."""
        if not self.are_here(conversation):
            raise UnknownUser(next(user for user in conversation.users if user in self._gone))

    def are_here(self, conversation: Conversation) -> bool:
        """Return whether neither of the two was gone at the last look-up. Start the next look-up.

        Call it whenever the conversation's `unblocked_until` is over. A look-up that finds one of them gone ends that
        time.
        """
        loop = asyncio.get_running_loop()
        gone = next((user for user in conversation.users if user in self._gone), None)
        due = gone is None or loop.time() - self._gone[gone] >= LOOK_AGAIN
        if due and len(self._looks) < LOOKS:
            task = loop.create_task(self._look(conversation))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        return gone is None

    async def _look(self, conversation: Conversation) -> None:
        try:
            active = await self._active(*conversation.users)
        except StorageUnavailable:  # its store logs that
            return
        for user in conversation.users:
            self._gone.pop(user, None)
            if user not in active:
                self._gone[user] = asyncio.get_running_loop().time()
                conversation.doubt_peers()
        while len(self._gone) > KNOWN:
            del self._gone[next(iter(self._gone))]
