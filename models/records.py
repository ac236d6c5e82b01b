"""The records that pass between the rooms: users, messages, and what a conversation is called."""

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

MAX_ID = 2**63 - 1  # what MongoDB can hold


def user_id(text: str) -> int | None:
    """The id of a user that a text is, None if it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and text[0] != "0"):
        return None
    return int(text) if int(text) <= MAX_ID else None


def conversation_of(one: int, other: int) -> str:
    """The name of the conversation of two users: both ids, the smaller first, whoever asks."""
    return f"{one}-{other}" if one < other else f"{other}-{one}"


def key_of(sender: int, message_id: str) -> bytes:
    """The key of a message to which its sender gave an id: the same for every attempt to send it.

    Keys that rise keep the index over them cheap, so the time in a UUIDv7 (RFC 9562, section 5.7) leads.
    """
    digest = hashlib.blake2b(f"{sender} {message_id}".encode(), digest_size=16).digest()
    try:
        uuid = UUID(message_id)
    except ValueError:
        return digest
    return uuid.bytes[:6] + digest[:10] if uuid.version == 7 else digest


def new_keys(now: Callable[[], float], process: bytes) -> Callable[[], bytes]:
    """What makes keys for messages without an id; `now` returns seconds since the epoch.

    Six bytes of time, so that the index over keys grows at its end, then `process`, six bytes that tell this process
    from every other, then a count.
    """
    numbers = itertools.count()

    def key() -> bytes:
        return int(now() * 1000).to_bytes(6, "big") + process + (next(numbers) & 0xFFFFFFFF).to_bytes(4, "big")

    return key


class User(Struct, frozen=True):
    """A row of the user table, without its password digest; `created_at` in seconds since the epoch.

    `token_version` is that of the user's good tokens; tokens without one were issued after `tokens_since` (seconds
    since the epoch).
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
    """What users may change of their rows; None leaves it as it is."""

    nick_name: str | None = None
    email: str | None = None
    avatar: str | None = None


class Message(Struct, frozen=True):
    """One message at its place in a conversation.

    `seq` counts 1, 2, 3 … within the conversation, `time` is in milliseconds since the epoch and never
    before the previous message's. `key` (16 bytes) tells this message from every other of the
    conversation, so that a repeated insert is recognised. `id` is what its sender called it, "" if nothing.
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
    """Where a conversation stands: the last `seq` and `time` that exist, and up to which `seq` places are reserved.

    `senders` are the senders and times of the newest messages, at most three, newest first; `mutual` says that
    both have written.
    """

    seq: int
    time: int
    reserved: int
    senders: tuple[tuple[int, int], ...]
    mutual: bool = False


class UnreadStart(Struct, frozen=True):
    """What one user has read of a conversation: up to `read`, and the peer's first message after that, if any."""

    read: int
    first_unread: int | None


class ReadPositions(Struct, frozen=True):
    """Up to which `seq` one user has received a conversation, and read it; what is read was received."""

    received: int = 0
    read: int = 0


class Summary(Struct, frozen=True):
    """A conversation as one of its users sees it in a list.

    `last` is the last message that the user is shown, `mutual` says that both have written. `mine` and `theirs` are the
    positions of the user and of the peer.
    """

    peer: int
    last: Message
    mutual: bool
    mine: ReadPositions = ReadPositions()
    theirs: ReadPositions = ReadPositions()


class Cursor(NamedTuple):
    """A place in a user's list of conversations: behind that of `peer`, whose last message is of `time`.

    Newer times come first, lower peers first within a millisecond. `time` is in milliseconds since the epoch.
    """

    time: int
    peer: int = MAX_ID


class Identity(Struct, frozen=True):
    """Who somebody is, and by which token: `session` (16 bytes) tells it from all others; empty if `uid` was believed.

    `version` is that of the user's tokens when it was issued, None if another back end issued it; `issued` and
    `expires` are in seconds since the epoch.
    """

    user: int
    session: bytes = b""
    version: str | None = None
    issued: float = 0
    expires: float | None = None
