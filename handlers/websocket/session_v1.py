"""Protocol v1, the article's, on one pair socket: requests in, answers and messages out.

Requests are answered in the order they came, since protocol v1 has nothing else to tell answers apart. A message is
sent as soon as it is read. A request for history waits until all requests before it are answered, and those behind it
wait for its answer. So it shows the socket's own earlier messages and none of the later ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

import structlog

from common.token_bucket import READ, SOUGHT
from handlers.websocket.interfaces import Connection, EncodedMessage
from handlers.websocket.window import Window
from models.chat.conversation import PendingMessage
from models.chat.events import PeerEvent
from models.chat.history import History
from models.chat.service import Chat
from models.errors import InvalidFrame, StorageUnavailable, TooFast
from models.protocol import v1
from models.protocol.v1 import Code, Request, RequestType
from models.records import Message

__all__ = ["SessionV1"]

_log = structlog.get_logger(__name__)


class _Held(NamedTuple):
    """A request that has not begun, and when it came (loop time)."""

    request: Request
    arrived: float


class SessionV1:
    """The session of a socket that uses protocol v1. `timeout` is the seconds within which a request is answered."""

    __slots__ = (
        "_chat",
        "_connection",
        "_freed",
        "_held",
        "_history",
        "_in_flight",
        "_peer",
        "_showing",
        "_user",
        "_window",
        "timeout",
    )

    reads = True  # a delivered message counts as read; the article, section 2.4.2
    watching = False

    def __init__(self, connection: Connection, chat: Chat, history: History, *, window: Window, timeout: float) -> None:
        if connection.peer is None:
            raise ValueError("protocol v1 has no inbox sockets")
        self._connection = connection
        self._user = connection.user
        self._peer = connection.peer
        self._chat = chat
        self._history = history
        self._window = window
        self.timeout = timeout
        # Messages that were sent, requests that have not begun, and actions to call in their turn.
        # A list, though it is a queue: it is short, and an empty deque takes 760 bytes of every idle socket.
        self._in_flight: list[PendingMessage | _Held | Callable[[], None]] = []
        self._held = 0  # how many of them have not begun
        self._freed = 0.0  # when the last request ended that others had to wait for (loop time)
        self._showing: asyncio.Task[None] | None = None

    # Requests in, and their order

    def take(self, text: str, max_content: int) -> None:
        """Begin the request of a frame, or hold it until its turn comes. Raises InvalidFrame."""
        request = v1.decode(text, max_content)
        now = asyncio.get_running_loop().time()
        if request.type == RequestType.SEND and not self._held and self._showing is None:
            self._in_flight.append(self._send(request, now + self.timeout))
            return
        self._in_flight.append(_Held(request, now))
        self._held += 1
        self._advance()

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answer a frame that is not valid, or that came too fast."""
        self.then(lambda: self._reply(error.code))

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when all requests in flight are answered."""
        self._in_flight.append(action)
        self._advance()

    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next frame is read, if the window is full."""
        return self._window.wait_for_capacity(len(self._in_flight))

    def drop(self) -> None:
        """Forget the requests in flight."""
        self._in_flight.clear()
        self._held = 0
        self._window.open()
        if self._showing is not None:
            self._showing.cancel()

    def _send(self, request: Request, deadline: float) -> PendingMessage:
        return self._chat.pipeline.send(
            self._user, self._peer, request.content, deadline, self._advance, origin=self._connection
        )

    def _advance(self, _: object = None) -> None:
        """Write the answers that are known, in order, up to the first that is not."""
        while self._in_flight and self._showing is None:
            first = self._in_flight[0]
            if isinstance(first, PendingMessage):
                if first.outcome is None:
                    break
                del self._in_flight[0]
                self._reply(first.outcome.code)
                continue
            del self._in_flight[0]
            if isinstance(first, _Held):
                self._held -= 1
                self._showing = asyncio.get_running_loop().create_task(self._show_in_turn(first))
            else:
                first()
        self._window.release(len(self._in_flight))

    async def _show_in_turn(self, held: _Held) -> None:
        """Answer a request that the others wait for, then let those begin."""
        try:
            if await self._show(held.request, self._deadline(held)):
                self._freed = asyncio.get_running_loop().time()
        finally:
            self._showing = None
        self._send_held()
        self._advance()

    def _send_held(self) -> None:
        """Send the messages up to the first request that has to wait for those before it."""
        if self._showing is not None:
            return
        for index, held in enumerate(self._in_flight):
            if isinstance(held, _Held):
                if held.request.type != RequestType.SEND:
                    return
                self._in_flight[index] = self._send(held.request, self._deadline(held))
                self._held -= 1

    def _deadline(self, held: _Held) -> float:
        """Return when a request is answered with 40001. Time spent on a client that reads slowly does not count."""
        return max(held.arrived, self._freed) + self.timeout

    # History

    async def _show(self, request: Request, deadline: float) -> bool:
        """Answer a request for history or unread messages. Return whether the databases answered."""
        try:
            if request.type == RequestType.HISTORY:
                await self._show_history(request.content, deadline)
            else:
                await self._show_unread(deadline)
        except StorageUnavailable as error:
            _log.info("request_unanswered", user=self._user, reason=str(error))
            self._reply(Code.DATABASE)
            return False
        except Exception:  # noqa: BLE001  # a bug must not leave the client without an answer
            _log.exception("request_failed", user=self._user, peer=self._peer)
            self._reply(Code.BUG)
        return True

    async def _show_history(self, content: str, deadline: float) -> None:
        before = v1.moment(content)
        messages = await self._history.before_time(self._user, self._peer, before, deadline)
        self._connection.charge(READ * len(messages) + (0 if before is None else SOUGHT))
        await self._show_messages(messages)
        if not messages:
            self._reply(Code.END)

    async def _show_unread(self, deadline: float) -> None:
        shown = 0
        async with aclosing(self._history.unread(self._user, self._peer, deadline)) as parts:
            async for part in parts:
                if not await self._show_messages(part.messages):
                    return
                self._history.shown(self._user, self._peer, part.upto)
                self._connection.charge(READ * len(part.messages))
                shown += len(part.messages)
        if not shown:
            self._reply(Code.END)

    async def _show_messages(self, messages: list[Message]) -> bool:
        """Write messages as history shows them, as fast as the client reads. Return whether all were written."""
        for message in messages:
            sender = "me" if message.sender == self._user else "you"
            if not self._connection.write_frame(v1.encode(Code.SUCCESS, message.content, sender)):
                return False
            await self._connection.wait_writable()
        return self._connection.is_open

    # Frames out

    def deliver(self, message: EncodedMessage) -> bool:
        """Write a message of the peer. Return whether the connection took it."""
        return self._connection.write_frame(message.v1)

    def copy(self, message: EncodedMessage) -> None:
        """Ignore a message that the user sent on another socket: protocol v1 does not show it."""

    def tell(self, event: PeerEvent) -> None:
        """Ignore positions and typing, which protocol v1 does not have."""

    def present(self, peer: int, *, online: bool) -> None:
        """Ignore presence, which protocol v1 does not have."""

    def _reply(self, code: int) -> None:
        self._connection.write_frame(v1.reply(code, self._connection.language))
