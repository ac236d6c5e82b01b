"""What the chat needs from storage and handlers: Protocols that these implement.

All coroutines raise StorageUnavailable when their database is down or slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from models.chat.events import Event, PeerEvent
from models.records import Cursor, Head, Message, Profile, ReadPositions, Summary, UnreadStart, User

__all__ = [
    "Admission",
    "Attendance",
    "BlockStore",
    "Cluster",
    "Conflict",
    "Counters",
    "Directory",
    "Insert",
    "Messages",
    "Reached",
    "Recount",
    "Sockets",
    "Unread",
    "Users",
]

# Given a time in milliseconds since the epoch: how many messages both users had sent each other by then (mine, theirs),
# each counted up to the limit.
Recount = Callable[[int], Awaitable[tuple[int, int]]]


class Conflict(NamedTuple):
    """The message at `offset` of a run, and all after it, were not inserted: `existing` has its seq or its key.

    With the same seq it may be the message itself (same key), which an earlier attempt has stored, or another process's
    message. With another seq it is the first copy of the message, which is a resend.
    """

    existing: Message
    offset: int = 0  # in the run, from 0


class Admission(NamedTuple):
    """A message that the limit rule counted: what is needed to take the count back, and what the rule saw."""

    sender: int
    recipient: int
    epoch: str
    theirs: int


class Unread(NamedTuple):
    """A question about a conversation: how many messages of `sender` there are after `read`, up to `upto`."""

    conversation: str
    sender: int
    read: int
    upto: int | None = None


# The outcome of an attempt to store messages: None if all are stored.
Insert = asyncio.Future[Conflict | None]


class Messages(Protocol):
    """The stored messages."""

    async def head(self, conversation: str) -> Head:
        """Return the conversation's head, counting messages that have expired but still exist."""

    async def reserve(self, conversation: str, seq: int, until: int) -> int:
        """Reserve seqs up to `seq` and some more, and return the last one. Announce messages up to the time `until`.

        No message has, or will ever have, a seq that was not reserved before.
        """

    async def announce(self, conversation: str, until: int) -> None:
        """Announce messages up to a time (milliseconds): lists allow for them from now on.

        Each message is announced before it is stored, at most ANNOUNCED_FOR seconds (models/chat/pipeline.py) before
        an attempt to store it begins.
        """

    def insert(self, *run: Message) -> Insert:
        """Store messages of one conversation in order, on a majority and journaled.

        The insert ends at the first message whose seq or key is taken. No message is stored, now or later, without all
        those before it in the run. NotSent says that nothing was sent; any other StorageUnavailable means an unknown
        outcome.
        """

    async def find(self, conversation: str, key: bytes) -> Message | None:
        """Return the message with this key, None if it is not stored."""

    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        """Return the first unexpired messages after `seq`, ascending, at most `most`."""

    async def before(self, conversation: str, seq: int | None, most: int) -> list[Message]:
        """Return the last unexpired messages before `seq`, or of all, ascending, at most `most`."""

    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        """Return the unexpired messages with `first` <= seq <= `last`, ascending."""

    async def newest(self, conversation: str) -> int:
        """Return the last `seq` that exists, 0 if none does."""

    async def last_before(self, conversation: str, time: int) -> int:
        """Return the last `seq` whose message is older than `time` (milliseconds), 0 if none is."""

    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        """Return how many unexpired messages `sender` has sent up to `until` (milliseconds), at most `most`."""

    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        """Return where the messages begin that `reader` has not read."""

    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        """Move the read position forward, soon: positions are collected and written together."""

    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        """Move positions forward, durably. Return the positions then, and whether they moved."""

    async def unread(self, conversation: str, reader: int, peer: int, most: int) -> list[Message]:
        """Return the peer's first messages that `reader` has not read, ascending, at most `most`."""

    async def unread_counts(self, asked: Sequence[Unread], most: int) -> dict[str, int]:
        """Return the numbers of unread messages by conversation, counted up to `most`, without those that are 0."""

    async def newest_of(self, conversations: Sequence[str]) -> dict[str, int]:
        """Return the last `seq` of each conversation, 0 if all its messages are gone.

        Conversations that never had any are left out.
        """


class Directory(Protocol):
    """Which users talk with each other."""

    async def introduce(self, conversation: str) -> None:
        """Record that both users have written."""

    async def mutual(self, conversation: str) -> bool:
        """Return whether both users have written."""

    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        """Return those of `peers` with whom `user` has a conversation."""

    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        """Return the user's conversations that have unexpired messages, in the order of cursors, those after `before`.

        For the peers in `upto`, only messages up to that `seq` count.
        """


class Counters(Protocol):
    """The counters of the limit rule, and the quotas of accounts."""

    @property
    def spent(self) -> Set[int]:
        """The accounts whose quota is used up for now; `admit` says until when."""

    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        """Decide on one message and count it. Raises LimitReached, and QuotaReached, a subclass of it."""

    async def take_stranger(self, sender: int, recipient: int) -> None:
        """Count that a sender writes to a user who has never written to the sender. Raises QuotaReached."""

    def weigh(self, sender: int, content: str) -> None:
        """Count the bytes of a message that was admitted and is stored, soon."""

    async def give_back(self, admission: Admission) -> None:
        """Take back the count of a message that is known not to be stored. Call it once."""

    def gather(self, sender: int, recipient: int, recount: Recount, content: str) -> None:
        """Count a stored message that the rule could not refuse, and its bytes, soon."""


