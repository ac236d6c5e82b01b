"""Inbox sockets: one socket for all conversations of a user.

These conversations have to be followed although no pair socket was opened for them. So a new inbox asks the store which
conversations its user has, and where they stand. A conversation that was not among them may begin later, and the inbox
is to have all of its messages since. If the inbox knows all of its user's conversations, these are all messages there
are. Otherwise they are those after the last message of the oldest conversation that it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from common.backoff import Backoff
from models.chat.conversation import Conversation, SocketKind
from models.chat.conversations import Conversations
from models.chat.delivery import BACKOFF, Delivery
from models.chat.ports import Directory
from models.chat.presence import Presence
from models.errors import StorageUnavailable
from models.records import Message

__all__ = ["FOLLOWED", "Inboxes"]

FOLLOWED = 1000  # conversations of a user that are followed at once; the others from their next message on


class _Inbox:
    """The inbox of one user, in this process."""

    __slots__ = ("conversations", "known", "looking", "since")

    def __init__(self) -> None:
        self.conversations: dict[int, Conversation] = {}  # that it follows, by peer
        self.known = False  # its conversations have been read
        self.since = 0  # at that time no other conversation had a message after this time (milliseconds)
        self.looking: asyncio.Task[None] | None = None


class Inboxes:
    """The users who have an inbox socket in this process."""

    def __init__(
        self, conversations: Conversations, delivery: Delivery, directory: Directory, presence: Presence
    ) -> None:
        self._conversations = conversations
        self._delivery = delivery
        self._directory = directory
        self._presence = presence
        self._inboxes: dict[int, _Inbox] = {}

    @property
    def users(self) -> Iterable[int]:
        """The users that have an inbox socket here."""
        return self._inboxes

    def open(self, user: int) -> None:
        """Begin the inbox of `user`, whose first inbox socket has opened."""
        self._inboxes[user] = _Inbox()
        self.look(user)

    def close(self, user: int) -> None:
        """End the inbox of `user`, whose last inbox socket has closed."""
        inbox = self._inboxes.pop(user, None)
        if inbox is None:
            return
        if inbox.looking is not None:
            inbox.looking.cancel()
        for peer in inbox.conversations:
            self._conversations.unfollow(user, peer, SocketKind.INBOX)
            self._presence.unwatch(user, peer, SocketKind.INBOX)

    async def looked(self, *users: int) -> bool:
        """Wait until the conversations of these users' inboxes are known. Return whether there was one to wait for."""
        looking = [
            inbox.looking
            for inbox in map(self._inboxes.get, users)
            if inbox is not None and inbox.looking is not None and not inbox.known
        ]
        if looking:
            await asyncio.wait(looking)
        return bool(looking)

    def begins(self, one: int, other: int) -> int | None:
        """Return the time after which an inbox of one of the two needs the messages of an unknown conversation.

        0 if the inbox knows all of its user's conversations; None if there is no such inbox.
        """
        times = [
            inbox.since
            for inbox, peer in ((self._inboxes.get(one), other), (self._inboxes.get(other), one))
            if inbox is not None and inbox.known and peer not in inbox.conversations
        ]
        return min(times, default=None)

    def follow(self, user: int, peer: int, seq: int) -> None:
        """Follow a conversation for an inbox of `user`, from after `seq` on unless it was followed before."""
        inbox = self._inboxes.get(user)
        if inbox is not None:
            self._follow(user, inbox, peer, seq)

    def entered(self, message: Message) -> Conversation | None:
        """Return the conversation of another process's message if it is for an inbox of this process."""
        for user, peer in ((message.recipient, message.sender), (message.sender, message.recipient)):
            inbox = self._inboxes.get(user)
            if inbox is not None:
                return self._follow(user, inbox, peer, message.seq - 1)
        return None

    def note(self, conversation: Conversation, message: Message) -> None:
        """Follow a conversation in which an inbox of this process gets a message."""
        for user in (message.recipient, message.sender):
            inbox = self._inboxes.get(user)
            if inbox is not None:
                self._follow(user, inbox, conversation.other(user), message.seq)

    def look(self, user: int) -> None:
        """Start a task that reads the conversations of `user`: the first message of one may have been missed."""
        inbox = self._inboxes.get(user)
        if inbox is not None and inbox.looking is None:
            inbox.looking = asyncio.get_running_loop().create_task(self._look(user, inbox))

    async def _look(self, user: int, inbox: _Inbox) -> None:
        backoff = Backoff(*BACKOFF)
        try:
            while True:
                try:
                    found = await self._directory.conversations(user, None, FOLLOWED)
                    break
                except StorageUnavailable:
                    await asyncio.sleep(backoff.next_pause())
            for summary in found:
                conversation = self._follow(user, inbox, summary.peer, summary.last.seq)
                if conversation.delivered_seq is None or conversation.delivered_seq < summary.last.seq:
                    self._delivery.schedule_catch_up(conversation)
            if not inbox.known:
                inbox.known = True
                inbox.since = found[-1].last.time if len(found) == FOLLOWED else 0
        finally:
            inbox.looking = None

    def _follow(self, user: int, inbox: _Inbox, peer: int, seq: int) -> Conversation:
        conversation = inbox.conversations.get(peer)
        if conversation is None:
            conversation = inbox.conversations[peer] = self._conversations.follow(user, peer, SocketKind.INBOX)
            self._presence.watch(user, peer, SocketKind.INBOX)
        self._conversations.begin(conversation, seq)
        return conversation
