"""What the chat asks of the rest of the house: Protocols that `storage` and `handlers` fulfil.

All coroutines raise EngineUnavailable when their engine is down or slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from models.chat.events import Event, PeerEvent
from models.records import Cursor, Head, Message, Profile, ReadPositions, Summary, UnreadStart, User

__all__ = [
    "Admission",
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

# Given a time in milliseconds since the epoch, what both users had sent to each other by then,
# (mine, theirs), each counted up to the limit.
Recount = Callable[[int], Awaitable[tuple[int, int]]]


class Conflict(NamedTuple):
    """A message of a run was not inserted, that at `offset`, nor any behind it: `existing` is there instead.

    At the same place it may be the very message (same key: an earlier attempt did succeed) or another
    process's; at another place it is the first copy of the message, and this one a resend.
    """

    existing: Message
    offset: int = 0  # in the run, from 0


class Admission(NamedTuple):
    """A message counted by the limit rule: enough to give the count back, and what the rule saw."""

    sender: int
    recipient: int
    epoch: str
    theirs: int


class Unread(NamedTuple):
    """What is asked of a conversation: how many messages of `sender` lie behind `read`, and up to `upto`."""

    conversation: str
    sender: int
    read: int
    upto: int | None = None


# The outcome of an attempt to store messages: None if all are.
Insert = asyncio.Future[Conflict | None]


class Messages(Protocol):
    """The stored messages."""

    async def head(self, conversation: str) -> Head:
        """Where the conversation stands, counting messages that have expired but are still there."""

    async def reserve(self, conversation: str, seq: int, until: int) -> int:
        """Reserves places up to `seq` and some way beyond, and returns up to where; announces messages up to `until`.

        No message stands, or will ever arrive, at a place that was not reserved before.
        """

    async def announce(self, conversation: str, until: int) -> None:
        """Announces messages up to a time (milliseconds): from now on lists reckon with them.

        Each message is announced before it is stored, at most ANNOUNCED_FOR seconds (models/chat/inserting.py) before
        an attempt to store it begins.
        """

    def insert(self, *run: Message) -> Insert:
        """Stores messages of one conversation, on a majority and journaled, in order.

        That ends at the first whose place or key is taken; none is stored, now or later, without all that stand before
        it in the run. NotSent says that nothing was sent, any other EngineUnavailable that the outcome is not known.
        """

    async def find(self, conversation: str, key: bytes) -> Message | None:
        """The message with this key, if it is stored."""

    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        """The unexpired messages behind `seq`, ascending, at most so many."""

    async def before(self, conversation: str, seq: int | None, most: int) -> list[Message]:
        """The last unexpired messages before `seq`, or of all, ascending, at most so many."""

    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        """The unexpired messages with `first` <= seq <= `last`, ascending."""

    async def newest(self, conversation: str) -> int:
        """The last `seq` that exists, 0 if none does."""

    async def last_before(self, conversation: str, time: int) -> int:
        """The last `seq` whose message is older than `time` (milliseconds), 0 if none is."""

    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        """How many unexpired messages of `sender` there are from up to `until` (milliseconds), at most `most`."""

    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        """What `reader` has read."""

    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        """Moves the read position forward, soon: positions are gathered and written together."""

    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        """Moves positions forward, durably; where they are then, and whether they moved."""

    async def unread(self, conversation: str, reader: int, peer: int, most: int) -> list[Message]:
        """The first messages of the peer that `reader` has not read, ascending, at most so many."""

    async def unread_counts(self, asked: Sequence[Unread], most: int) -> dict[str, int]:
        """By conversation, how many messages are unread, counted up to `most`; those that have none are left out."""

    async def newest_of(self, conversations: Sequence[str]) -> dict[str, int]:
        """The last `seq` of each conversation, 0 if it has no messages any more; those that never had are left out."""


class Directory(Protocol):
    """Who talks with whom."""

    async def introduce(self, conversation: str) -> None:
        """Notes that both users have written."""

    async def mutual(self, conversation: str) -> bool:
        """Whether both users have written."""

    async def met(self, user: int, peers: Sequence[int]) -> list[int]:
        """Those of `peers` with whom `user` has a conversation."""

    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        """The user's conversations that have unexpired messages, in the order of cursors, those behind `before`.

        With the peers in `upto` only messages up to a `seq` count.
        """


class Counters(Protocol):
    """The limit rule's counters, and the quotas of accounts."""

    @property
    def spent(self) -> Set[int]:
        """The accounts that may have no more stored for now; `admit` says until when."""

    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        """Decides on one message and counts it. Raises LimitReached, and QuotaReached, which is one."""

    async def take_stranger(self, sender: int, recipient: int) -> None:
        """Notes that a sender writes to somebody who never wrote to the sender. Raises QuotaReached."""

    def weigh(self, sender: int, content: str) -> None:
        """Counts the bytes of a message that was admitted and is stored, soon."""

    async def give_back(self, admission: Admission) -> None:
        """Takes back the count of a message that is known not to be stored; to be called once."""

    def gather(self, sender: int, recipient: int, recount: Recount, content: str) -> None:
        """Counts a stored message that the rule could not refuse, and its bytes, soon."""


