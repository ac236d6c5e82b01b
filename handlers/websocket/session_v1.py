"""Protocol v1, the article's, on one pair socket: requests in, answers and messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog

from common.token_bucket import READ, SOUGHT
from handlers.websocket.answers import Answers, Window
from handlers.websocket.interfaces import Connection, EncodedMessage
from models.chat.conversation import PendingMessage, Stored
from models.chat.events import PeerEvent
from models.chat.history import History
from models.chat.service import Chat
from models.errors import ChatError, InvalidFrame, StorageUnavailable, TooFast
from models.protocol import v1
from models.protocol.v1 import Code, Request, RequestType
from models.records import Message

__all__ = ["SessionV1"]

_log = structlog.get_logger(__name__)


class SessionV1:
    """The session of a socket that uses protocol v1."""

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
        self._answers = Answers(self, window, timeout)

    def take(self, text: str, max_content: int) -> None:
        """Begin the request of a frame. Raises InvalidFrame."""
        self._answers.take(v1.decode(text, max_content))

    def refuse(self, text: str, error: InvalidFrame | TooFast) -> None:
        """Answer a frame that is not valid, or that came too fast."""
        self._answers.then(lambda: self._reply(error.code))

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when all requests in flight are answered."""
        self._answers.then(action)

    def wait_for_capacity(self) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next frame is read, if the window is full."""
        return self._answers.wait_for_capacity()

    def drop(self) -> None:
        """Forget the requests in flight."""
        self._answers.drop()

    def deliver(self, message: EncodedMessage) -> bool:
        """Write a message of the peer. Return whether the connection took it."""
        return self._connection.write_frame(message.v1)

    def copy(self, message: EncodedMessage) -> None:
        """Ignore a message that the user sent on another socket: protocol v1 does not show it."""

    def tell(self, event: PeerEvent) -> None:
        """Ignore positions and typing, which protocol v1 does not have."""

    def present(self, peer: int, *, online: bool) -> None:
        """Ignore presence, which protocol v1 does not have."""

    # Called by the answers in flight

    def send(self, request: Request, deadline: float, resolved: Callable[[PendingMessage], None]) -> PendingMessage:
        """Hand a message to the chat."""
        return self._chat.send(self._user, self._peer, request.content, deadline, resolved, origin=self._connection)

    def tell_outcome(self, outcome: Stored | ChatError) -> None:
        """Write the frame with a message's outcome."""
        self._reply(outcome.code)

    async def show(self, request: Request, deadline: float) -> bool:
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

    def _reply(self, code: int) -> None:
        self._connection.write_frame(v1.reply(code, self._connection.language))
