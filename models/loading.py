"""What an active conversation is read from the store for: where it stands, and what its users have read."""

from __future__ import annotations

from collections.abc import Callable

from models.conversation import Conversation, Reading
from models.limits import ACCEPTED_DAYS, DAY
from models.ports import Messages
from models.records import Head

__all__ = ["Loader"]


class Loader:
    """Reads a conversation's state when it is needed and not known; `clock` returns seconds since the epoch."""

    def __init__(self, messages: Messages, clock: Callable[[], float]) -> None:
        self._messages = messages
        self._clock = clock

    def knows(self, conversation: Conversation) -> bool:
        """Whether nothing has to be read before a message can be placed."""
        return not self._stale(conversation.head) and len(conversation.readings) == len(conversation.users)

    def _stale(self, head: Head | None) -> bool:
        """Whether a head is not known, or for too long: one whose message may have expired says nothing.

        `seq` goes on elsewhere then (storage/messages.py).
        """
        return head is None or bool(head.seq and head.time < (self._clock() - ACCEPTED_DAYS * DAY) * 1000)

    async def head(self, conversation: Conversation) -> Head:
        """Where the conversation stands; read again when it is known for too long."""
        known = conversation.head
        if self._stale(known):
            head = await self._messages.head(conversation.name)
            if conversation.head is known or conversation.head is None:  # else somebody was faster, and may know more
                conversation.head = head
                conversation.readings.clear()
                if conversation.seen is None:
                    conversation.seen = head.seq
        if conversation.head is None:
            raise RuntimeError("a head that was read is gone")
        return conversation.head

    async def reading(self, conversation: Conversation, reader: int) -> Reading:
        """What one of the two has read, in dialect 1's sense."""
        reading = conversation.readings.get(reader)
        if reading is None:
            bookmarks = await self._messages.bookmarks(conversation.name, reader, conversation.other(reader))
            last = max(conversation.head.seq if conversation.head else 0, conversation.seen or 0)
            reading = Reading(bookmarks.read, bookmarks.first_unread, last if bookmarks.first_unread else 0)
            # Whoever asked first is right: messages may have arrived since.
            reading = conversation.readings.setdefault(reader, reading)
        return reading
