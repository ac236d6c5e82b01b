"""The records that pass between the rooms: users, messages, and what a conversation is called."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Bookmarks", "Head", "Message", "User", "conversation_of"]


def conversation_of(one: int, other: int) -> str:
    """The name of the conversation of two users: both ids, the smaller first, whoever asks."""
    return f"{one}-{other}" if one < other else f"{other}-{one}"


class User(Struct, frozen=True):
    """A row of the user table, without its password digest; `created_at` in seconds since the epoch."""

    id: int
    user_name: str
    nick_name: str
    email: str
    avatar: str
    status: str
    created_at: int


class Message(Struct, frozen=True):
    """One message at its place in a conversation.

    `seq` counts 1, 2, 3 … within the conversation, `time` is in milliseconds since the epoch and never
    before the previous message's. `key` (16 bytes) tells this message from every other of the
    conversation, so that a repeated insert is recognised.
    """

    sender: int
    recipient: int
    seq: int
    time: int
    content: str
    key: bytes

    @property
    def conversation(self) -> str:
        """The name of the conversation that the message belongs to."""
        return conversation_of(self.sender, self.recipient)


class Head(Struct, frozen=True):
    """Where a conversation stands: the last `seq` and `time` that exist, and up to which `seq` places are reserved.

    `senders` are the senders and times of the newest messages, at most three, newest first.
    """

    seq: int
    time: int
    reserved: int
    senders: tuple[tuple[int, int], ...]


class Bookmarks(Struct, frozen=True):
    """What one user has read of a conversation: up to `read`, and the peer's first message after that, if any."""

    read: int
    first_unread: int | None
