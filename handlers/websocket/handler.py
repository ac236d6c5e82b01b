"""ChatSocket: one open WebSocket of one user; the hub of all of them is its class-level state."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import structlog
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from common.tasks import after
from common.token_bucket import INBOX
from handlers.http.base import BaseHandler
from handlers.http.metrics import Metrics
from handlers.websocket.answers import Window
from handlers.websocket.connection import Session
from handlers.websocket.handshake import (
    OF_THE_HANDSHAKE,
    SUBPROTOCOLS,
    first_known,
    offered_subprotocols,
    require_handshake,
)
from handlers.websocket.hub import RESUME, Hub
from handlers.websocket.limits import SocketLimits
from handlers.websocket.liveness import Liveness, Verdict
from handlers.websocket.quota import ALL
from handlers.websocket.rfc6455 import POLICY_VIOLATION
from handlers.websocket.session_v1 import SessionV1
from handlers.websocket.session_v2 import SessionV2
from handlers.websocket.transport import BulkProtocol
from models.chat.history import History
from models.chat.ports import Users
from models.chat.service import Attendance, Chat
from models.errors import InvalidFrame, TooFast, UnknownUser
from models.protocol import v1, v2
from models.protocol.v1 import Code

__all__ = ["PATH", "ChatSocket"]

# Tandem's own close codes.
TOO_SLOW = RESUME
NO_PONG = 4010

PATH = "/ws"

AWHILE = 10.0  # seconds after which a user with too many sockets may try again
FRAGMENT = 0.1  # of a request's tokens that a part of a message takes; its last part is a request
LONGEST_PAUSE = 1.0  # seconds for which a socket is not read after a refusal

_log = structlog.get_logger(__name__)


class ChatSocket(BaseHandler, WebSocketHandler):
    """GET /ws?uid=1&toUid=2[&v=2][&lang=en]; without toUid an inbox socket, which uses protocol v2.

    The subprotocol `tandem.v2` says the same as `v=2`.
    """

    hub: ClassVar[Hub] = Hub()  # the registry of open sockets, and the only mutable class state

    answers = False
    ws_connection: BulkProtocol | None  # as get_websocket_protocol makes it

    def initialize(
        self, chat: Chat, history: History, users: Users, limits: SocketLimits, metrics: Metrics, log: str
    ) -> None:
        """Takes the collaborators, and the id of the log."""
        self._metrics = metrics
        self._log_id = log
        self._chat = chat
        self._history = history
        self._users = users
        self._limits = limits
        self._attendance: Attendance | None = None
        self._gone = False
        self._quota = self.hub.quota.lease()
        self._blocks_held = False
        self._protocol: BulkProtocol | None = None
        self._window = Window(limits.window)
        self.session: Session | None = None
        self._malformed = 0

    # Opening

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Asks who it is, looks both users up and upgrades the connection, or says why not."""
        require_handshake(self.request.headers)
        refusal = self._check_cross_origin(self.check_trusted_origin)
        if refusal is not None:
            raise HTTPError(403, refusal)
        self._version = self._asked_version()
        self.peer: int | None = None
        if self._version == "1" or self.get_query_arguments("toUid"):
            self.peer = self.id_argument("toUid")
        self.language = self.choice_argument("lang", tuple(v1.TEXTS))
        self._require_serving()
        self.leave()  # the registry counts from here on
        take = self._quota.take
        try:
            take(ALL, self._limits.max_connections, HTTPError(503, "too many connections"))
            take(self.address, self._limits.max_address_connections, TooFast("sockets from this address", AWHILE))
            self.identity = await self.identify(self._ticket())
            self.user = self.identity.user
            if self.user == self.peer:
                raise HTTPError(400, "uid and toUid are the same")
            take(self.user, self._limits.max_user_connections, TooFast("sockets of this user", AWHILE))
            if self.peer is not None:
                self._known = self.peer in await self._users.active(self.peer)
                if not self._known and self._version == "1":  # v2 has an answer for a message to an unknown id
                    raise UnknownUser(self.peer)
            self._blocks_held = True
            await self._chat.blocks.opening(self.user)
            self._require_serving()
            if self._gone:  # `on_close` will not be called again, and what it gives back would be kept for good
                raise HTTPError(400, "the client is gone")
            await super().get(*args, **kwargs)
        finally:
            if self._protocol is None or not self._protocol.taken_over:  # else it lives on without this coroutine
                self._release()

    def _asked_version(self) -> str:
        """The protocol's version: what `v` says, else the first subprotocol that is known, else 1."""
        if not self.get_query_arguments("v"):
            chosen = first_known(offered_subprotocols(self.request.headers))
            if chosen is not None:
                return SUBPROTOCOLS[chosen]
        return self.choice_argument("v", ("1", "2"))

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Tornado's question which of the offered subprotocols is chosen: the one of the version in use, or none."""
        return first_known(subprotocols, self._version)

    def _release(self) -> None:
        """Gives back what counts sockets."""
        self._quota.release()
        if self._blocks_held:
            self._blocks_held = False
            self._chat.blocks.closed(self.user)

    def _require_serving(self) -> None:
        if self.hub.draining:
            raise HTTPError(503, "the server is going away")

    def _ticket(self) -> str | None:
        tickets = self.get_query_arguments("ticket")
        if len(tickets) > 1:
            raise HTTPError(400, "ticket is given twice")
        return tickets[0] if tickets else None

    def check_origin(self, origin: str) -> bool:
        """Tornado's question about a page of another origin."""
        return self.check_trusted_origin(origin)

    def get_websocket_protocol(self) -> BulkProtocol:
        """The frames, on the transport that the settings say."""
        self._protocol = BulkProtocol(self, self._limits.max_frame, in_loop=self._limits.frames == "bulk")
        return self._protocol

    def open(self, *args: str, **kwargs: str) -> None:
        """Enters the registry and greets."""
        self.set_nodelay(True)
        self._liveness = Liveness(asyncio.get_running_loop().time())
        self._requests = self.policy.requests.of(self.user)
        if self.peer is None:
            self.charge(INBOX)
        self.session = self._make_session()
        self.hub.join(self)
        self._attendance = self._chat.join(self.user, self.peer, watching=self.session.watching)
        text = v1.TEXTS[self.language]["connected"]
        self.write_frame(v1.encode(Code.SUCCESS, text) if self._version == "1" else v2.greeting(text, self._log_id))
        self._forget_request()

    def _forget_request(self) -> None:
        """Lets go of what was for the handshake: it is more than all that an idle socket needs."""
        self.__dict__ = {name: value for name, value in vars(self).items() if name not in OF_THE_HANDSHAKE}

    def __getattr__(self, name: str) -> Any:
        """Say why what belonged to the handshake is not there; Python asks here for nothing else that is."""
        if name in OF_THE_HANDSHAKE:
            raise AttributeError(f"{name} was of the handshake; open() is the last to have it (see handshake.py)")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def path(self) -> str:
        """For log lines, also when the request is forgotten."""
        return PATH

    def _make_session(self) -> Session:
        timeout = self._limits.answer_timeout
        if self._version == "1":
            return SessionV1(self, self._chat, self._history, window=self._window, timeout=timeout)
        return SessionV2(
            self,
            self._chat,
            self._history,
            self._users,
            window=self._window,
            timeout=timeout,
            most_held=self._limits.write_buffer,
            known={self.peer} if self.peer is not None and self._known else set(),
        )

    # Requests

    def on_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        """Take a frame. Return a future to await before the next one is read, if enough requests are in flight."""
        if self.hub.draining or self._attendance is None or self.session is None:
            return None
        text = message if isinstance(message, str) else ""
        try:
            wait = self._requests.take()
            if wait:
                raise TooFast("requests", wait)
            if isinstance(message, bytes):
                raise InvalidFrame("frame: is binary")
            self.session.take(text, self._limits.max_content)
        except TooFast as error:
            self._metrics.refused.labels(error.code).inc()
            self.session.refuse(text, error)
            return self.session.wait_for_capacity() or after(
                min(error.retry_after, LONGEST_PAUSE)
            )  # refusals are work as well
        except InvalidFrame as error:
            _log.debug("frame_refused", user=self.user, reason=str(error))
            self._metrics.refused.labels(error.code).inc()
            self._malformed += 1
            self.session.refuse(text, error)
            if self._malformed == self._limits.malformed_frames:
                self.session.then(lambda: self.shut(POLICY_VIOLATION, "too many malformed frames"))
        else:
            self._malformed = 0
        return self.session.wait_for_capacity()

    def charge(self, weight: float) -> None:
        """Charge the user for what a request costs besides the 1 that it was let in for."""
        self._requests.charge(weight)

    # Writing, pinging, closing

    @property
    def is_open(self) -> bool:
        """Whether the socket can be written to."""
        return self.ws_connection is not None

    @property
    def busy(self) -> bool:
        """Whether so much waits to be sent that what can be done without should be."""
        return self.ws_connection is not None and self.ws_connection.unsent > self._limits.write_buffer // 4

    def write_frame(self, frame: bytes) -> bool:
        """Writes a frame; False when the socket is closing, or is closed now because it takes too little."""
        protocol = self.ws_connection
        if protocol is None:
            return False
        if protocol.unsent > self._limits.write_buffer:
            self.too_slow()
            return False
        return protocol.write_text(frame)

    async def wait_writable(self) -> None:
        """Wait while too many bytes are unsent for a long answer to go on."""
        protocol = self.ws_connection
        if protocol is not None and protocol.unsent > self._limits.write_buffer // 2:
            await protocol.sent()

    def too_slow(self) -> None:
        """Closes the socket because more waits for it than may."""
        self.shut(TOO_SLOW, "too slow")

    def on_ping(self, data: bytes) -> asyncio.Future[None] | None:  # type: ignore[override]  # see FrameHandler
        """Take a ping, which is answered by now."""
        return self._take_tokens(1)

    def on_pong(self, data: bytes) -> asyncio.Future[None] | None:  # type: ignore[override]
        """Take a pong; only one that was asked for shows that the peer is there, and costs nothing."""
        return None if self._liveness.pong(data) else self._take_tokens(1)

    def on_fragment(self, size: int) -> asyncio.Future[None] | None:
        """Take a part of a message that is not the last one."""
        return self._take_tokens(FRAGMENT)

    def on_failure(self, code: int) -> None:
        """Go offline: the client broke the protocol, and is being told with this close code."""
        self._leave()
        self._metrics.closed.labels(code).inc()

    def _take_tokens(self, weight: float) -> asyncio.Future[None] | None:
        """Charge the user for a frame that asks for nothing; without tokens nothing is read for a moment."""
        wait = self._requests.take(weight)
        return after(min(wait, LONGEST_PAUSE)) if wait else None

    def check_peer(self, now: float) -> None:
        """Ping the client when it is due; close the socket when the client is gone. `now` is loop time."""
        protocol = self.ws_connection
        if protocol is None:
            return
        reading = not self._window.full
        verdict = self._liveness.look(now, self._limits, unsent=protocol.stuck, moved=protocol.moved, reading=reading)
        if verdict is Verdict.PING:
            try:
                self.ping(self._liveness.asked)
            except WebSocketClosedError:  # it is gone, and its protocol will soon say so
                self._leave()
        elif verdict is Verdict.SILENT:
            self.shut(NO_PONG, "no pong")
        elif verdict is Verdict.STUCK:
            self.shut(TOO_SLOW, "nothing is read")

    def shut(self, code: int, reason: str) -> None:
        """Close the socket. It is offline from now on, however long the client takes to agree."""
        self._leave()
        if self.is_open:
            self._metrics.closed.labels(code).inc()
        self.close(code, reason)
        self._window.open()  # to read the peer's close frame

    def on_close(self) -> None:
        """Leaves the registry; also called when the client goes away before the socket is open."""
        self._gone = True
        self._leave()
        self._release()
        if self.session is not None:
            self.session.drop()

    def _leave(self) -> None:
        attendance, self._attendance = self._attendance, None
        if attendance is None:
            return
        self.hub.leave(self)
        attendance.leave()
