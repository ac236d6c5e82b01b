"""The hub: which sockets are open in this process, by user, and what is done to many of them.

ChatSocket has one as class-level state. It is the only one that counts sockets. What depends on a user's or a pair's
sockets is told of the first and the last one (`Attendance`). It runs on one event loop, so nothing here needs a lock.
Its dictionaries shrink when their last entry goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain
from typing import Any, Protocol

import structlog

from handlers.websocket.interfaces import Connection, EncodedMessage, Session
from handlers.websocket.quota import ALL, ConnectionQuota
from handlers.websocket.rfc6455 import GOING_AWAY, POLICY_VIOLATION
from models.chat.events import PeerEvent
from models.chat.ports import Attendance, Reached
from models.protocol import v1
from models.protocol.v1 import Code
from models.records import Identity, Message

__all__ = ["RESUME", "Hub", "HubSocket"]

RESUME = 4008  # Tandem's close code for a socket that is to connect again and resume
BATCH = 200  # sockets that are closed in one turn of the loop
LOOK_EVERY = 0.01  # seconds between two looks at sockets that are closing

_log = structlog.get_logger(__name__)


class HubSocket(Connection, Protocol):
    """A socket, as the hub sees it."""

    @property
    def identity(self) -> Identity:
        """As whom the socket was opened."""

    @property
    def session(self) -> Session | None:
        """The session in the socket's protocol version."""

    @property
    def watching(self) -> bool:
        """Whether it reports the presence of its only peer. It does not change while the socket is in the hub."""

    def shut(self, code: int, reason: str) -> None:
        """Take the socket offline, and close it with this code."""

    def check_peer(self, now: float) -> None:
        """Ping the client when it is due; close the socket when the client is gone. `now` is loop time."""


