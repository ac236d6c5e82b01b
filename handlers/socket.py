"""ChatSocket: one open WebSocket of one user talking to another, and the registry of them all."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import aclosing
from typing import Any, ClassVar, NamedTuple

import structlog
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

from handlers.answers import Answers
from handlers.base import BaseHandler
from handlers.framing import ChatProtocol
from models import frames
from models.chat import Chat
from models.conversation import Sent
from models.errors import ChatError, EngineUnavailable, InvalidFrame, UnknownUser
from models.frames import Code, Request, RequestType
from models.ports import Users
from models.records import Message

__all__ = ["ChatSocket", "SocketLimits"]

MAX_ID = 2**63 - 1  # what MongoDB can hold; MySQL's ids are smaller by far

# Close codes, RFC 6455 section 7.4; those from 4000 are Tandem's own.
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TOO_SLOW = 4008
NO_PONG = 4010

DRAIN_BATCH = 200  # sockets closed in one turn of the loop
LOOK_EVERY = 0.01  # seconds between two looks at sockets that are closing

_log = structlog.get_logger(__name__)


class SocketLimits(NamedTuple):
    """The bounds of a socket; docs and defaults are in config/settings.py."""

    max_connections: int
    window: int
    max_frame: int
    max_content: int
    malformed_frames: int
    write_buffer: int
    ping_interval: float
    ping_timeout: float
    answer_timeout: float


class ChatSocket(BaseHandler, WebSocketHandler):
    """GET /ws?uid=1&toUid=2[&lang=en]"""

    # The registry, and the only mutable class state: who is here, by user and peer.
    _registry: ClassVar[defaultdict[tuple[int, int], set[ChatSocket]]] = defaultdict(set)
    _taken: ClassVar[int] = 0  # sockets, open or about to be
    _draining: ClassVar[bool] = False

    def initialize(self, chat: Chat, users: Users, limits: SocketLimits) -> None:
        """Takes the collaborators."""
        self._chat = chat
        self._users = users
        self._limits = limits
        self._admitted = False
        self._joined = False
        self._answers = Answers(self, window=limits.window, timeout=limits.answer_timeout)
        self._malformed = 0
        self._pinged = 0.0
        self._pong_missing = False

    # The sockets of this process

    @classmethod
    def deliver(cls, message: Message) -> bool:
        """Writes a message to the recipient's sockets; whether there was one that took it."""
        sockets = cls._registry.get((message.recipient, message.sender))
        if not sockets:
            return False
        frame = frames.encode(Code.MESSAGE, message.content)
        taken = [socket._write(frame) for socket in tuple(sockets)]
        return any(taken)

    @classmethod
    def count(cls) -> int:
        """How many sockets are open or about to be."""
        return cls._taken

    @classmethod
    def draining(cls) -> bool:
        """Whether the server is about to end: nobody new is let in, nothing new is taken."""
        return cls._draining

    @classmethod
    def check_pongs(cls, now: float) -> None:
        """Pings every socket whose time has come, closes those that did not answer; `now` in loop time."""
        for sockets in tuple(cls._registry.values()):
            for socket in tuple(sockets):
                socket._check_pong(now)

    @classmethod
    def start_draining(cls) -> None:
        """Lets nobody in and takes no request from now on."""
        cls._draining = True

    @classmethod
    async def close_all(cls, timeout: float) -> None:
        """Tells every socket that it is about to be closed and closes it, in batches; waits for the peers to agree."""
        everyone = [socket for sockets in cls._registry.values() for socket in sockets]
        for start in range(0, len(everyone), DRAIN_BATCH):
            for socket in everyone[start : start + DRAIN_BATCH]:
                socket._write(frames.encode(Code.END, socket._texts["closing"]))
                socket._shut(GOING_AWAY, "the server is going away")
            await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + timeout
        while cls._taken and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_EVERY)

    @classmethod
    def start(cls) -> None:
        """Lets sockets in: a process may serve again after it has drained."""
        cls._draining = False

    # Opening

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Looks both users up and upgrades the connection, or says why not."""
        upgrade = self.request.headers.get("Upgrade", "").lower() == "websocket"
        if not upgrade or "upgrade" not in self.request.headers.get("Connection", "").lower():
            raise HTTPError(400, "a WebSocket upgrade is expected")
        if not self.request.headers.get("Sec-WebSocket-Key"):
            raise HTTPError(400, "Sec-WebSocket-Key is missing")
        if self.get_query_argument("v", "1") != "1":
            raise HTTPError(400, "this server speaks dialect 1 alone")
        self._user, self._peer = self._id("uid"), self._id("toUid")
        if self._user == self._peer:
            raise HTTPError(400, "uid and toUid are the same")
        self._language = self.get_query_argument("lang", "zh")
        if self._language not in frames.TEXTS:
            raise HTTPError(400, "lang is not one of " + ", ".join(frames.TEXTS))
        self._texts = frames.TEXTS[self._language]
        self._take_place()
        try:
            active = await self._users.active(self._user, self._peer)
            for user in (self._user, self._peer):
                if user not in active:
                    raise UnknownUser(user)
            await super().get(*args, **kwargs)
        finally:
            self._give_place()

    def check_origin(self, origin: str) -> bool:
        """Refuses pages of other origins, in the envelope."""
        if not super().check_origin(origin):
            raise HTTPError(403, "cross-origin requests are not allowed")
        return True

    def get_websocket_protocol(self) -> ChatProtocol | None:
        """The protocol with our additions, for the one version that there is."""
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        return ChatProtocol(self, self._limits.max_frame)

    def open(self, *args: str, **kwargs: str) -> None:
        """Enters the registry and greets."""
        self.set_nodelay(True)
        self._pinged = asyncio.get_running_loop().time()
        self._registry[self._user, self._peer].add(self)
        self._chat.join(self._user, self._peer)
        self._joined = True
        self._write(frames.encode(Code.SUCCESS, self._texts["connected"]))

    def _id(self, name: str) -> int:
        values = self.get_query_arguments(name, strip=False)
        if len(values) != 1 or not values[0]:
            raise HTTPError(400, f"{name} is missing" if not any(values) else f"{name} is given twice")
        text = values[0]
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= MAX_ID):
            raise HTTPError(400, f"{name} is not the id of a user")
        return int(text)

    def _take_place(self) -> None:
        if ChatSocket._draining:
            raise HTTPError(503, "the server is going away")
        if ChatSocket._taken >= self._limits.max_connections:
            raise HTTPError(503, "too many connections")
        ChatSocket._taken += 1
        self._admitted = True

    def _give_place(self) -> None:
        if self._admitted:
            self._admitted = False
            ChatSocket._taken -= 1

    # Requests

    def on_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        """Takes a frame; returns a future to be awaited before the next one is read, when enough answers are owed."""
        if ChatSocket._draining or not self._joined:
            return None
        try:
            if isinstance(message, bytes):
                raise InvalidFrame("a binary frame")
            request = frames.decode(message, self._limits.max_content)
        except InvalidFrame as error:
            self._refuse(error)
        else:
            self._malformed = 0
            self._answers.take(request)
        return self._answers.room()

    def _refuse(self, error: InvalidFrame) -> None:
        _log.debug("frame_refused", user=self._user, reason=str(error))
        self._malformed += 1
        self._answers.then(lambda: self._reply(Code.INVALID))
        if self._malformed == self._limits.malformed_frames:
            self._answers.then(lambda: self._shut(POLICY_VIOLATION, "too many malformed frames"))

    def send(self, request: Request, deadline: float) -> asyncio.Future[Sent | ChatError]:
        """Hands a message to the chat."""
        return self._chat.send(self._user, self._peer, request.content, deadline)

    def tell(self, outcome: Sent | ChatError) -> None:
        """Writes the frame that tells what became of a message."""
        if isinstance(outcome, Sent):
            self._reply(Code.ONLINE if outcome.online else Code.OFFLINE)
        else:
            self._reply(Code(outcome.code))

    async def show(self, request: Request, deadline: float) -> bool:
        """Answers a request for history or for what is unread; whether the engines answered."""
        try:
            if request.type == RequestType.HISTORY:
                await self._show_history(request.content, deadline)
            else:
                await self._show_unread(deadline)
        except EngineUnavailable as error:
            _log.info("request_unanswered", user=self._user, reason=str(error))
            self._reply(Code.ENGINE)
            return False
        except Exception:  # noqa: BLE001  # a bug must not leave the client without an answer
            _log.exception("request_failed", user=self._user, peer=self._peer)
            self._reply(Code.BUG)
        return True

    async def _show_history(self, content: str, deadline: float) -> None:
        messages = await self._chat.history(self._user, self._peer, frames.moment(content), deadline)
        await self._show_messages(messages)
        if not messages:
            self._reply(Code.END)

    async def _show_unread(self, deadline: float) -> None:
        shown = 0
        async with aclosing(self._chat.unread(self._user, self._peer, deadline)) as parts:
            async for part in parts:
                if not await self._show_messages(part.messages):
                    return
                self._chat.mark(self._user, self._peer, part.upto)
                shown += len(part.messages)
        if not shown:
            self._reply(Code.END)

    async def _show_messages(self, messages: list[Message]) -> bool:
        """Writes messages as history shows them, as fast as the peer reads; whether the socket took them."""
        for message in messages:
            mine = message.sender == self._user
            if not self._write(frames.encode(Code.SUCCESS, message.content, "me" if mine else "you")):
                return False
            protocol = self.ws_connection
            if isinstance(protocol, ChatProtocol) and protocol.unsent > self._limits.write_buffer // 2:
                await protocol.sent()
        return self.ws_connection is not None

    # Writing, pinging, closing

    def _reply(self, code: Code) -> None:
        self._write(frames.reply(code, self._language))

    def _write(self, frame: bytes) -> bool:
        """Writes a frame; False when the socket is closing, or is closed now because it takes too little."""
        protocol = self.ws_connection
        if not isinstance(protocol, ChatProtocol):
            return False
        if protocol.unsent > self._limits.write_buffer:
            self._shut(TOO_SLOW, "too slow")
            return False
        return protocol.write_text(frame)

    def on_pong(self, data: bytes) -> None:
        """Notes that the peer is there."""
        self._pong_missing = False

    def _check_pong(self, now: float) -> None:
        if self.ws_connection is None or self._answers.full:
            self._pinged = now  # while nothing is read, no pong can be
            self._pong_missing = False
        elif self._pong_missing and now - self._pinged >= self._limits.ping_timeout:
            self._shut(NO_PONG, "no pong")
        elif not self._pong_missing and now - self._pinged >= self._limits.ping_interval:
            self._pinged = now
            self._pong_missing = True
            self.ping()

    def _shut(self, code: int, reason: str) -> None:
        """Closes the socket; from now on it is offline, however long the peer takes to agree."""
        self._leave()
        self.close(code, reason)
        self._answers.make_room()  # to read the peer's close frame

    def on_close(self) -> None:
        """Leaves the registry."""
        self._leave()
        self._answers.drop()

    def _leave(self) -> None:
        if not self._joined:
            return
        self._joined = False
        sockets = self._registry[self._user, self._peer]
        sockets.discard(self)
        if not sockets:
            del self._registry[self._user, self._peer]
        self._chat.leave(self._user, self._peer)
