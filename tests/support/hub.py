"""Fakes of what the hub holds and tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typing_extensions import override

from handlers.websocket.interfaces import EncodedMessage
from models.chat.events import PeerEvent
from models.chat.ports import Attendance
from tests.support.ports import UnusedHubSocket, UnusedSession

__all__ = ["Device", "RecordedAttendance", "RecordedSocket"]


class RecordedAttendance(Attendance):
    """What is told, in order, and what is open by it. A call that is among `broken` raises."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.told: list[tuple[Any, ...]] = []
        self.open: set[tuple[Any, ...]] = set()

    def _begin(self, call: str, *what: Any) -> None:
        assert what not in self.open, "the first one is told once"
        self._note(call, what)
        self.open.add(what)

    def _end(self, call: str, *what: Any) -> None:
        self._note(call, what)
        self.open.discard(what)

    def _note(self, call: str, what: tuple[Any, ...]) -> None:
        self.told.append((call, *what[1:]))
        if call in self.broken:
            raise RuntimeError("a bug")

    @override
    def user_connecting(self, user: int) -> None:
        self._begin("connecting", "connections", user)

    @override
    def user_disconnected(self, user: int) -> None:
        self._end("disconnected", "connections", user)

    @override
    def user_online(self, user: int) -> None:
        self._begin("online", "user", user)

    @override
    def user_offline(self, user: int) -> None:
        self._end("offline", "user", user)

    @override
    def pair_opened(self, user: int, peer: int | None) -> None:
        self._begin("opened", "pair", user, peer)

    @override
    def pair_closed(self, user: int, peer: int | None) -> None:
        self._end("closed", "pair", user, peer)

    @override
    def pair_watched(self, user: int, peer: int) -> None:
        self._begin("watched", "watch", user, peer)

    @override
    def pair_unwatched(self, user: int, peer: int) -> None:
        self._end("unwatched", "watch", user, peer)


class Device(UnusedHubSocket):
    """A socket that only joins and leaves."""

    def __init__(self, user: int, peer: int | None, *, watching: bool) -> None:
        self.user, self.peer, self.watching = user, peer, watching

    def open_by_it(self) -> Iterable[tuple[Any, ...]]:
        """Return what is open while this socket has joined."""
        yield "user", self.user
        yield "pair", self.user, self.peer
        if self.watching and self.peer is not None:
            yield "watch", self.user, self.peer


class RecordedSocket(UnusedHubSocket):
    """A socket between the users 1 and 2 that records what is done to it and its session, or always raises."""

    def __init__(self, user: int, *, broken: bool) -> None:
        self.user, self.peer = user, 3 - user
        self.broken = broken
        self.done: list[str] = []
        self.closed_with: int | None = None
        self.session = _RecordedSession(self)

    def note(self, what: str) -> bool:
        """Record a call."""
        if self.broken:
            raise RuntimeError("a bug")
        self.done.append(what)
        return True

    @override
    def check_peer(self, now: float) -> None:
        self.note("check_peer")

    @override
    def shut(self, code: int, reason: str) -> None:
        self.closed_with = code


class _RecordedSession(UnusedSession):
    def __init__(self, socket: RecordedSocket) -> None:
        self._socket = socket

    @override
    def copy(self, message: EncodedMessage) -> None:
        self._socket.note("copy")

    @override
    def deliver(self, message: EncodedMessage) -> bool:
        return self._socket.note("deliver")

    @override
    def present(self, peer: int, *, online: bool) -> None:
        self._socket.note("present")

    @override
    def tell(self, event: PeerEvent) -> None:
        self._socket.note("tell")
