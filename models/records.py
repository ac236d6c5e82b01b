"""The records that the packages exchange: users, messages, positions, and the names of conversations."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

__all__ = [
    "MAX_ID",
    "Cursor",
    "Head",
    "Identity",
    "Message",
    "Profile",
    "ReadPositions",
    "Summary",
    "UnreadStart",
    "User",
    "conversation_of",
    "key_of",
    "new_keys",
    "user_id",
]

MAX_ID = 2**63 - 1  # the largest integer of MongoDB


def user_id(text: str) -> int | None:
    """Return the user id in a text, None if it is not one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and text[0] != "0"):
        return None
    return int(text) if int(text) <= MAX_ID else None


def conversation_of(one: int, other: int) -> str:
    """Return the name of the conversation of two users, in either order: both ids, the smaller first."""
    return f"{one}-{other}" if one < other else f"{other}-{one}"


def key_of(sender: int, message_id: str) -> bytes:
    """Return the key of a message to which its sender gave an id. It is the same for every attempt to send the message.

    Rising keys keep the index over them cheap, so the time in a UUIDv7 (RFC 9562, section 5.7) comes first.
    """
    digest = hashlib.blake2b(f"{sender} {message_id}".encode(), digest_size=16).digest()
    try:
        uuid = UUID(message_id)
    except ValueError:
        return digest
    return uuid.bytes[:6] + digest[:10] if uuid.version == 7 else digest


def new_keys(now: Callable[[], float], process: bytes) -> Callable[[], bytes]:
    """Return a function that makes keys for messages without an id. `now` returns seconds since the epoch.

    A key is six bytes of time, so that the index over keys grows at its end, then `process`, six bytes that are
    different for each process, then a counter.
    """
    numbers = itertools.count()

    def key() -> bytes:
        return int(now() * 1000).to_bytes(6, "big") + process + (next(numbers) & 0xFFFFFFFF).to_bytes(4, "big")

    return key


class User(Struct, frozen=True):
    """A row of the user table, without its password digest. `created_at` is in seconds since the epoch.

    `token_version` is the version of the user's valid tokens. Tokens without a version are valid if they were issued
    after `tokens_since` (seconds since the epoch).
    """

    id: int
    user_name: str
    nick_name: str
    email: str
    avatar: str
    status: str
    created_at: int
    token_version: str = ""
    tokens_since: int = 0


class Profile(Struct, frozen=True):
    """The fields of their row that users may change; None leaves one as it is."""

    nick_name: str | None = None
    email: str | None = None
    avatar: str | None = None


class Message(Struct, frozen=True):
    """A message at its seq in a conversation.

    `seq` counts 1, 2, 3 … within the conversation. `time` is in milliseconds since the epoch, and never before the
    previous message's. `key` (16 bytes) identifies the message in its conversation, so that a repeated insert is
    recognised. `id` is the sender's id for it, "" if it has none.
    """

    sender: int
    recipient: int
    seq: int
    time: int
    content: str
    key: bytes
    id: str = ""

    @property
    def conversation(self) -> str:
        """The name of the conversation that the message belongs to."""
        return conversation_of(self.sender, self.recipient)


class Head(Struct, frozen=True):
    """The head of a conversation: its last `seq` and `time`, and the last `reserved` seq.

    `senders` are the senders and times of the newest messages, at most three, newest first. `mutual` says that both
    users have written.
    """

    seq: int
    time: int
    reserved: int
    senders: tuple[tuple[int, int], ...]
    mutual: bool = False


class UnreadStart(Struct, frozen=True):
    """Where the unread messages of a user begin.

    The user has read up to `read`. `first_unread` is the first message of the peer after it, None if there is none.
    """

    read: int
    first_unread: int | None


class ReadPositions(Struct, frozen=True):
    """Up to which `seq` a user has received and read a conversation. What is read counts as received."""

    received: int = 0
    read: int = 0


class Summary(Struct, frozen=True):
    """A conversation as one of its users sees it in a list.

    `last` is the last message that the user is shown. `mutual` says that both have written. `mine` and `theirs` are the
    positions of the user and of the peer.
    """

    peer: int
    last: Message
    mutual: bool
    mine: ReadPositions = ReadPositions()
    theirs: ReadPositions = ReadPositions()


class Cursor(NamedTuple):
    """A position in a user's list of conversations: after the one with `peer`, whose last message has this `time`.

    Newer times come first, lower peers first within a millisecond. `time` is in milliseconds since the epoch.
    """

    time: int
    peer: int = MAX_ID


class Identity(Struct, frozen=True):
    """The caller's user, and the token: `session` (16 bytes) identifies it, and is empty if `uid` was believed.

    `version` is the version of the user's tokens when it was issued, None if another back end issued it. `issued` and
    `expires` are in seconds since the epoch.
    """

    user: int
    session: bytes = b""
    version: str | None = None
    issued: float = 0
    expires: float | None = None
