"""Tests of the hub: a bug in one socket concerns no other one."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.websocket.hub import RESUME, Hub
from models.chat.events import Typing
from models.records import Message


class Fake:
    """A fake of a socket and its session. It records what is done to it, or raises."""

    reads = watching = False

    def __init__(self, user: int, *, broken: bool) -> None:
        self.user = user
        self.peer = 3 - user
        self.session = self
        self.broken = broken
        self.done: list[str] = []
        self.closed_with: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in ("check_peer", "copy", "deliver", "present", "tell"):
            raise AttributeError(name)

        def act(*_: object, **__: object) -> bool:
            if self.broken:
                raise RuntimeError("a bug")
            self.done.append(name)
            return True

        return act

    def shut(self, code: int, reason: str) -> None:
        self.closed_with = code


@pytest.mark.parametrize("broken_first", [True, False])
def test_a_bug_in_one_socket_concerns_no_other(broken_first: bool) -> None:
    """Whatever is done to several sockets is done to all but the broken one, which is closed and has to resume."""
    hub = Hub()
    sockets = {user: [Fake(user, broken=broken_first), Fake(user, broken=not broken_first)] for user in (1, 2)}
    for socket in (*sockets[1], *sockets[2]):
        hub.join(socket)
    reached = hub.deliver(Message(1, 2, 1, 1, "hi", b""), None, withheld=False)
    assert reached == (True, False)
    hub.tell(Typing(1, 2))
    hub.present(2, 1, online=True)
    hub.check_peers(0.0, (1, 2))
    for socket in (*sockets[1], *sockets[2]):
        done = ["copy", "check_peer"] if socket.user == 1 else ["deliver", "tell", "present", "check_peer"]
        assert (socket.done, socket.closed_with) == (([], RESUME) if socket.broken else (done, None))
