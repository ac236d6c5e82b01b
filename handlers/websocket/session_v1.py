"""Dialect 1, the article's: what a pair socket does with its client's frames, and what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog

from common.token_bucket import READ, SOUGHT
from handlers.websocket.answers import Answers, Window
from handlers.websocket.connection import Live, Speaker
from models.chat.conversation import PendingMessage, Stored
from models.chat.events import PeerEvent
from models.chat.history import History
from models.chat.service import Chat
from models.errors import ChatError, InvalidFrame, StorageUnavailable, TooFast
from models.protocol import v1
from models.protocol.v1 import Code, Request, RequestType
from models.records import Message

__all__ = ["Dialect1"]

_log = structlog.get_logger(__name__)


class Dialect1:
    """A socket that speaks dialect 1."""

    reads = True  # delivery to it counts as read; the article, section 2.4.2
    watching = False

    def __init__(self, socket: Speaker, chat: Chat, history: History, *, window: Window, timeout: float) -> None:
        if socket.peer is None:
            raise ValueError("dialect 1 has no inbox sockets")
        self._socket = socket
        self._user = socket.user
        self._peer = socket.peer
        self._chat = chat
        self._history = history
        self._answers = Answers(self, window, timeout)

    def take(self, text: str, max_content: int) -> None:
        """Takes a frame. Raises InvalidFrame."""
        self._answers.take(v1.decode(text, max_content))

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answers a frame that is not valid, or comes too fast."""
        self._answers.then(lambda: self._reply(error.code))

    def then(self, action: Callable[[], None]) -> None:
        """Does something when all that is owed so far is paid."""
        self._answers.then(action)

    def room(self) -> asyncio.Future[None] | None:
        """None while the window has room; else a future to be awaited before the next frame is read."""
        return self._answers.room()

    def drop(self) -> None:
        """Forgets what is owed."""
        self._answers.drop()

    def deliver(self, live: Live) -> bool:
        """Writes a message of the peer; whether the socket took it."""
        return self._socket.write_frame(live.dialect1)

    def copy(self, live: Live) -> None:
        """The user's own messages from other sockets are not shown in this dialect."""

    def tell(self, event: PeerEvent) -> None:
        """Nor are positions and typing."""

    def present(self, peer: int, *, online: bool) -> None:
        """Nor is presence."""

    # What the answers ask for

    def send(self, request: Request, deadline: float, resolved: Callable[[PendingMessage], None]) -> PendingMessage:
        """Hands a message to the chat."""
        return self._chat.send(self._user, self._peer, request.content, deadline, resolved, origin=self._socket)

    def tell_outcome(self, outcome: Stored | ChatError) -> None:
        """Writes the frame that tells what became of a message."""
        self._reply(outcome.code)

    async def show(self, request: Request, deadline: float) -> bool:
        """Answers a request for history or for what is unread; whether the engines answered."""
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
        self._socket.charge(READ * len(messages) + (0 if before is None else SOUGHT))
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
                self._socket.charge(READ * len(part.messages))
                shown += len(part.messages)
        if not shown:
            self._reply(Code.END)

    async def _show_messages(self, messages: list[Message]) -> bool:
        """Writes messages as history shows them, as fast as the peer reads; whether the socket took them."""
        for message in messages:
            sender = "me" if message.sender == self._user else "you"
            if not self._socket.write_frame(v1.encode(Code.SUCCESS, message.content, sender)):
                return False
            await self._socket.drained()
        return self._socket.is_open

    def _reply(self, code: int) -> None:
        self._socket.write_frame(v1.reply(code, self._socket.language))
