"""The state of an active conversation in this process: its head, its queue, and what each of the two users has read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from models.errors import ChatError, StorageUnavailable
from models.protocol.v1 import Code
from models.records import Head, Message, conversation_of

__all__ = ["Conversation", "PendingMessage", "ReadState", "Stored"]


class Stored(NamedTuple):
    """The outcome of a message that is stored at `seq`. `online` says whether a socket of the recipient gets it.

    `dup` says that an earlier attempt to send the message had stored it.
    """

    seq: int
    time: int
    online: bool
    dup: bool = False

    @property
    def code(self) -> Code:
        """The wire code of the answer."""
        return Code.ONLINE if self.online else Code.OFFLINE


class PendingMessage:
    """A message that was accepted from a socket. Its `outcome` is None until it is resolved.

    `resolved` is called with the outcome. It is called once more if the message was answered with StorageUnavailable
    and turns out to be stored. `answered` is called before `resolved`. `origin` is the socket that the message came
    from; it gets the answer instead of a copy of the message. `taken` is when the message was accepted, `deadline` when
    it is answered with StorageUnavailable (both loop time).
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
        """Set the outcome and answer the sender. A message that already has a final outcome is left as it is."""
        late = isinstance(self.outcome, StorageUnavailable) and isinstance(outcome, Stored)
        if self.outcome is None or late:
            self.outcome = outcome
            if self.answered is not None:
                self.answered(self)
            self.resolved(self)

    def at(self, seq: int, time: int) -> Message:
        """Return the message as it is stored at `seq`."""
        return Message(self.sender, self.recipient, seq, time, self.content, self.key, self.id)


class ReadState:
    """What one user of the conversation has read, in the sense of protocol v1: by asking, or by live delivery.

    The article marks each message as read or not. One position says the same while all of the peer's messages before it
    are read. So a message that is delivered live while an older one is unread does not move the position, and is shown
    again with the older one. `missed` is the peer's last message that was not delivered live.
    """

    __slots__ = ("first_unread", "missed", "read")

    def __init__(self, read: int, first_unread: int | None, missed: int) -> None:
        self.read = read
        self.first_unread = first_unread
        self.missed = missed

    def received(self, seq: int, *, live: bool) -> bool:
        """Note the peer's next message. Return whether the read position moved."""
        if not live:
            self.missed = seq
            if self.first_unread is None:
                self.first_unread = seq
        elif self.first_unread is None:
            self.read = seq
            return True
        return False

    def sent(self, seq: int) -> None:
        """Note the user's own next message. If nothing before it is unread, the position moves over it."""
        if self.first_unread is None:
            self.read = seq

    def shown(self, upto: int, last: int) -> None:
        """Note that everything up to `upto` was shown on request, in a conversation that ends at `last`."""
        if self.first_unread is None or self.first_unread > upto:
            return
        if self.missed > upto:  # a message arrived meanwhile that no socket took
            self.read = upto
            self.first_unread = upto + 1
        else:
            self.read = max(upto, last)
            self.first_unread = None


class Conversation:
    """The state of one conversation while it is used. `Conversations` makes it and drops it."""

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
        # The last message in the store, as far as this process knows; None until it was read.
        self.head: Head | None = None
        # The last message that the sockets of this process were given; None until that matters. While it is not known,
        # `since` may say that it is the last message up to a time (milliseconds since the epoch).
        self.delivered_seq: int | None = None
        self.since: int | None = None
        # The pipeline: messages that no run has taken yet, those of the current run, those of the run that are being
        # inserted, the insert or task that continues with them, and the timer of the first deadline. The first two are
        # lists because they are short, and an empty deque takes 760 bytes.
        self.queue: list[PendingMessage] = []
        self.carried: list[PendingMessage] = []
        self.inserting: Sequence[Message] = ()
        self.writer: asyncio.Future[Any] | None = None
        self.overdue: asyncio.TimerHandle | None = None
        # Messages from other processes: buffered by seq, which of them the store did not have at the last read, whether
        # more has to be read once `inserting` is resolved, and the task that reads.
        self.out_of_order: dict[int, Message] = {}
        self.unconfirmed: Sequence[int] = ()
        self.needs_fetch = False
        self.catch_up_task: asyncio.Task[None] | None = None
        # Uses, and how many of them are sockets that follow the conversation.
        self.leases = 0
        self.followers = 0
        # Until when the limit rule is known not to refuse (seconds since the epoch).
        self.open_until = 0.0
        # Until when (loop time) messages up to the time `announced_to` (milliseconds) may be stored.
        self.announced_until = -1.0
        self.announced_to = 0
        # Until when (loop time) neither user is taken to have blocked the other.
        self.unblocked_until = -1.0
        self.read_states: dict[int, ReadState] = {}  # by user

    @property
    def active(self) -> bool:
        """Whether there are sockets to deliver to, or messages in the pipeline."""
        return self.followers > 0 or self.writer is not None or bool(self.queue)

    def clear(self) -> None:
        """Forget what is only true while sockets or messages keep it up to date."""
        self.head = None
        self.delivered_seq = None
        self.since = None
        self.out_of_order.clear()
        self.unconfirmed = ()
        self.needs_fetch = False
        self.read_states.clear()

    def other(self, user: int) -> int:
        """Return the peer of `user`."""
        return self.users[1] if user == self.users[0] else self.users[0]

    def advance(self, message: Message) -> None:
        """Note that `message` exists. If messages before it are not known, the head has to be read again."""
        if self.head is None or message.seq <= self.head.seq:
            return
        if message.seq > self.head.seq + 1:
            self.head = None
            return
        senders = ((message.sender, message.time), *self.head.senders)[:3]
        self.head = Head(message.seq, message.time, self.head.reserved, senders, self.head.mutual)
