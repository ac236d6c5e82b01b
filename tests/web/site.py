"""The server with the page: a process that can be killed and comes back on the same port."""

from __future__ import annotations

import secrets
import signal
from typing import NamedTuple

import requests

from tests.support.patience import PATIENCE
from tests.support.processes import ServerProcess

OFTEN = (
    "--registrations-per-address=1000000",
    "--sign-ins-per-address=1000000",
    "--sign-ins-per-account=1000000",
    "--strangers-per-hour=1000000",
)


class Account(NamedTuple):
    """A registered user: `name` and `password` to sign in with, `nick` as the displayed name."""

    id: int
    name: str
    password: str
    nick: str


class Site:
    """A server with `flags`, started on a free port."""

    def __init__(self, *flags: str) -> None:
        self._flags = ("--log-level=error", *OFTEN, *flags)
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """Its origin, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on its earlier port."""
        self._server = ServerProcess(*self._flags, f"--port={self.port}")
        try:
            self.port = self._server.ready()
        except BaseException:
            self.discard()
            raise

    def kill(self) -> None:
        """End it as a crash does. It must not have logged an error."""
        self._server.signal(signal.SIGKILL)
        self._ended(-signal.SIGKILL)

    def end(self) -> None:
        """End it as an operator does. It must not have logged an error."""
        if self._server.process.poll() is None:  # Ctrl-C reaches it too
            self._server.signal(signal.SIGTERM)
        self._ended(0)

    def _ended(self, status: int) -> None:
        ended = self._server.failed()
        assert ended == (status, ""), ended

    def discard(self) -> None:
        """Kill it, if it still runs."""
        self._server.kill()


def register(site: Site, nick: str) -> Account:
    """Register an account with the nick name `nick`."""
    name, password = f"u{secrets.token_hex(6)}", secrets.token_hex(8)
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{site.url}/user/register",
            json={"nick_name": nick, "user_name": name, "password": password},
            timeout=PATIENCE,
        )
        assert answer.status_code == 200, answer.text
    return Account(answer.json()["data"]["id"], name, password, nick)
