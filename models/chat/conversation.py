"""The state of an active conversation in this process, and the messages in its pipeline.

A Conversation owns its state: other modules read it, and change it through its methods, which keep what has to stay
true. models/chat/pipeline.py runs the pipeline, models/chat/delivery.py the delivery to the sockets.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import structlog
from msgspec import structs

from common.backoff import Backoff
from models.chat.ports import Admission
from models.chat.stranger_limit import LIMIT
from models.errors import ChatError, StorageUnavailable
from models.protocol.v1 import Code
from models.records import Head, Message, conversation_of

__all__ = ["NEVER", "Conversation", "PendingMessage", "ReadState", "Run", "SocketKind", "Stored"]

NEVER = -1.0  # loop time that has passed
MAX_OUT_OF_ORDER = 64  # buffered messages of a conversation

_log = structlog.get_logger(__name__)


class SocketKind(IntEnum):
    """For which peers a socket is: for one, or for all. Each kind is a bit, so a number can hold a set of them."""

    PAIR = 1
    INBOX = 2


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
            try:
                if self.answered is not None:
                    self.answered(self)
                self.resolved(self)
            except Exception:  # noqa: BLE001  # a bug of one sender must not stop the others' messages
                _log.exception("answer_failed", sender=self.sender)

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


class Run:
    """Messages of one conversation that are stored together, in order; the part of its queue that is in progress.

    Attributes:
        pending: The messages that are not finished. Those that have passed their deadline stay until they are known not
            to be stored.
        documents: What is being inserted: the first of `pending`, with their seqs. Empty while the run is prepared.
        uncertain: Whether an earlier attempt may have stored some of `documents`, or may still do so.
        admission: What the limit rule counted for the run, which then has one message; None if it did not have to.
        backoff: The pauses between the attempts to insert; None before the first attempt has failed.
        work: The insert, or the task that prepares or finishes the run.
    """

    __slots__ = ("admission", "backoff", "documents", "pending", "uncertain", "work")

    def __init__(self, pending: list[PendingMessage]) -> None:
        self.pending = pending
        self.documents: Sequence[Message] = ()
        self.uncertain = False
        self.admission: Admission | None = None
        self.backoff: Backoff | None = None
        self.work: asyncio.Future[Any] | None = None

    def assign_seqs(self, head: Head, time: int) -> list[PendingMessage]:
        """Make the documents, of this time (milliseconds), at the seqs after the head.

        Return the messages for which no seq is reserved. They no longer belong to the run.
        """
        seqs = range(head.seq + 1, head.reserved + 1)
        self.documents = [pending.at(seq, time) for pending, seq in zip(self.pending, seqs, strict=False)]
        self.uncertain = False
        made = len(self.documents)
        rest, self.pending[made:] = self.pending[made:], []
        return rest

    def drop_resolved(self) -> None:
        """Drop the messages that have an outcome: they passed their deadline, and are known not to be stored."""
        self.pending = [pending for pending in self.pending if pending.outcome is None]

    @contextmanager
    def delivering(self, message: Message) -> Iterator[None]:
        """Treat a message as if it was being inserted: nothing else delivers it until the context ends."""
        self.documents = (message,)
        try:
            yield
        finally:
            self.documents = ()


class Conversation:
    """The state of one conversation while it is used. `Conversations` makes it and drops it."""

    __slots__ = (
        "_followers",
        "announced_to",
        "announced_until",
        "catch_up_task",
        "delivered_seq",
        "head",
        "leases",
        "name",
        "needs_fetch",
        "open_until",
        "out_of_order",
        "overdue",
        "overdue_at",
        "queue",
        "read_states",
        "run",
        "since",
        "unblocked_until",
        "unconfirmed",
        "users",
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
        # The pipeline: messages that no run has taken yet, the run in progress, and the timer of the first deadline.
        # The queue is a list because it is short, and an empty deque takes 760 bytes.
        self.queue: list[PendingMessage] = []
        self.run: Run | None = None
        self.overdue: asyncio.TimerHandle | None = None
        self.overdue_at = 0.0  # loop time; uvloop's handle of a time that is near or past does not know it
        # Messages from other processes: buffered by seq, which of them the store did not have at the last read, whether
        # more has to be read once nothing is being inserted, and the task that reads.
        self.out_of_order: dict[int, Message] = {}
        self.unconfirmed: Sequence[int] = ()
        self.needs_fetch = False
        self.catch_up_task: asyncio.Task[None] | None = None
        # Which kinds of sockets of which of the two follow the conversation, as bits; and the uses by requests.
        self._followers = 0
        self.leases = 0
        # Until when the limit rule is known not to refuse (seconds since the epoch).
        self.open_until = 0.0
        # Until when (loop time) messages up to the time `announced_to` (milliseconds) may be stored.
        self.announced_until = NEVER
        self.announced_to = 0
        # Until when (loop time) neither user is taken to have blocked the other, or to be gone.
        self.unblocked_until = NEVER
        self.read_states: dict[int, ReadState] = {}  # by user

    @property
    def active(self) -> bool:
        """Whether there are sockets to deliver to, or messages in the pipeline."""
        return self._followers > 0 or self.run is not None or bool(self.queue)

    @property
    def inserting(self) -> bool:
        """Whether the store may already have messages of this process that this process has not delivered yet."""
        return self.run is not None and bool(self.run.documents)

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

    # Followers

    @property
    def followed(self) -> bool:
        """Whether there are sockets to deliver to."""
        return self._followers > 0

    def follow(self, user: int, kind: SocketKind) -> None:
        """Note that one of the two users has sockets of a kind, which get every message."""
        self._followers |= self._bit_of(user, kind)

    def unfollow(self, user: int, kind: SocketKind) -> None:
        """Note that one of the two users has no sockets of a kind any more."""
        self._followers &= ~self._bit_of(user, kind)

    def _bit_of(self, user: int, kind: SocketKind) -> int:
        return kind if user == self.users[0] else kind << len(SocketKind)

    # The queue and the run

    def enqueue(self, pending: PendingMessage) -> None:
        """Put a message at the end of the queue. At its deadline (loop time), it is resolved with StorageUnavailable.

        There is one timer for each conversation.
        """
        self.queue.append(pending)
        self._keep_deadline(pending.deadline)

    def take_run(self, most: int) -> Run | None:
        """Begin a run of at most `most` messages from the queue; None if there are none.

        Messages that have passed their deadline are dropped.
        """
        queue = self.queue
        while queue:
            taken = [pending for pending in queue[:most] if pending.outcome is None]
            del queue[:most]
            if taken:
                self.run = Run(taken)
                return self.run
        self.run = None
        return None

    def put_back(self, pending: Sequence[PendingMessage]) -> None:
        """Put messages of the run back to the front of the queue, without those that have an outcome."""
        self.queue[:0] = [each for each in pending if each.outcome is None]

    def end_run(self) -> None:
        """Note that no run is in progress."""
        self.run = None

    def _keep_deadline(self, deadline: float) -> None:
        if self.overdue is not None:
            if self.overdue_at <= deadline:
                return
            self.overdue.cancel()
        self.overdue_at = deadline
        self.overdue = asyncio.get_running_loop().call_at(deadline, self._at_deadline)

    def _at_deadline(self) -> None:
        self.overdue = None
        now = asyncio.get_running_loop().time()
        running = () if self.run is None else self.run.pending
        waiting = [pending for pending in (*running, *self.queue) if pending.outcome is None]
        for pending in waiting:
            if pending.deadline <= now:
                pending.resolve(StorageUnavailable("storage", "no answer yet"))
        later = [pending.deadline for pending in waiting if pending.deadline > now]
        if later:
            self._keep_deadline(min(later))

    # The limit rule and blocks

    def keep_open(self, until: float) -> None:
        """Note that the limit rule does not refuse until a time (seconds since the epoch)."""
        self.open_until = until

    def keep_unblocked(self, until: float) -> None:
        """Note that neither user is taken to have blocked the other until a time (loop time)."""
        self.unblocked_until = until

    def doubt_peers(self) -> None:
        """Note that a block or an account has changed: look before the next message is stored."""
        self.unblocked_until = NEVER

    # The head

    def learn_head(self, head: Head) -> None:
        """Take what the store says about the last message."""
        self.head = head
        self.read_states.clear()

    def advance(self, message: Message) -> None:
        """Note that `message` exists. If messages before it are not known, the head has to be read again."""
        if self.head is None or message.seq <= self.head.seq:
            return
        if message.seq > self.head.seq + 1:
            self.head = None
            return
        senders = ((message.sender, message.time), *self.head.senders)[:LIMIT]
        self.head = Head(message.seq, message.time, self.head.reserved, senders, self.head.mutual)

    def forget_head(self) -> None:
        """Have the head read again before the next message is inserted."""
        self.head = None

    def note_reserved(self, reserved: int) -> None:
        """Note up to where seqs are reserved."""
        if self.head is not None:
            self.head = structs.replace(self.head, reserved=max(reserved, self.head.reserved))

    def note_announced(self, until: float, to: int) -> None:
        """Note that messages up to the time `to` (milliseconds) may be stored until `until` (loop time)."""
        self.announced_until, self.announced_to = until, to

    def is_announced(self, now: float, time: int) -> bool:
        """Return whether a message of this time (milliseconds) may be stored from `now` (loop time) on."""
        return self.announced_until > now and time <= self.announced_to

    def note_mutual(self) -> None:
        """Note that it is recorded that both have written."""
        if self.head is not None:
            self.head = structs.replace(self.head, mutual=True)

    # Delivery

    def begin_delivery(self, seq: int) -> None:
        """Deliver what comes after `seq` to the sockets, unless delivery has begun."""
        if self.delivered_seq is None:
            self.delivered_seq, self.since = seq, None

    def begin_delivery_since(self, time: int) -> None:
        """Deliver what is newer than `time` (milliseconds), once it is known which message that is."""
        self.since = time

    def note_delivered(self, seq: int) -> None:
        """Note that the sockets were given the message at `seq`, or that there is none up to there any more."""
        self.delivered_seq = seq if self.delivered_seq is None else max(self.delivered_seq, seq)

    def buffer(self, message: Message) -> None:
        """Keep another process's message until those before it are delivered. If too many are kept, have it read."""
        if len(self.out_of_order) < MAX_OUT_OF_ORDER:
            self.out_of_order[message.seq] = message
        else:
            self.needs_fetch = True

    def next_buffered(self) -> Message | None:
        """Take the buffered message that is next, if there is one."""
        return None if self.delivered_seq is None else self.out_of_order.pop(self.delivered_seq + 1, None)

    def begin_fetch(self) -> None:
        """Note that the store is about to be read."""
        self.needs_fetch = False
        self.unconfirmed = ()

    def need_fetch(self) -> None:
        """Have the store read again once nothing is being inserted."""
        self.needs_fetch = True

    def end_fetch(self, buffered: Sequence[int]) -> None:
        """Note that everything in the store was delivered, and that `buffered` were buffered when it was read."""
        delivered = self.delivered_seq or 0
        self.out_of_order = {seq: message for seq, message in self.out_of_order.items() if seq > delivered}
        self.unconfirmed = tuple(seq for seq in buffered if seq in self.out_of_order)

    def drop_unconfirmed(self) -> list[int]:
        """Drop the buffered messages that the store does not have, and return their seqs."""
        dropped = sorted(self.unconfirmed)
        for seq in dropped:
            self.out_of_order.pop(seq, None)
        self.unconfirmed = ()
        return dropped
