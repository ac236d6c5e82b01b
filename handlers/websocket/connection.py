"""What a socket and its dialect know of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from models.chat.events import PeerEvent
from models.errors import InvalidFrame, TooFast
from models.protocol import v1, v2
from models.protocol.v1 import Code, Language
from models.records import Message

__all__ = ["Dialect", "Live", "Speaker"]


class Live:
    """A message on its way to sockets, encoded once for each dialect however many there are."""

    __slots__ = ("_dialect1", "_dialect2", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._dialect1 = self._dialect2 = b""  # cached_property takes a lock for each use

    @property
    def dialect1(self) -> bytes:
        """The frame in dialect 1."""
        if not self._dialect1:
            self._dialect1 = v1.encode(Code.MESSAGE, self.message.content)
        return self._dialect1

    @property
    def dialect2(self) -> bytes:
        """The frame in dialect 2."""
        if not self._dialect2:
            self._dialect2 = v2.live(self.message)
        return self._dialect2


class Speaker(Protocol):
    """A socket, as its dialect sees it."""

    @property
    def user(self) -> int:
        """Whose socket it is."""

    @property
    def peer(self) -> int | None:
        """With whom it talks; None: with everybody."""

    @property
    def language(self) -> Language:
        """The language of texts."""

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""

    @property
    def busy(self) -> bool:
        """Whether so much waits to be sent that what can be done without should be."""

    def charge(self, weight: float) -> None:
        """Charge the user for what a request costs besides the 1 that it was let in for."""

    def write_frame(self, frame: bytes) -> bool:
        """Writes a frame; False when the socket is closing, or is closed now because it takes too little."""

    async def drained(self) -> None:
        """Waits while too much waits to be sent for a long answer to go on."""

    def too_slow(self) -> None:
        """Closes the socket because more waits for it than may."""


class Dialect(Protocol):
    """A dialect, as its socket sees it."""

    reads: bool  # delivery to it counts as read
    watching: bool  # it tells of presence

    def take(self, text: str, max_content: int) -> None:
        """Takes a frame. Raises InvalidFrame."""

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answers a frame that is not valid, or comes too fast."""

    def then(self, action: Callable[[], None]) -> None:
        """Does something when what is owed so far is paid, as far as this dialect keeps an order."""

    def room(self) -> asyncio.Future[None] | None:
        """None while there is room; else a future to be awaited before the next frame is read."""

    def drop(self) -> None:
        """Forgets what is owed."""

    def deliver(self, live: Live) -> bool:
        """Writes a message of the peer; whether the socket took it."""

    def copy(self, live: Live) -> None:
        """Writes a message that the user sent from another socket."""

    def tell(self, event: PeerEvent) -> None:
        """Tells what else the peer does."""

    def present(self, peer: int, *, online: bool) -> None:
        """Tells that the peer came online or went offline."""