class BlockStore(Protocol):
    """Who has blocked whom. A block is kept with the last `seq` that the conversation of the two had then."""

    async def block(self, user: int, peer: int) -> int:
        """Keeps a block; its `seq`. Raises Forbidden when that would be one too many."""

    async def unblock(self, user: int, peer: int) -> None:
        """Lifts a block."""

    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        """The `seq` of the block of the other by the one, and of the reverse; None where there is none."""

    async def newest(self, one: int, other: int) -> int:
        """The last `seq` of the conversation of two, 0 if it has none."""

    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        """By user, whom these users have blocked, and the `seq` of each block."""


class Users(Protocol):
    """The user table."""

    async def active(self, *ids: int) -> dict[int, User]:
        """The active users among `ids`, as they were some seconds ago or less."""

    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        """The active users among `ids`, as they are now."""

    async def named(self, user_name: str) -> User | None:
        """The active user of that name."""

    async def first(self, count: int) -> list[User]:
        """The active users with the lowest ids, by id, at most so many, as they are now."""

    async def change(self, user: int, profile: Profile) -> User | None:
        """Changes what is given of a user's profile; the user as it is then, None if there is none."""


class Reached(NamedTuple):
    """Which of the recipient's sockets took a message: any; one for which that counts as read."""

    live: bool
    read: bool


class Sockets(Protocol):
    """The sockets that this process holds."""

    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        """Writes a message to all sockets of both users that talk with each other, except `origin`.

        `withheld` leaves out those of the recipient.
        """

    def resume(self, user: int, peer: int) -> None:
        """Closes the sockets of `user` that talk with `peer`, so that they resume."""

    def reaches(self, user: int, peer: int) -> bool:
        """Whether a socket of `user` gets what `peer` writes."""

    def tell(self, event: PeerEvent) -> None:
        """Writes what is not a message to the peer's sockets; those that are slow may go without."""

    def present(self, user: int, peer: int, *, online: bool) -> None:
        """Tells the sockets of `user` that `peer` came online or went offline."""


class Cluster(Protocol):
    """The other processes that serve the same users. All of it is best effort: what is lost is found in the store."""

    @property
    def single_process(self) -> bool:
        """Whether there is no other process."""

    def follow(self, user: int, peer: int) -> None:
        """A socket of `user` that talks with `peer` has opened; 0 stands for all peers."""

    def unfollow(self, user: int, peer: int) -> None:
        """The counterpart of `follow`."""

    def watch(self, user: int) -> None:
        """Somebody here wants to know when `user` comes or goes."""

    def unwatch(self, user: int) -> None:
        """The counterpart of `watch`."""

    def publish(self, event: Event) -> None:
        """Tells the others, soon."""

    async def publish_and_count(self, message: Message) -> bool:
        """Tells the others of a stored message; whether a socket of the recipient gets it there."""

    async def reaches(self, user: int, peer: int) -> bool:
        """Whether a socket of another process gets what `peer` writes to `user`."""

    def publish_presence_change(self, user: int) -> None:
        """Tells those who watch `user` to look again."""

    def publish_account_change(self, user: int) -> None:
        """Tells those who have sockets of `user` to look whether they still may."""

    async def online(self, users: Sequence[int]) -> set[int]:
        """Which of these users have a socket in another process."""


class Listener(Protocol):
    """Who is told what comes from the other processes."""

    def arrived(self, event: Event) -> None:
        """Something happened that may concern sockets of this process."""

    def followed(self, user: int, peer: int) -> None:
        """From now on events for this user come in; before, some may have been missed."""

    def presence_changed(self, user: int) -> None:
        """A watched user came or went."""

    def account_changed(self, user: int) -> None:
        """A user's account or tokens have changed."""

    def interrupted(self) -> None:
        """For a while nothing came in."""