class Hub:
    """The open sockets: by user, and by the peer that each talks with (None: with all)."""

    def __init__(self) -> None:
        self._sockets: dict[int, dict[int | None, set[HubSocket]]] = {}
        self._draining = False
        self._attendance: Attendance  # from `start` on
        self.quota = ConnectionQuota(self._on_first_connection, self._on_last_connection)

    # Joining and leaving

    def join(self, socket: HubSocket) -> None:
        """Enter a socket that is open, and tell whose first it is.

        If that fails, the socket has not joined. Otherwise the next one of its pair would not be told as the first.
        """
        user, peer = socket.user, socket.peer
        here = self._sockets.setdefault(user, {})
        sockets = here.setdefault(peer, set())
        watches = socket.watching and not any(each.watching for each in sockets)
        sockets.add(socket)
        try:
            if len(here) == len(sockets) == 1:
                self._attendance.user_online(user)
            if len(sockets) == 1:
                self._attendance.pair_opened(user, peer)
            if peer is not None and watches:
                self._attendance.pair_watched(user, peer)
        except BaseException:
            self.leave(socket)
            raise

    def leave(self, socket: HubSocket) -> None:
        """Remove a socket that has joined, and tell whose last it was. Call it once."""
        user, peer = socket.user, socket.peer
        here = self._sockets[user]
        sockets = here[peer]
        sockets.remove(socket)
        if not sockets:
            del here[peer]
        if not here:
            del self._sockets[user]
        if peer is not None and socket.watching and not any(each.watching for each in sockets):
            self._notify(self._attendance.pair_unwatched, user, peer)
        if not sockets:
            self._notify(self._attendance.pair_closed, user, peer)
        if not here:
            self._notify(self._attendance.user_offline, user)

    def _on_first_connection(self, user: int) -> None:
        self._attendance.user_connecting(user)

    def _on_last_connection(self, user: int) -> None:
        self._notify(self._attendance.user_disconnected, user)

    def _notify(self, what: Callable[..., None], *of: int | None) -> None:
        """Tell of a last socket. A bug there must not keep the rest from being told and given back."""
        try:
            what(*of)
        except Exception:  # noqa: BLE001
            _log.exception("attendance_failed", call=what.__name__)

    @property
    def count(self) -> int:
        """How many sockets are open, or are being opened."""
        return self.quota.count(ALL)

    def users(self) -> Collection[int]:
        """Return the users who have sockets here."""
        return self._sockets.keys()

    def has(self, user: int) -> bool:
        """Return whether `user` has a socket here."""
        return user in self._sockets

    def identities(self, users: Iterable[int]) -> set[Identity]:
        """Return as whom these users have sockets here."""
        return {socket.identity for socket in self.sockets_of(users)}

    def sockets_of(self, users: Iterable[int]) -> list[HubSocket]:
        """Return the users' sockets as they are now: writing may close one, which leaves."""
        here = (sockets for user in users for sockets in self._sockets.get(user, {}).values())
        return list(chain.from_iterable(here))

    # Fan-out

    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        """Write a message to all sockets of both users that talk with each other, except `origin`.

        `withheld` leaves out those of the recipient.
        """
        encoded = EncodedMessage(message)
        taken = reads = False
        for socket in () if withheld else self._talking(message.recipient, message.sender):
            session = socket.session
            if session is not None and self._call(socket, session.deliver, encoded):
                taken = True
                reads = reads or session.reads
        for socket in self._talking(message.sender, message.recipient, origin):
            if socket.session is not None:
                self._call(socket, socket.session.copy, encoded)
        return Reached(taken, reads)

    def reaches(self, user: int, peer: int) -> bool:
        """Whether a socket of `user` gets what `peer` writes."""
        return bool(self._talking(user, peer))

    def tell(self, event: PeerEvent) -> None:
        """Write what is not a message to the peer's sockets."""
        for socket in self._talking(event.peer, event.user):
            if socket.session is not None:
                self._call(socket, socket.session.tell, event)

    def present(self, user: int, peer: int, *, online: bool) -> None:
        """Tell the sockets of `user` that `peer` came online or went offline."""
        for socket in self._talking(user, peer):
            if socket.session is not None:
                self._call(socket, partial(socket.session.present, online=online), peer)

    def _talking(self, user: int, peer: int, without: object = None) -> list[HubSocket]:
        """Return the sockets of `user` that get what is said between these two."""
        here = self._sockets.get(user)
        if here is None:
            return []
        return [socket for socket in (*here.get(peer, ()), *here.get(None, ())) if socket is not without]

    def _call(self, socket: HubSocket, method: Callable[[Any], bool | None], argument: Any) -> bool:
        """Call a method of a socket or its session. Return what it returns, False if that is None.

        A bug must not keep other sockets waiting. The socket that has it is closed, so that its client resumes.
        """
        try:
            return bool(method(argument))
        except Exception:  # noqa: BLE001
            _log.exception("socket_failed", user=socket.user)
            socket.shut(RESUME, "resume")
            return False

    # Closing

    def resume(self, user: int, peer: int) -> None:
        """Close the sockets of `user` that talk with `peer`, so that their clients resume."""
        for socket in self.sockets_of((user,)):
            if socket.peer in (peer, None):
                socket.shut(RESUME, "resume")

    def close_sessions(self, identities: Collection[Identity]) -> None:
        """Close the sockets of identities that have ended."""
        for socket in self.sockets_of({each.user for each in identities}):
            if socket.identity in identities:
                socket.shut(POLICY_VIOLATION, "signed out")

    def check_peers(self, now: float, users: Iterable[int]) -> None:
        """Check the clients of these users' sockets; `now` is loop time."""
        for socket in self.sockets_of(users):
            self._call(socket, socket.check_peer, now)

    @property
    def draining(self) -> bool:
        """Whether the server is about to end: no socket is let in, and no request is taken."""
        return self._draining

    def start_draining(self) -> None:
        """Let no socket in and take no request from now on."""
        self._draining = True

    def start(self, attendance: Attendance) -> None:
        """Let sockets in, and tell `attendance` of them.

        A process may serve again after it has drained. No socket is in the hub then, but connections may not be lost
        yet.
        """
        self._attendance = attendance
        for user in self.quota.users():
            attendance.user_connecting(user)
        self._draining = False

    async def close_all(self, timeout: float) -> None:
        """Announce the end to every socket and close it, in batches.

        Waits up to `timeout` seconds for the clients to agree.
        """
        sockets = self.sockets_of(self._sockets)
        for start in range(0, len(sockets), BATCH):
            for socket in sockets[start : start + BATCH]:
                socket.write_frame(v1.encode(Code.END, v1.TEXTS[socket.language]["closing"]))
                socket.shut(GOING_AWAY, "the server is going away")
            await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + timeout
        while self.count and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_EVERY)
