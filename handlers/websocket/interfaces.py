"""The interfaces between a connection and its session, and a message encoded for both protocol versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from models.chat.events import PeerEvent
from models.errors import InvalidFrame, TooFast
from models.protocol import v1, v2
from models.protocol.v1 import Code, Language
from models.records import Message

__all__ = ["Connection", "EncodedMessage", "Session"]


class EncodedMessage:
    """A message as frames, encoded once for each protocol version however many sockets get it."""

    __slots__ = ("_v1", "_v2", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._v1 = self._v2 = b""  # cached_property takes a lock for each use

    @property
    def v1(self) -> bytes:
        """The frame of protocol v1."""
        if not self._v1:
            self._v1 = v1.encode(Code.MESSAGE, self.message.content)
        return self._v1

    @property
    def v2(self) -> bytes:
        """The frame of protocol v2."""
        if not self._v2:
            self._v2 = v2.live(self.message)
        return self._v2


class Connection(Protocol):
    """A connection, as its session sees it."""

    @property
    def user(self) -> int:
        """The user of the connection."""

    @property
    def peer(self) -> int | None:
        """The only user that the connection talks with; None on an inbox socket."""

    @property
    def language(self) -> Language:
        """The language of texts."""

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""

    @property
    def busy(self) -> bool:
        """Whether so many bytes are unsent that frames which are not needed should be left out."""

    def charge(self, weight: float) -> None:
        """Charge the user for what a request costs above the 1 that every frame is charged."""

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame. Return False if the connection is closing, or is closed now as too slow."""

    async def wait_writable(self) -> None:
        """Wait while too many bytes are unsent for a long answer to go on."""

    def too_slow(self) -> None:
        """Close the connection because more bytes are unsent, or held back, than allowed."""


class Session(Protocol):
    """What one connection does in its protocol version, as the connection and the hub see it."""

    reads: bool  # a message that is delivered to it counts as read
    watching: bool  # it reports presence
    timeout: float  # seconds within which a request is answered

    def take(self, text: str, max_content: int) -> None:
        """Begin the request of a frame. Raises InvalidFrame."""

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answer a frame that is not valid, or that came too fast."""

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when the requests in flight are answered; at once if this protocol version keeps no order."""

    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next frame is read, if too many requests are in flight."""

    def drop(self) -> None:
        """Forget the requests in flight."""

    def deliver(self, message: EncodedMessage) -> bool:
        """Write a message of the peer. Return whether the connection took it."""

    def copy(self, message: EncodedMessage) -> None:
        """Write a message that the user sent on another socket."""

    def tell(self, event: PeerEvent) -> None:
        """Write an event of the peer that is not a message."""

    def present(self, peer: int, *, online: bool) -> None:
        """Report that the peer came online or went offline."""
