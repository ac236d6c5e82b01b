"""The conversations that are active in this process: the one owner of their states.

There is never more than one state for a conversation. It is made when the first user of it comes, and dropped when the
last one has gone. A lease is a use from outside: that of a pair socket or an inbox, which follow the conversation, or
that of a request which reads it. The state's own work is seen in the state itself: its queue, its writer, its
catch-up task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from models.chat.conversation import Conversation
from models.records import conversation_of

__all__ = ["Conversations", "Lease"]


class Lease:
    """A use of a conversation's state, which is kept until the lease is closed. It can be closed any number of times.

    As a context it gives the conversation, and closes at the end.
    """

    __slots__ = ("_conversations", "_follows", "_open", "conversation")

    def __init__(self, conversations: Conversations, conversation: Conversation, *, follows: bool) -> None:
        self.conversation = conversation
        self._conversations = conversations
        self._follows = follows
        self._open = True
        conversation.leases += 1
        conversation.followers += follows

    def __enter__(self) -> Conversation:
        return self.conversation

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the use."""
        if not self._open:
            return
        self._open = False
        self.conversation.leases -= 1
        self.conversation.followers -= self._follows
        self._conversations.release(self.conversation)


class Conversations:
    """The states, by name.

    `begins` is asked when the sockets of two users begin to be served: the time (milliseconds since the epoch) behind
    which an inbox is to have all messages, 0 for all there are, None if no inbox says so.
    """

    def __init__(self, begins: Callable[[int, int], int | None]) -> None:
        self._begins = begins
        self._conversations: dict[str, Conversation] = {}

    def __iter__(self) -> Iterator[Conversation]:
        """The conversations, as they are now."""
        return iter(tuple(self._conversations.values()))

    def __len__(self) -> int:
        return len(self._conversations)

    def get(self, name: str) -> Conversation | None:
        """The state of a conversation, if it is active."""
        return self._conversations.get(name)

    def lease(self, one: int, other: int) -> Lease:
        """A use by a request that reads."""
        return Lease(self, self._enter(one, other), follows=False)

    def follow(self, one: int, other: int) -> Lease:
        """A use by sockets that are to get every message from now on."""
        conversation = self._enter(one, other)
        lease = Lease(self, conversation, follows=True)
        self._begin(conversation, None)
        return lease

    def write(self, one: int, other: int) -> Conversation:
        """The state, for a message that the caller puts into its queue before it awaits anything."""
        conversation = self._enter(one, other)
        if conversation.delivered_seq is None:
            self._begin(conversation, None)
        return conversation

    def begin(self, conversation: Conversation, seq: int) -> None:
        """Serves the sockets from behind `seq` on, unless they are served already.

        An inbox that knows its user's conversations, but not this one, has been given none of the messages that came
        since, however many are stored by now. It is served from the first of them on. Which one that is, `Loader` finds
        out if it is not the first of all.
        """
        if conversation.delivered_seq is None and conversation.active:
            self._begin(conversation, seq)

    def begin_behind(self, conversation: Conversation, seq: int) -> None:
        """Serves the sockets from behind the last message that no inbox misses, which is found to be at `seq`."""
        if conversation.delivered_seq is None and conversation.active:
            conversation.delivered_seq = seq
        conversation.since = None

    def release(self, conversation: Conversation) -> None:
        """Lets go of what is not needed any more: the state, or what it knows of sockets that have gone."""
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
            conversation.delivered_seq = seq
        elif min(since) == 0:
            conversation.delivered_seq, conversation.since = 0, None
        else:
            conversation.since = min(since)
