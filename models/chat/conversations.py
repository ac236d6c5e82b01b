"""The conversations that are active in this process; the one owner of their states.

A conversation has at most one state. It is made for the first use and dropped after the last one. Sockets use it by
following the conversation; the state knows which kinds of sockets of which user do. A request that reads has a lease.
The state's own work is visible in the state itself: its queue, its run, its catch-up task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models.chat.conversation import Conversation, SocketKind
from models.records import conversation_of

__all__ = ["Conversations", "Lease"]


class Lease:
    """A request's use of a conversation's state, which keeps the state until the lease is closed.

    Closing it again does nothing.

    As a context manager it returns the conversation, and closes at the end.
    """

    __slots__ = ("_conversations", "_open", "conversation")

    def __init__(self, conversations: Conversations, conversation: Conversation) -> None:
        self.conversation = conversation
        self._conversations = conversations
        self._open = True
        conversation.leases += 1

    def __enter__(self) -> Conversation:
        return self.conversation

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the use."""
        if not self._open:
            return
        self._open = False
        self.conversation.leases -= 1
        self._conversations.release(self.conversation)


class Conversations:
    """The states, by name.

    `begins` is called when delivery to the sockets of two users begins. It returns the time (milliseconds since the
    epoch) after which an inbox needs all messages, 0 if it needs all there are, None if no inbox needs any.
    """

    def __init__(self, begins: Callable[[int, int], int | None]) -> None:
        self._begins = begins
        self._conversations: dict[str, Conversation] = {}

    def __iter__(self) -> Iterator[Conversation]:
        """Iterate over the conversations as they are now."""
        return iter(tuple(self._conversations.values()))

    def __len__(self) -> int:
        return len(self._conversations)

    def get(self, name: str) -> Conversation | None:
        """Return the state of a conversation, None if it is not active."""
        return self._conversations.get(name)

    def lease(self, one: int, other: int) -> Lease:
        """Return a use by a request that reads."""
        return Lease(self, self._enter(one, other))

    def follow(self, user: int, peer: int, kind: SocketKind) -> Conversation:
        """Return the state, which is kept for sockets of `user` that get every message from now on."""
        conversation = self._enter(user, peer)
        conversation.follow(user, kind)
        self._begin(conversation, None)
        return conversation

    def unfollow(self, user: int, peer: int, kind: SocketKind) -> None:
        """Undo `follow`."""
        conversation = self.get(conversation_of(user, peer))
        if conversation is not None:
            conversation.unfollow(user, kind)
            self.release(conversation)

    def write(self, one: int, other: int) -> Conversation:
        """Return the state for a message that the caller puts into its queue before it awaits anything."""
        conversation = self._enter(one, other)
        if conversation.delivered_seq is None:
            self._begin(conversation, None)
        return conversation

    def begin(self, conversation: Conversation, seq: int) -> None:
        """Begin delivery to the sockets after `seq`, unless it has begun.

        An inbox that knows its user's conversations, but not this one, has been given none of the messages since,
        whatever their number. Its delivery begins with the first of them. If that is not the conversation's first
        message, `Loader` finds out which it is.
        """
        if conversation.delivered_seq is None and conversation.active:
            self._begin(conversation, seq)

    def begin_behind(self, conversation: Conversation, seq: int) -> None:
        """Begin delivery after the last message that no inbox misses, which is at `seq`."""
        if conversation.delivered_seq is None and conversation.active:
            conversation.begin_delivery(seq)
        conversation.since = None

    def release(self, conversation: Conversation) -> None:
        """Drop what is no longer needed: the state, or what it knows of sockets that are closed."""
        if conversation.active or conversation.catch_up_task is not None:
            return
        if conversation.leases:
            conversation.clear()
        elif self._conversations.get(conversation.name) is conversation:
            del self._conversations[conversation.name]

    def _enter(self, one: int, other: int) -> Conversation:
        name = conversation_of(one, other)
        conversation = self._conversations.get(name)
        if conversation is None:
            conversation = self._conversations[name] = Conversation(one, other)
        return conversation

    def _begin(self, conversation: Conversation, seq: int | None) -> None:
        if conversation.delivered_seq is not None:
            return
        since = [time for time in (self._begins(*conversation.users), conversation.since) if time is not None]
        if not since:
            if seq is not None:
                conversation.begin_delivery(seq)
        elif min(since) == 0:
            conversation.begin_delivery(0)
        else:
            conversation.begin_delivery_since(min(since))
