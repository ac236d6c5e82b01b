"""Inbox sockets: one socket for all conversations of a user.

Such a conversation has to be followed although no socket was opened for it: an inbox that opens asks the store
which conversations its user has, and where they stand. A conversation that was not among them is new, and its
first message is the first to be delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from models.conversation import Conversation
from models.conversations import Conversations, Lease
from models.delivery import Delivery
from models.errors import EngineUnavailable
from models.placing import BACKOFF
from models.ports import Directory
from models.presence import Presence
from models.records import Message

__all__ = ["FOLLOWED", "Inboxes"]

FOLLOWED = 1000  # conversations of a user that are followed from the start; others from their next message on


class _Inbox:
    """The inbox of one user, in this process."""

    __slots__ = ("complete", "known", "leases", "looking", "sockets")

    def __init__(self) -> None:
        self.sockets = 0
        self.leases: dict[int, Lease] = {}  # by peer
        self.known = False  # it has been looked once
        self.complete = False  # `leases` are of all conversations that there were
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
        """Who has an inbox socket here."""
        return self._inboxes

    def opened(self, user: int) -> None:
        """An inbox socket of `user` has opened."""
        inbox = self._inboxes.setdefault(user, _Inbox())
        inbox.sockets += 1
        if inbox.sockets == 1:
            self.look(user)

    def closed(self, user: int) -> None:
        """The counterpart of `opened`."""
        inbox = self._inboxes[user]
        inbox.sockets -= 1
        if inbox.sockets:
            return
        del self._inboxes[user]
        if inbox.looking is not None:
            inbox.looking.cancel()
        for peer, lease in inbox.leases.items():
            lease.close()
            self._presence.unwatch(user, peer)

    async def looked(self, *users: int) -> bool:
        """Waits until the conversations of the inboxes of these users are known; whether there was one to wait for."""
        looking = [
            inbox.looking
            for inbox in map(self._inboxes.get, users)
            if inbox is not None and inbox.looking is not None and not inbox.known
        ]
        if looking:
            await asyncio.wait(looking)
        return bool(looking)

    def begins(self, one: int, other: int) -> int | None:
        """0 if an inbox of one of the two knows all of its conversations, and not this one; else None."""
        for user, peer in ((one, other), (other, one)):
            inbox = self._inboxes.get(user)
            if inbox is not None and inbox.complete and peer not in inbox.leases:
                return 0
        return None

    def follow(self, user: int, peer: int, seen: int) -> None:
        """Follows a conversation for an inbox of `user`, from behind `seen` on unless it was followed before."""
        inbox = self._inboxes.get(user)
        if inbox is not None:
            self._follow(user, inbox, peer, seen)

    def entered(self, message: Message) -> Conversation | None:
        """The conversation of a message from elsewhere, if that is for an inbox of this process."""
        for user, peer in ((message.recipient, message.sender), (message.sender, message.recipient)):
            inbox = self._inboxes.get(user)
            if inbox is not None:
                return self._follow(user, inbox, peer, 0 if inbox.complete else message.seq - 1)
        return None

    def note(self, conversation: Conversation, message: Message) -> None:
        """Follows a conversation from now on in which an inbox of this process gets a message."""
        for user in (message.recipient, message.sender):
            inbox = self._inboxes.get(user)
            if inbox is not None:
                self._follow(user, inbox, conversation.other(user), message.seq)

    def look(self, user: int) -> None:
        """Has the conversations of `user` read from the store, soon: the first message of one may have been missed."""
        inbox = self._inboxes.get(user)
        if inbox is not None and inbox.looking is None:
            inbox.looking = asyncio.get_running_loop().create_task(self._look(user, inbox))

    async def _look(self, user: int, inbox: _Inbox) -> None:
        pause = BACKOFF[0]
        try:
            while True:
                try:
                    found = await self._directory.conversations(user, None, FOLLOWED)
                    break
                except EngineUnavailable:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, BACKOFF[1])
            for summary in found:
                conversation = self._follow(user, inbox, summary.peer, 0 if inbox.complete else summary.last.seq)
                if conversation.seen is not None and conversation.seen < summary.last.seq:
                    self._delivery.chase(conversation)
            inbox.known = True
            inbox.complete = inbox.complete or len(found) < FOLLOWED
        finally:
            inbox.looking = None

    def _follow(self, user: int, inbox: _Inbox, peer: int, seen: int) -> Conversation:
        lease = inbox.leases.get(peer)
        if lease is None:
            lease = inbox.leases[peer] = self._conversations.follow(user, peer)
            self._presence.watch(user, peer)
        self._conversations.begin(lease.conversation, seen)
        return lease.conversation
