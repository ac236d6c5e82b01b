"""A conversation as this client knows it: its peer, its messages, and the positions of both users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clients.server import Peer
from clients.timeline import Message, Timeline

__all__ = ["COUNTED", "KEPT", "Conversation"]

COUNTED = 101  # unread messages are counted up to here, which means more than a hundred
KEPT = 2000  # messages of a conversation in memory; history has the older ones


class Conversation:
    """The conversation with `peer` after the seq `held`. `messages` has no gap."""

    def __init__(self, peer: Peer, held: int) -> None:
        self.peer = peer
        self.timeline = Timeline(held)
        self.messages: list[Message] = []
        self.last: Message | None = None  # the newest known message; its content may be cut
        self.beginning = not held  # whether there are no older messages
        self.unread = 0
        self.received = self.read = 0  # the peer's positions
        self.online = False
        self.blocked = False
        self.opened = False  # whether a page of history was requested
        self.own_received = self.own_read = 0  # this user's positions here
        self.told = (0, 0)  # this user's positions, as the server has them
        self.telling = False
        self.typing_until = 0.0  # loop time
        self.listed_last = 0  # the `seq` of the last message in the list when it was last read

    def listed(self, entry: dict[str, Any]) -> None:
        """Take over an entry of the list of conversations."""
        self.peer = Peer.of(entry["peer"])
        last = Message.of(entry["last"])
        if self.last is None or self.last.seq < last.seq:
            self.last = last
        self.listed_last = last.seq
        unread = entry["unread"]
        if self.own_read and self.messages and self.messages[-1].seq >= last.seq:  # the list may be older
            self.unread = self._unread_behind(self.own_read)
        elif self.own_read < last.seq:
            self.unread = unread if isinstance(unread, int) else COUNTED
        self.received, self.read = max(self.received, entry["received"]), max(self.read, entry["read"])
        self.online, self.blocked = entry["online"], entry["blocked"]

    def said(self, message: Message) -> None:
        """Add the next message."""
        self.messages.append(message)
        if len(self.messages) > KEPT:
            del self.messages[0]
            self.beginning = False
        if self.last is None or self.last.seq < message.seq:
            self.last = message
        if message.sender == self.peer.id:
            self.typing_until = 0.0
            self.own_received = max(self.own_received, message.seq)
            if message.seq > max(self.listed_last, self.own_read):  # the list has counted the others already
                self.unread = min(self.unread + 1, COUNTED)

    def restart(self) -> None:
        """Forget what the server does not know: its data was restored from an old copy."""
        self.timeline.restart(max(min(self.timeline.held - 1, self.listed_last), 0))
        self.messages = [message for message in self.messages if message.seq <= self.timeline.held]

    def preceded(self, messages: Sequence[Message], *, complete: bool) -> None:
        """Add a page of history before the messages."""
        first = self.first
        older = [message for message in messages if message.seq < first]
        self.messages[:0] = older
        self.beginning = complete
        self.own_received = max(
            [self.own_received, *(message.seq for message in older if message.sender == self.peer.id)]
        )

    @property
    def first(self) -> int:
        """The `seq` before which history begins."""
        return self.messages[0].seq if self.messages else self.timeline.held + 1

    def shown(self, seq: int) -> bool:
        """Note that the user has seen all up to `seq`. Return whether that is news."""
        newest = max((m.seq for m in self.messages if m.sender == self.peer.id and m.seq <= seq), default=0)
        if newest <= self.own_read:
            return False
        self.own_read = newest
        self.unread = self._unread_behind(seq)
        return True

    def _unread_behind(self, seq: int) -> int:
        return sum(message.sender == self.peer.id and message.seq > seq for message in self.messages)

    def moved(self, received: int, read: int) -> None:
        """Take over the peer's positions, which only move forward."""
        self.received, self.read = max(self.received, received), max(self.read, read)
