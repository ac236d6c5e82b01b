"""The answers that one socket owes, and their order.

Requests are answered in the order they came, since dialect 1 has nothing else to tell answers apart. A message
is on its way from the moment it is read. A request for history waits until everything before it is answered, and
what is behind it waits for its answer: it shows the socket's own earlier messages and none of the later ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from models.conversation import Sent
from models.errors import ChatError
from models.frames import Request, RequestType

__all__ = ["Answerer", "Answers"]


class Answerer(Protocol):
    """The socket, as its answers see it. Deadlines are in the event loop's time."""

    def send(self, request: Request, deadline: float) -> asyncio.Future[Sent | ChatError]:
        """Hands a message to the chat."""

    async def show(self, request: Request, deadline: float) -> bool:
        """Answers a request with any number of frames; whether the engines answered."""

    def tell(self, outcome: Sent | ChatError) -> None:
        """Writes the frame that tells what became of a message."""


class _Held(NamedTuple):
    """A request that has not begun, and when it came (loop time)."""

    request: Request
    arrived: float


class Answers:
    """What a socket owes; `window` is how much that may be before it stops reading, `timeout` in seconds."""

    def __init__(self, socket: Answerer, *, window: int, timeout: float) -> None:
        self._socket = socket
        self._window = window
        self._timeout = timeout
        # A message on its way, a request that has not begun, or something to be done when its turn comes.
        self._owed: deque[asyncio.Future[Sent | ChatError] | _Held | Callable[[], None]] = deque()
        self._held = 0  # how many of them have not begun
        self._freed = 0.0  # when the last request was through that others had to wait for (loop time)
        self._showing: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the socket has stopped reading."""
        return self._room is not None

    def take(self, request: Request) -> None:
        """Owes the answer to a request, which begins as soon as it may."""
        self._owed.append(_Held(request, asyncio.get_running_loop().time()))
        self._held += 1
        if self._held == 1:
            self._begin()
        self._pay()

    def then(self, action: Callable[[], None]) -> None:
        """Does something when all that is owed so far is paid."""
        self._owed.append(action)
        self._pay()

    def room(self) -> asyncio.Future[None] | None:
        """None while the window has room; else a future to be awaited before the next request is read."""
        if len(self._owed) >= self._window and self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def make_room(self) -> None:
        """Lets the socket read again."""
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def drop(self) -> None:
        """Forgets everything: there is nobody left to answer."""
        self._owed.clear()
        self._held = 0
        self.make_room()
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
                sent = self._socket.send(owed.request, self._deadline(owed))
                sent.add_done_callback(self._pay)
                self._owed[index] = sent
                self._held -= 1

    def _pay(self, _: object = None) -> None:
        """Gives the answers that are known, in order, up to the first that is not."""
        while self._owed and self._showing is None:
            owed = self._owed[0]
            if isinstance(owed, asyncio.Future) and not owed.done():
                break
            self._owed.popleft()
            match owed:
                case asyncio.Future():
                    self._socket.tell(owed.result())
                case _Held():
                    self._held -= 1
                    self._showing = asyncio.get_running_loop().create_task(self._show(owed))
                case action:
                    action()
        if 2 * len(self._owed) <= self._window:
            self.make_room()

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
