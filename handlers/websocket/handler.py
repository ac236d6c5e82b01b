"""ChatSocket: the handshake of a WebSocket; the hub of the open sockets is its class-level state."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

from config.settings import Settings
from handlers.http.base import BaseHandler
from handlers.http.metrics import Metrics
from handlers.websocket.connection import PATH, Caller, SocketConnection
from handlers.websocket.handshake import SUBPROTOCOLS, accept, first_known, offered_subprotocols, require_handshake
from handlers.websocket.hub import Hub
from handlers.websocket.interfaces import Session
from handlers.websocket.quota import ALL
from handlers.websocket.session_v1 import SessionV1
from handlers.websocket.session_v2 import SessionV2
from models.chat.history import History
from models.chat.ports import Users
from models.chat.service import Chat
from models.errors import TooFast, UnknownUser
from models.protocol import v1, v2
from models.protocol.v1 import Code

__all__ = ["PATH", "ChatSocket"]

AWHILE = 10.0  # seconds after which a user with too many sockets may try again


class ChatSocket(BaseHandler, WebSocketHandler):
    """GET /ws?uid=1&toUid=2[&v=2][&lang=en]; without toUid an inbox socket, which uses protocol v2.

    The subprotocol `tandem.v2` says the same as `v=2`. The handler only does the handshake. Then a SocketConnection
    takes the stream, and nothing refers to the handler or its request any more.
    """

    hub: ClassVar[Hub] = Hub()  # the registry of open sockets, and the only mutable class state

    answers = False

    def initialize(
        self, chat: Chat, history: History, users: Users, settings: Settings, metrics: Metrics, log: str
    ) -> None:
        """Take the collaborators, and the id of the log."""
        self._metrics = metrics
        self._log_id = log
        self._chat = chat
        self._history = history
        self._users = users
        self._settings = settings
        self._gone = False

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Authenticate the caller, look up both users, and open the socket. Raises HTTPError and ChatError."""
        require_handshake(self.request.headers)
        refusal = self._check_cross_origin(self.check_trusted_origin)
        if refusal is not None:
            raise HTTPError(403, refusal)
        subprotocols = offered_subprotocols(self.request.headers)
        version = self._asked_version(subprotocols)
        peer = self.id_argument("toUid") if version == "1" or self.get_query_arguments("toUid") else None
        language = self.choice_argument("lang", tuple(v1.TEXTS))
        self._require_serving()
        limits = self._settings.limits
        self.leave()  # the hub counts from here on
        lease = self.hub.quota.lease()
        with ExitStack() as opening:
            opening.callback(lease.release)
            lease.take(ALL, limits.max_connections, HTTPError(503, "too many connections"))
            lease.take(self.address, limits.max_address_connections, TooFast("sockets from this address", AWHILE))
            identity = await self.identify(self._ticket())
            user = identity.user
            if user == peer:
                raise HTTPError(400, "uid and toUid are the same")
            lease.take(user, limits.max_user_connections, TooFast("sockets of this user", AWHILE))
            known = set() if peer is None else await self._users.active(peer)
            if peer is not None and peer not in known and version == "1":  # v2 answers a message to an unknown id
                raise UnknownUser(peer)
            await self._chat.blocks.wait_held(user)  # read since the user's first lease
            self._require_serving()
            if self._gone:
                raise HTTPError(400, "the client is gone")
            connection = SocketConnection(
                Caller(identity, peer, language),
                self.hub,
                self._chat,
                self._settings,
                self._metrics,
                self.policy.requests.of(user),
                lease,
            )
            text = v1.TEXTS[language]["connected"]
            greeting = v1.encode(Code.SUCCESS, text) if version == "1" else v2.greeting(text, self._log_id)
            connection.begin(self._make_session(version, connection, set(known)), greeting)
            stream = accept(self, first_known(subprotocols, version))
            opening.pop_all()  # from here on the connection gives back what it has taken
        await connection.take_over(stream, in_loop=self._settings.server.frames == "bulk")

    def _asked_version(self, subprotocols: list[str]) -> str:
        """Return the protocol's version: what `v` says, else that of the first known subprotocol, else 1."""
        if not self.get_query_arguments("v"):
            chosen = first_known(subprotocols)
            if chosen is not None:
                return SUBPROTOCOLS[chosen]
        return self.choice_argument("v", ("1", "2"))

    def _require_serving(self) -> None:
        if self.hub.draining:
            raise HTTPError(503, "the server is going away")

    def _ticket(self) -> str | None:
        tickets = self.get_query_arguments("ticket")
        if len(tickets) > 1:
            raise HTTPError(400, "ticket is given twice")
        return tickets[0] if tickets else None

    def _make_session(self, version: str, connection: SocketConnection, known: set[int]) -> Session:
        window, timeout = connection.window, self._settings.timeouts.answer_timeout
        if version == "1":
            return SessionV1(connection, self._chat, self._history, window=window, timeout=timeout)
        return SessionV2(
            connection,
            self._chat,
            self._history,
            self._users,
            window=window,
            timeout=timeout,
            most_held=self._settings.limits.write_buffer,
            known=known,
        )

    def on_close(self) -> None:
        """Note that the client has gone during the handshake; called by Tornado."""
        self._gone = True
