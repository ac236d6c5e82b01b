"""Events that processes publish about a conversation. Each is from one user and concerns both."""

from __future__ import annotations

from msgspec import Struct

from models.records import Message

__all__ = ["BlockChanged", "Event", "MessageStored", "PeerEvent", "PositionsChanged", "Typing"]


class MessageStored(Struct, frozen=True, tag="stored"):
    """A message was stored."""

    message: Message


class PositionsChanged(Struct, frozen=True, tag="moved"):
    """The positions of `user` in the conversation with `peer` moved forward."""

    user: int
    peer: int
    received: int
    read: int


class Typing(Struct, frozen=True, tag="typing"):
    """`user` is typing to `peer`."""

    user: int
    peer: int


class BlockChanged(Struct, frozen=True, tag="barred"):
    """`user` has blocked `peer`, or lifted the block."""

    user: int
    peer: int


# The events that are sent to the peer's sockets.
PeerEvent = PositionsChanged | Typing
Event = MessageStored | PeerEvent | BlockChanged
