"""What the chat asks of the rest of the house: Protocols that `storage` and `handlers` fulfil.

All coroutines raise EngineUnavailable when their engine is down or slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from models.records import Bookmarks, Head, Message, User

__all__ = ["Admission", "Counters", "Messages", "Occupied", "Recount", "Sockets", "Users"]

# Given a time in milliseconds since the epoch, what both users had sent to each other by then,
# (mine, theirs), each counted up to the limit.
Recount = Callable[[int], Awaitable[tuple[int, int]]]


class Occupied(NamedTuple):
    """A message was not inserted: `standing` is there instead.

    At the same place it may be the very message (same key: an earlier attempt did succeed) or another
    process's; at another place it is the first copy of the message, and this one a resend.
    """

    standing: Message


class Admission(NamedTuple):
    """A message counted by the limit rule: enough to give the count back, and what the rule saw."""

    sender: int
    recipient: int
    epoch: str
    theirs: int


class Messages(Protocol):
    """The stored messages."""

    async def head(self, conversation: str) -> Head:
        """Where the conversation stands, counting messages that have expired but are still there."""

    async def reserve(self, conversation: str, seq: int) -> int:
        """Reserves places up to `seq` and some way beyond, and returns up to where.

        No message stands, or will ever arrive, at a place that was not reserved before.
        """

    async def insert(self, message: Message) -> Occupied | None:
        """Stores the message, on a majority and journaled, unless its place or its key is taken.

        NotSent says that nothing was sent, any other EngineUnavailable that the outcome is not known.
        """

    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        """The unexpired messages with `first` <= seq <= `last`, ascending."""

    async def newest(self, conversation: str) -> int:
        """The last `seq` that exists, 0 if none does."""

    async def last_before(self, conversation: str, time: int) -> int:
        """The last `seq` whose message is older than `time` (milliseconds), 0 if none is."""

    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        """How many unexpired messages of `sender` there are from up to `until` (milliseconds), at most `most`."""

    async def bookmarks(self, conversation: str, reader: int, peer: int) -> Bookmarks:
        """What `reader` has read."""

    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        """Moves the read position forward, soon: positions are gathered and written together."""


class Counters(Protocol):
    """The limit rule's counters."""

    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        """Decides on one message and counts it, in one atomic step. Raises LimitReached."""

    async def give_back(self, admission: Admission) -> None:
        """Takes back the count of a message that is known not to be stored; to be called once."""

    def gather(self, sender: int, recipient: int, recount: Recount) -> None:
        """Counts a message that the rule cannot refuse, soon."""


class Users(Protocol):
    """The user table."""

    async def active(self, *ids: int) -> dict[int, User]:
        """The active users among `ids`."""

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user. Raises NameTaken."""


class Sockets(Protocol):
    """The sockets that this process holds."""

    def deliver(self, message: Message) -> bool:
        """Writes a message to the recipient's sockets; whether there was one that took it."""
