"""The order of answers on a socket of protocol v1, and how many requests a socket may have in flight.

Requests are answered in the order they came, since protocol v1 has nothing else to tell answers apart. A message is
sent as soon as it is read. A request for history waits until all requests before it are answered, and those behind it
wait for its answer. So it shows the socket's own earlier messages and none of the later ones.
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
    """What answers a socket's requests. Deadlines are in the event loop's time."""

    def send(self, request: Request, deadline: float, resolved: Callable[[PendingMessage], None]) -> PendingMessage:
        """Hand a message to the chat; `resolved` is called when its outcome is known."""

    async def show(self, request: Request, deadline: float) -> bool:
        """Answer a request with any number of frames. Return whether the databases answered."""

    def tell_outcome(self, outcome: Stored | ChatError) -> None:
        """Write the frame with a message's outcome."""


class _Held(NamedTuple):
    """A request that has not begun, and when it came (loop time)."""

    request: Request
    arrived: float


class Window:
    """The number of requests that a socket may have in flight.

    When it is reached, the socket is not read. It is read again when half of them are answered.
    """

    __slots__ = ("_capacity", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._capacity: asyncio.Future[None] | None = None  # set while the socket is not read

    @property
    def full(self) -> bool:
        """Whether the socket is not read."""
        return self._capacity is not None

    def wait_for_capacity(self, in_flight: int) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next request is read, if too many are in flight."""
        if in_flight >= self._size and self._capacity is None:
            self._capacity = asyncio.get_running_loop().create_future()
        return self._capacity

    def release(self, in_flight: int) -> None:
        """Note that a request was answered, and how many are in flight still."""
        if 2 * in_flight <= self._size:
            self.open()

    def open(self) -> None:
        """Let the socket be read again, however many requests are in flight."""
        if self._capacity is not None:
            if not self._capacity.done():
                self._capacity.set_result(None)
            self._capacity = None


class Answers:
    """The requests of one socket in flight, within its window; `timeout` in seconds."""

    __slots__ = ("_answerer", "_freed", "_held", "_in_flight", "_showing", "_timeout", "_window")

    def __init__(self, answerer: Answerer, window: Window, timeout: float) -> None:
        self._answerer = answerer
        self._window = window
        self._timeout = timeout
        # Messages that were sent, requests that have not begun, and actions to call in their turn.
        # A list, though it is a queue: it is short, and an empty deque takes 760 bytes of every idle socket.
        self._in_flight: list[PendingMessage | _Held | Callable[[], None]] = []
        self._held = 0  # how many of them have not begun
        self._freed = 0.0  # when the last request ended that others had to wait for (loop time)
        self._showing: asyncio.Task[None] | None = None

    def take(self, request: Request) -> None:
        """Take a request, which begins as soon as the order allows."""
        now = asyncio.get_running_loop().time()
        if request.type == RequestType.SEND and not self._held and self._showing is None:
            self._in_flight.append(self._answerer.send(request, now + self._timeout, self._advance))
            return
        self._in_flight.append(_Held(request, now))
        self._held += 1
        self._advance()

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when all requests in flight are answered."""
        self._in_flight.append(action)
        self._advance()

    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next request is read, if the window is full."""
        return self._window.wait_for_capacity(len(self._in_flight))

    def drop(self) -> None:
        """Forget all requests: the socket is closed, so none can be answered."""
        self._in_flight.clear()
        self._held = 0
        self._window.open()
        if self._showing is not None:
            self._showing.cancel()

    def _begin(self) -> None:
        """Send the messages up to the first request that has to wait for those before it."""
        if self._showing is not None:
            return
        for index, held in enumerate(self._in_flight):
            if isinstance(held, _Held):
                if held.request.type != RequestType.SEND:
                    return
                self._in_flight[index] = self._answerer.send(held.request, self._deadline(held), self._advance)
                self._held -= 1

    def _advance(self, _: object = None) -> None:
        """Write the answers that are known, in order, up to the first that is not."""
        while self._in_flight and self._showing is None:
            first = self._in_flight[0]
            if isinstance(first, PendingMessage):
                if first.outcome is None:
                    break
                del self._in_flight[0]
                self._answerer.tell_outcome(first.outcome)
                continue
            del self._in_flight[0]
            if isinstance(first, _Held):
                self._held -= 1
                self._showing = asyncio.get_running_loop().create_task(self._show(first))
            else:
                first()
        self._window.release(len(self._in_flight))

    async def _show(self, held: _Held) -> None:
        try:
            if await self._answerer.show(held.request, self._deadline(held)):
                self._freed = asyncio.get_running_loop().time()
        finally:
            self._showing = None
        self._begin()
        self._advance()

    def _deadline(self, held: _Held) -> float:
        """Return when a request is answered with 40001. Time spent on a client that reads slowly does not count."""
        return max(held.arrived, self._freed) + self._timeout
