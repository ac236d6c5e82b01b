"""SocketConnection: one open chat socket of a user. The hub registers it from the greeting to its end."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog

from common.tasks import after
from common.token_bucket import INBOX, Bucket
from config.settings import Settings
from handlers.http.metrics import Metrics
from handlers.websocket.hub import RESUME, Hub
from handlers.websocket.interfaces import Session
from handlers.websocket.liveness import Liveness, Verdict
from handlers.websocket.quota import QuotaLease
from handlers.websocket.rfc6455 import POLICY_VIOLATION
from handlers.websocket.transport import FrameProtocol
from handlers.websocket.window import Window
from models.chat.service import Chat
from models.errors import InvalidFrame, TooFast
from models.protocol.v1 import Language
from models.records import Identity

__all__ = ["PATH", "Caller", "SocketConnection"]

PATH = "/ws"
# Tandem's own close codes.
TOO_SLOW = RESUME
NO_PONG = 4010

FRAGMENT = 0.1  # of a request's tokens that a message's part takes; its last part is a request
LONGEST_PAUSE = 1.0  # seconds for which a socket is not read after a refusal

_log = structlog.get_logger(__name__)


class Caller(NamedTuple):
    """The user of a socket, the only peer (None on an inbox socket), and the language of texts."""

    identity: Identity
    peer: int | None
    language: Language


class SocketConnection(FrameProtocol):
    """An open socket: it charges, limits and checks its client, and gives the frames to its session.

    It owns a lease of the quotas, and gives it back when it is lost.
    """

    __slots__ = (
        "_chat",
        "_hub",
        "_lease",
        "_limits",
        "_malformed",
        "_metrics",
        "_online",
        "_requests",
        "_timeouts",
        "identity",
        "language",
        "liveness",
        "peer",
        "session",
        "window",
    )

    def __init__(
        self,
        caller: Caller,
        hub: Hub,
        chat: Chat,
        settings: Settings,
        metrics: Metrics,
        requests: Bucket,
        lease: QuotaLease,
    ) -> None:
        limits = settings.limits
        super().__init__(limits.max_frame)
        self.identity, self.peer, self.language = caller
        self.window = Window(limits.window)
        self.session: Session | None = None
        self._hub = hub
        self._chat = chat
        self._limits = limits
        self._timeouts = settings.timeouts
        self._metrics = metrics
        self._requests = requests
        self._lease = lease
        self.liveness = Liveness(asyncio.get_running_loop().time())
        self._online = False  # in the hub
        self._malformed = 0  # frames in a row that were not valid

    @property
    def user(self) -> int:
        """The user of the socket."""
        return self.identity.user

    @property
    def watching(self) -> bool:
        """Whether the socket reports the presence of its only peer."""
        return self.peer is not None and self.session is not None and self.session.watching

    # Opening and closing

    def begin(self, session: Session, greeting: bytes) -> None:
        """Set the session, and write the first frame, which is sent when the socket opens."""
        self.session = session
        self.write_frame(greeting)

    def on_open(self) -> None:
        """Enter the hub."""
        if self.session is None:
            raise RuntimeError("a socket opens with a session")
        self.set_nodelay(True)
        if self.peer is None:
            self.charge(INBOX)
        self._hub.join(self)
        self._online = True

    def shut(self, code: int, reason: str) -> None:
        """Close the socket. It is offline from now on, however long the client takes to answer."""
        self._leave()
        if not self.is_closing():
            self._metrics.closed.labels(code).inc()
        self.close(code, reason)
        self.window.open()  # to read the client's close frame

    def too_slow(self) -> None:
        """Close the socket because more bytes are unsent, or held back, than allowed."""
        self.shut(TOO_SLOW, "too slow")

    def on_failure(self, code: int) -> None:
        """Go offline: the client broke the protocol, and is told this close code."""
        self._leave()
        self._metrics.closed.labels(code).inc()

    def on_error(self, error: BaseException) -> None:
        """Log a bug, which ends this socket."""
        _log.error("request_failed", path=PATH, exc_info=error)

    def on_close(self) -> None:
        """Leave the hub, and give back what the socket has used."""
        self._leave()
        self._lease.release()
        if self.session is not None:
            self.session.drop()
            self.session = None  # they refer to each other

    def _leave(self) -> None:
        if self._online:
            self._online = False
            self._hub.leave(self)

    # Requests

    def on_message(self, message: str | bytes) -> asyncio.Future[None] | None:
        """Take a frame. Return a future to await before the next one is read, if enough requests are in flight."""
        session = self.session
        if self._hub.draining or not self._online or session is None:
            return None
        text = message if isinstance(message, str) else ""
        try:
            wait = self._requests.take()
            if wait:
                raise TooFast("requests", wait)
            if isinstance(message, bytes):
                raise InvalidFrame("frame: is binary")
            session.take(text, self._limits.max_content)
        except TooFast as error:
            self._metrics.refused.labels(error.code).inc()
            session.refuse(text, error)
            return session.wait_for_capacity() or after(min(error.retry_after, LONGEST_PAUSE))  # refusals are work too
        except InvalidFrame as error:
            _log.debug("frame_refused", user=self.user, reason=str(error))
            self._metrics.refused.labels(error.code).inc()
            self._malformed += 1
            session.refuse(text, error)
            if self._malformed == self._limits.malformed_frames:
                session.then(lambda: self.shut(POLICY_VIOLATION, "too many malformed frames"))
        else:
            self._malformed = 0
        return session.wait_for_capacity()

    def charge(self, weight: float) -> None:
        """Charge the user for what a request costs above the 1 that every frame is charged."""
        self._requests.charge(weight)

    def on_fragment(self, size: int) -> asyncio.Future[None] | None:
        """Charge for a part of a message."""
        return self._take_tokens(FRAGMENT)

    def on_ping(self, data: bytes) -> asyncio.Future[None] | None:
        """Charge for a ping."""
        return self._take_tokens(1)

    def on_pong(self, data: bytes) -> asyncio.Future[None] | None:
        """Take a pong. Only one that answers a ping shows that the client is there, and costs nothing."""
        return None if self.liveness.pong(data) else self._take_tokens(1)

    def _take_tokens(self, weight: float) -> asyncio.Future[None] | None:
        """Charge the user for a frame that requests nothing; without tokens nothing is read for a moment."""
        wait = self._requests.take(weight)
        return after(min(wait, LONGEST_PAUSE)) if wait else None

    # Writing

    @property
    def is_open(self) -> bool:
        """Whether the socket can be written to."""
        return not self.is_closing()

    @property
    def busy(self) -> bool:
        """Whether so many bytes are unsent that frames which are not needed should be left out."""
        return self.unsent > self._limits.write_buffer // 4

    def write_frame(self, frame: bytes) -> bool:
        """Write a frame. Return False if the socket is closing, or is closed now as too slow."""
        if self.unsent > self._limits.write_buffer and not self.is_closing():
            self.too_slow()
            return False
        return self.write(frame)

    async def wait_writable(self) -> None:
        """Wait while too many bytes are unsent for a long answer to go on."""
        if self.unsent > self._limits.write_buffer // 2:
            await self.wait_sent()

    # Liveness

    def check_peer(self, now: float) -> None:
        """Ping the client when it is due; close the socket when the client is gone. `now` is loop time."""
        liveness, reading = self.liveness, not self.window.full
        verdict = liveness.look(now, self._timeouts, unsent=self.stuck, moved=self.moved, reading=reading)
        if verdict is Verdict.PING:
            if not self.ping(liveness.asked):  # the connection is closing, and will soon be lost
                self._leave()
        elif verdict is Verdict.SILENT:
            self.shut(NO_PONG, "no pong")
        elif verdict is Verdict.STUCK:
            self.shut(TOO_SLOW, "nothing is read")
