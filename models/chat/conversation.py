"""What a process knows of an active conversation: where it stands, who waits, what each of the two has read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from models.errors import ChatError, EngineUnavailable
from models.protocol.v1 import Code
from models.records import Head, Message, conversation_of

__all__ = ["Conversation", "PendingMessage", "ReadState", "Stored"]


class Stored(NamedTuple):
    """A message is stored, at this place; `online` tells whether a socket of the recipient gets it.

    `dup` says that it was stored before, by an earlier attempt to send it.
    """

    seq: int
    time: int
    online: bool
    dup: bool = False

    @property
    def code(self) -> Code:
        """What the wire says."""
        return Code.ONLINE if self.online else Code.OFFLINE


class PendingMessage:
    """A message on its way to being stored, and its sender's answer: `outcome`, as soon as there is one.

    `resolved` is called then, and once more when a message that was answered with EngineUnavailable turns out to
    be stored. `origin` is the socket that it came from: its copy of the message is the answer. `answered` is called
    before `resolved`; `taken` is when the message was accepted, `deadline` when it is answered with EngineUnavailable
    (both loop time).
    """

    __slots__ = (
        "answered",
        "content",
        "deadline",
        "id",
        "key",
        "origin",
        "outcome",
        "recipient",
        "resolved",
        "sender",
        "taken",
    )

    def __init__(
        self,
        sender: int,
        recipient: int,
        content: str,
        key: bytes,
        resolved: Callable[[PendingMessage], None],
        message_id: str = "",
        origin: object = None,
        answered: Callable[[PendingMessage], None] | None = None,
        taken: float = 0.0,
        deadline: float = math.inf,
    ) -> None:
        self.answered = answered
        self.taken = taken
        self.deadline = deadline
        self.sender = sender
        self.recipient = recipient
        self.content = content
        self.key = key
        self.id = message_id
        self.origin = origin
        self.resolved = resolved
        self.outcome: Stored | ChatError | None = None

    def resolve(self, outcome: Stored | ChatError) -> None:
        """Answers the sender, unless it was answered before with something that stands."""
        late = isinstance(self.outcome, EngineUnavailable) and isinstance(outcome, Stored)
        if self.outcome is None or late:
            self.outcome = outcome
            if self.answered is not None:
                self.answered(self)
            self.resolved(self)

    def at(self, seq: int, time: int) -> Message:
        """The message that this one becomes at a place."""
        return Message(self.sender, self.recipient, seq, time, self.content, self.key, self.id)


class ReadState:
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
    """The state of one conversation while it is used; models/chat/conversations.py makes and drops it.

    `leases` counts its users, `followers` those among them whose sockets get what is said. `head` is where it stands in
    the store, as far as this process knows; None until it was read. `delivered_seq` is up to which `seq` the sockets of
    this process were served; None until that matters. While it is not known, `since` may say that it is the last
    message up to a time (milliseconds since the epoch). `carried` are the messages of the run in progress,
    `inserting` those of them that are being inserted, `writer` the insert or task that goes on with them;
    `overdue` is the timer of the first deadline.
    `announced_until` (loop time) says how long messages up to the time `announced_to` (milliseconds) may be stored.
    `open_until` (seconds since the epoch) says how long the limit rule is known not to refuse, `unblocked_until` (loop
    time) how long neither is taken to have blocked the other.
    """

    __slots__ = (
        "announced_to",
        "announced_until",
        "carried",
        "catch_up_task",
        "delivered_seq",
        "followers",
        "head",
        "inserting",
        "leases",
        "name",
        "needs_fetch",
        "open_until",
        "out_of_order",
        "overdue",
        "queue",
        "read_states",
        "since",
        "unblocked_until",
        "unconfirmed",
        "users",
        "writer",
    )

    def __init__(self, one: int, other: int) -> None:
        self.name = conversation_of(one, other)
        self.users = (one, other)
        self.head: Head | None = None
        self.delivered_seq: int | None = None
        # Lists, though they are queues: they are short, and an empty deque takes 760 bytes.
        self.queue: list[PendingMessage] = []
        self.writer: asyncio.Future[Any] | None = None
        self.carried: list[PendingMessage] = []
        self.overdue: asyncio.TimerHandle | None = None
        self.inserting: Sequence[Message] = ()
        self.catch_up_task: asyncio.Task[None] | None = None
        self.out_of_order: dict[int, Message] = {}  # by seq, what came before its turn
        self.unconfirmed: Sequence[int] = ()  # of `out_of_order`, what the store did not have when it was read last
        self.needs_fetch = False  # there is more to be fetched once `inserting` is decided
        self.leases = 0
        self.followers = 0
        self.since: int | None = None
        self.open_until = 0.0
        self.announced_until = -1.0
        self.announced_to = 0
        self.unblocked_until = -1.0
        self.read_states: dict[int, ReadState] = {}

    @property
    def active(self) -> bool:
        """Whether there are sockets to be served, or messages on their way."""
        return self.followers > 0 or self.writer is not None or bool(self.queue)

    def clear(self) -> None:
        """Forgets what only holds while sockets or messages see to it that it is kept up to date."""
        self.head = None
        self.delivered_seq = None
        self.since = None
        self.out_of_order.clear()
        self.unconfirmed = ()
        self.needs_fetch = False
        self.read_states.clear()

    def other(self, user: int) -> int:
        """The peer of `user`."""
        return self.users[1] if user == self.users[0] else self.users[0]

    def advance(self, message: Message) -> None:
        """Notes that `message` exists; what lies between it and what is known has to be read then."""
        if self.head is None or message.seq <= self.head.seq:
            return
        if message.seq > self.head.seq + 1:
            self.head = None
            return
        senders = ((message.sender, message.time), *self.head.senders)[:3]
        self.head = Head(message.seq, message.time, self.head.reserved, senders, self.head.mutual)
