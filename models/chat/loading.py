"""Loading what is needed about an active conversation: its head, and what its users have read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from models.chat.conversation import Conversation, ReadState
from models.chat.conversations import Conversations
from models.chat.ports import Messages
from models.chat.stranger_limit import ACCEPTED_DAYS, DAY
from models.records import Head

__all__ = ["Loader"]

T = TypeVar("T")


class Loader:
    """Reads a conversation's state when it is needed and not known. `clock` returns seconds since the epoch.

    `looked` waits until the inboxes of two users here know their conversations, and returns whether it had to.
    """

    def __init__(
        self,
        conversations: Conversations,
        messages: Messages,
        clock: Callable[[], float],
        looked: Callable[[int, int], Awaitable[bool]],
    ) -> None:
        self._conversations = conversations
        self._messages = messages
        self._clock = clock
        self._looked = looked

    def knows(self, conversation: Conversation) -> bool:
        """Return whether a message can be inserted without reading anything first."""
        return not self._stale(conversation.head) and len(conversation.read_states) == len(conversation.users)

    def _stale(self, head: Head | None) -> bool:
        """Return whether a head is not known, or too old: after its message has expired it says nothing.

        Another process may then continue `seq` differently (storage/mongo/messages.py).
        """
        return head is None or bool(head.seq and head.time < (self._clock() - ACCEPTED_DAYS * DAY) * 1000)

    async def head(self, conversation: Conversation) -> Head:
        """Return the conversation's head; read it if it is not known or too old."""
        known = conversation.head
        if self._stale(known):
            head = await self._read(conversation, self._messages.head)
            await self._begin(conversation, head.seq)  # nothing is inserted before that is known
            if conversation.head is known or conversation.head is None:  # no concurrent call set a newer one
                conversation.learn_head(head)
        if conversation.head is None:
            raise RuntimeError("a head that was read is gone")
        return conversation.head

    async def begin(self, conversation: Conversation) -> int:
        """Find out from where on the sockets are given messages. Return the last `seq` of the conversation."""
        newest = await self._read(conversation, self._messages.newest)
        await self._begin(conversation, newest)
        return newest

    async def _begin(self, conversation: Conversation, newest: int) -> None:
        self._conversations.begin(conversation, newest)
        if conversation.delivered_seq is None and conversation.since is not None:
            last = await self._messages.last_before(conversation.name, conversation.since + 1)
            self._conversations.begin_behind(conversation, last)

    async def _read(self, conversation: Conversation, read: Callable[[str], Awaitable[T]]) -> T:
        """Read from where on sockets may be given messages.

        An inbox that opens meanwhile may find that it has no such conversation, although the first message is stored by
        now. So the value is read again once such an inbox knows its conversations.
        """
        found = await read(conversation.name)
        while conversation.delivered_seq is None and await self._looked(*conversation.users):
            found = await read(conversation.name)
        return found

    async def read_states(self, conversation: Conversation) -> None:
        """Find out what both have read, in the sense of protocol v1."""
        for user in conversation.users:
            await self.read_state(conversation, user)

    async def read_state(self, conversation: Conversation, reader: int) -> ReadState:
        """Return what one of the two has read, in the sense of protocol v1."""
        read_state = conversation.read_states.get(reader)
        if read_state is None:
            start = await self._messages.unread_start(conversation.name, reader, conversation.other(reader))
            last = max(conversation.head.seq if conversation.head else 0, conversation.delivered_seq or 0)
            read_state = ReadState(start.read, start.first_unread, last if start.first_unread else 0)
            # The first of concurrent calls wins: messages may have arrived since.
            read_state = conversation.read_states.setdefault(reader, read_state)
        return read_state
