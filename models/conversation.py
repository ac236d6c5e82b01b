"""What a process knows of an active conversation: where it stands, who waits, what each of the two has read."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from models.errors import ChatError
from models.records import Head, Message, conversation_of

__all__ = ["Conversation", "Draft", "Reading", "Sent"]


class Sent(NamedTuple):
    """A message is stored, at this place; `online` tells whether a socket of the recipient took it."""

    seq: int
    time: int
    online: bool


class Draft:
    """A message on its way to being stored, and the answer that its sender waits for.

    The answer is a Sent or a ChatError, as a result in both cases: nobody has to be there to retrieve it.
    """

    __slots__ = ("answer", "content", "key", "recipient", "sender", "timer")

    def __init__(self, sender: int, recipient: int, content: str, key: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.sender = sender
        self.recipient = recipient
        self.content = content
        self.key = key
        self.answer: asyncio.Future[Sent | ChatError] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, answer: Sent | ChatError) -> None:
        """Answers the sender, unless it was answered before."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.answer.done():
            self.answer.set_result(answer)

    def at(self, seq: int, time: int) -> Message:
        """The message that this draft becomes at a place."""
        return Message(self.sender, self.recipient, seq, time, self.content, self.key)


class Reading:
    """What one user of the conversation has read, in dialect 1's sense: by asking, or by being there.

    The article marks each message as read or not. One position says the same as long as the peer's
    messages before it were all read; a message that was delivered live while an older one is still unread
    therefore moves nothing, and is shown again with it. `missed` is the peer's last message that was not
    delivered live.
    """

    __slots__ = ("first_unread", "missed", "read")

    def __init__(self, read: int, first_unread: int | None, missed: int) -> None:
        self.read = read
        self.first_unread = first_unread
        self.missed = missed

    def received(self, seq: int, *, live: bool) -> bool:
        """Notes the peer's next message; whether the read position moved."""
        if not live:
            self.missed = seq
            if self.first_unread is None:
                self.first_unread = seq
        elif self.first_unread is None:
            self.read = seq
            return True
        return False

    def sent(self, seq: int) -> None:
        """Notes the user's own next message: with nothing unread before it, there is nothing to look for."""
        if self.first_unread is None:
            self.read = seq

    def shown(self, upto: int, last: int) -> None:
        """Notes that everything up to `upto` was shown on request, in a conversation that ends at `last`."""
        if self.first_unread is None or self.first_unread > upto:
            return
        if self.missed > upto:  # something arrived meanwhile that nobody took
            self.read = upto
            self.first_unread = upto + 1
        else:
            self.read = max(upto, last)
            self.first_unread = None


class Conversation:
    """The state of one conversation while somebody uses it.

    `head` is None until it was read from the store; its `seq` is the last that this process knows to
    exist. `open_until` (seconds since the epoch) says how long the limit rule is known not to refuse.
    """

    __slots__ = ("head", "name", "open_until", "queue", "readings", "sockets", "users", "writer")

    def __init__(self, one: int, other: int) -> None:
        self.name = conversation_of(one, other)
        self.users = (one, other)
        self.head: Head | None = None
        self.queue: deque[Draft] = deque()
        self.writer: asyncio.Task[None] | None = None
        self.sockets = 0
        self.open_until = 0.0
        self.readings: dict[int, Reading] = {}

    @property
    def idle(self) -> bool:
        """Whether nobody needs this state any more."""
        return self.sockets == 0 and self.writer is None and not self.queue

    def other(self, user: int) -> int:
        """The peer of `user`."""
        return self.users[1] if user == self.users[0] else self.users[0]

    def advance(self, message: Message) -> None:
        """Notes that `message` stands at the next place."""
        if self.head is None:
            raise RuntimeError("a conversation advances only from a known head")
        senders = ((message.sender, message.time), *self.head.senders)[:3]
        self.head = Head(message.seq, message.time, self.head.reserved, senders)
