"""Inbox sockets: one socket for all conversations of a user.

Such a conversation has to be followed although no socket was opened for it: an inbox that opens asks the store
which conversations its user has, and where they stand. A conversation that was not among them is new, and its
first message is the first to be delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from models.conversation import Conversation
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

    __slots__ = ("complete", "known", "looking", "peers", "sockets")

    def __init__(self) -> None:
        self.sockets = 0
        self.peers: set[int] = set()
        self.known = False  # it has been looked once
        self.complete = False  # `peers` are all there were
        self.looking: asyncio.Task[None] | None = None


class Inboxes:
    """The users who have an inbox socket in this process."""

    def __init__(self, delivery: Delivery, directory: Directory, presence: Presence) -> None:
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
        for peer in inbox.peers:
            conversation = self._delivery.enter(user, peer)
            conversation.sockets -= 1
            self._delivery.forget(conversation)
            self._presence.unwatch(user, peer)

    async def looked(self, user: int) -> None:
        """Waits until the conversations of an inbox of `user` are known."""
        inbox = self._inboxes.get(user)
        if inbox is not None and inbox.looking is not None and not inbox.known:
            await asyncio.wait((inbox.looking,))

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
        conversation = self._delivery.enter(user, peer)
        if peer not in inbox.peers:
            inbox.peers.add(peer)
            conversation.sockets += 1
            self._presence.watch(user, peer)
        if conversation.seen is None:
            conversation.seen = seen
        return conversation