class BlockStore(Protocol):
    """The blocks. A block is stored with the last `seq` that the conversation had then."""

    async def block(self, user: int, peer: int) -> int:
        """Store a block and return its `seq`. Raises Forbidden if the user has too many."""

    async def unblock(self, user: int, peer: int) -> None:
        """Delete a block."""

    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        """Return the `seq` of the block of `other` by `one`, and of the reverse; None where there is none."""

    async def newest(self, one: int, other: int) -> int:
        """Return the last `seq` of the conversation of two users, 0 if it has none."""

    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        """Return by user the peers whom these users have blocked, and the `seq` of each block."""


class Users(Protocol):
    """The user table."""

    async def active(self, *ids: int) -> dict[int, User]:
        """Return the active users among `ids`, as they were at most some seconds ago."""

    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        """Return the active users among `ids`, as they are now."""

    async def named(self, user_name: str) -> User | None:
        """Return the active user of that name."""

    async def first(self, count: int) -> list[User]:
        """Return the active users with the lowest ids, in order, at most `count`, as they are now."""

    async def change(self, user: int, profile: Profile) -> User | None:
        """Change the given fields of a user's profile. Return the changed user, None if there is none."""


class Reached(NamedTuple):
    """Which of the recipient's sockets took a message.

    `live` if any did, `read` if one did for which delivery counts as read.
    """

    live: bool
    read: bool


class Sockets(Protocol):
    """The sockets of this process."""

    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        """Write a message to all sockets of the two users' conversation, except `origin`.

        With `withheld`, the recipient's sockets are left out.
        """

    def resume(self, user: int, peer: int) -> None:
        """Close the sockets of `user` that talk with `peer`, so that they resume."""

    def reaches(self, user: int, peer: int) -> bool:
        """Return whether a socket of `user` gets what `peer` writes."""

    def tell(self, event: PeerEvent) -> None:
        """Write an event to the peer's sockets. A slow socket may miss it."""

    def present(self, user: int, peer: int, *, online: bool) -> None:
        """Tell the sockets of `user` that `peer` came online or went offline."""

    def has(self, user: int) -> bool:
        """Return whether `user` has a socket here."""


class Attendance(Protocol):
    """What the hub tells of the sockets of this process: the first and the last of each user and of each pair.

    A connection of a user is counted from its handshake until it is lost, a socket only while it is in the hub. A pair
    is a user and the peer that sockets of the user talk with; the peer is None for inbox sockets. The hub alone counts,
    so each first one is told once, and each last one once after it. The calls come in the order of joining and leaving,
    and the hub's answers hold already what they tell. They must not close a socket.

    If a call for a first one fails, the socket does not join, and the calls for the last ones follow. So these must do
    nothing where nothing was begun.
    """

    def user_connecting(self, user: int) -> None:
        """Note that the first connection of `user` is being opened. Its socket joins later, or never."""

    def user_disconnected(self, user: int) -> None:
        """Note that the last connection of `user` is lost or was refused; its socket has left before."""

    def user_online(self, user: int) -> None:
        """Note that the first socket of `user` has joined."""

    def user_offline(self, user: int) -> None:
        """Note that the last socket of `user` has left."""

    def pair_opened(self, user: int, peer: int | None) -> None:
        """Note that the first socket of a pair has joined, after `user_online`."""

    def pair_closed(self, user: int, peer: int | None) -> None:
        """Note that the last socket of a pair has left, before `user_offline`."""

    def pair_watched(self, user: int, peer: int) -> None:
        """Note that the first socket of a pair that reports presence has joined, after `pair_opened`."""

    def pair_unwatched(self, user: int, peer: int) -> None:
        """Note that the last socket of a pair that reports presence has left, before `pair_closed`."""


class Cluster(Protocol):
    """The other processes with the same databases. All calls are best effort: what is lost is found in the store."""

    @property
    def single_process(self) -> bool:
        """Whether there is no other process."""

    def mark_online(self, user: int) -> None:
        """Let the other processes find that `user` has a socket here."""

    def mark_offline(self, user: int) -> None:
        """Undo `mark_online`."""

    def follow(self, user: int, peer: int) -> None:
        """Subscribe to the events for sockets of `user` that talk with `peer`; 0 stands for all peers."""

    def unfollow(self, user: int, peer: int) -> None:
        """Undo `follow`."""

    def watch(self, user: int) -> None:
        """Subscribe to the presence of `user`."""

    def unwatch(self, user: int) -> None:
        """Undo `watch`."""

    def publish(self, event: Event) -> None:
        """Publish an event to the other processes, soon."""

    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        """Publish a stored message, soon. Return whether a socket of the recipient in another process gets it.

        The future has no exception, and is done within a second.
        """

    async def reaches(self, user: int, peer: int) -> bool:
        """Return whether a socket in another process gets what `peer` writes to `user`."""

    def publish_presence_change(self, user: int) -> None:
        """Make the processes that watch `user` read their presence again."""

    def publish_account_change(self, user: int) -> None:
        """Make the processes that have sockets of `user` check whether these are still allowed."""

    async def online(self, users: Sequence[int]) -> set[int]:
        """Return which of these users have a socket in another process."""


class Listener(Protocol):
    """What is called with the events of the other processes."""

    def arrived(self, event: Event) -> None:
        """Handle an event that may concern sockets of this process."""

    def followed(self, user: int, peer: int) -> None:
        """Note that events for this user arrive from now on. Earlier ones may have been missed."""

    def presence_changed(self, user: int) -> None:
        """Note that a watched user came online or went offline."""

    def account_changed(self, user: int) -> None:
        """Note that a user's account or tokens have changed."""

    def interrupted(self) -> None:
        """Note that for a while no events arrived."""
