"""The answers that one socket owes, and their order.

Requests are answered in the order they came, since dialect 1 has nothing else to tell answers apart. A message
is on its way from the moment it is read. A request for history waits until everything before it is answered, and
what is behind it waits for its answer: it shows the socket's own earlier messages and none of the later ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from models.chat.conversation import PendingMessage, Stored
from models.errors import ChatError
from models.protocol.v1 import Request, RequestType

__all__ = ["Answerer", "Answers", "Window"]


class Answerer(Protocol):
    """The socket, as its answers see it. Deadlines are in the event loop's time."""

    def send(self, request: Request, deadline: float, resolved: Callable[[PendingMessage], None]) -> PendingMessage:
        """Hands a message to the chat; `resolved` is called when its outcome is known."""

    async def show(self, request: Request, deadline: float) -> bool:
        """Answers a request with any number of frames; whether the engines answered."""

    def tell_outcome(self, outcome: Stored | ChatError) -> None:
        """Writes the frame that tells what became of a message."""


class _Held(NamedTuple):
    """A request that has not begun, and when it came (loop time)."""

    request: Request
    arrived: float


class Window:
    """How much a socket may owe before it stops reading; it reads again when half is paid."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._room: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the socket has stopped reading."""
        return self._room is not None

    def room(self, owed: int) -> asyncio.Future[None] | None:
        """None while there is room; else a future to be awaited before the next request is read."""
        if owed >= self._size and self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def paid(self, owed: int) -> None:
        """Something was paid, and so much is still owed."""
        if 2 * owed <= self._size:
            self.open()

    def open(self) -> None:
        """Lets the socket read again, whatever it owes."""
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None


class Answers:
    """What a socket owes, within its window; `timeout` in seconds."""

    def __init__(self, socket: Answerer, window: Window, timeout: float) -> None:
        self._socket = socket
        self._window = window
        self._timeout = timeout
        # A message on its way, a request that has not begun, or something to be done when its turn comes.
        # A list, though it is a queue: it is short, and an empty deque takes 760 bytes of every idle socket.
        self._owed: list[PendingMessage | _Held | Callable[[], None]] = []
        self._held = 0  # how many of them have not begun
        self._freed = 0.0  # when the last request was through that others had to wait for (loop time)
        self._showing: asyncio.Task[None] | None = None

    def take(self, request: Request) -> None:
        """Owes the answer to a request, which begins as soon as it may."""
        now = asyncio.get_running_loop().time()
        if request.type == RequestType.SEND and not self._held and self._showing is None:
            self._owed.append(self._socket.send(request, now + self._timeout, self._pay))
            return
        self._owed.append(_Held(request, now))
        self._held += 1
        self._pay()

    def then(self, action: Callable[[], None]) -> None:
        """Does something when all that is owed so far is paid."""
        self._owed.append(action)
        self._pay()

    def room(self) -> asyncio.Future[None] | None:
        """None while the window has room; else a future to be awaited before the next request is read."""
        return self._window.room(len(self._owed))

    def drop(self) -> None:
        """Forgets everything: there is nobody left to answer."""
        self._owed.clear()
        self._held = 0
        self._window.open()
        if self._showing is not None:
            self._showing.cancel()

    def _begin(self) -> None:
        """Sends the messages up to the first request that has to wait for what is before it."""
        if self._showing is not None:
            return
        for index, owed in enumerate(self._owed):
            if isinstance(owed, _Held):
                if owed.request.type != RequestType.SEND:
                    return
                self._owed[index] = self._socket.send(owed.request, self._deadline(owed), self._pay)
                self._held -= 1

    def _pay(self, _: object = None) -> None:
        """Gives the answers that are known, in order, up to the first that is not."""
        while self._owed and self._showing is None:
            owed = self._owed[0]
            if isinstance(owed, PendingMessage):
                if owed.outcome is None:
                    break
                del self._owed[0]
                self._socket.tell_outcome(owed.outcome)
                continue
            del self._owed[0]
            if isinstance(owed, _Held):
                self._held -= 1
                self._showing = asyncio.get_running_loop().create_task(self._show(owed))
            else:
                owed()
        self._window.paid(len(self._owed))

    async def _show(self, held: _Held) -> None:
        try:
            if await self._socket.show(held.request, self._deadline(held)):
                self._freed = asyncio.get_running_loop().time()
        finally:
            self._showing = None
        self._begin()
        self._pay()

    def _deadline(self, held: _Held) -> float:
        """When a request is answered with 40001. Having waited for a client that reads slowly does not count."""
        return max(held.arrived, self._freed) + self._timeout
