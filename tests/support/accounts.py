"""Fakes of what accounts and authentication need of storage and handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from typing_extensions import override

from models.accounts.authentication import Access, Mode
from models.accounts.ports import Found, OpenSockets, Rule
from models.accounts.service import Accounts, Registration
from models.errors import StorageUnavailable, TooFast, Unauthenticated
from models.records import Identity, User
from tests.support.ports import (
    UnusedAccountStore,
    UnusedAttempts,
    UnusedSessions,
    UnusedTickets,
    UnusedTokens,
    UnusedUsers,
)

__all__ = [
    "DepartingUsers",
    "KnownUsers",
    "ListedSockets",
    "OneTicket",
    "OneToken",
    "RecordedAccounts",
    "RecordedSessions",
]

Steps = list[Any]  # the recorded calls: a name, or a name and an argument


class KnownUsers(UnusedUsers):
    """A user table that is a dictionary; with `away` it cannot be read."""

    def __init__(self, *users: User) -> None:
        self.users = {user.id: user for user in users}
        self.away = False
        self.refused = 0  # reads while it was away

    @override
    async def active(self, *ids: int) -> dict[int, User]:
        if self.away:
            self.refused += 1
            raise StorageUnavailable("mysql", "away")
        return {user: self.users[user] for user in ids if user in self.users}

    @override
    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        return await self.active(*ids)


class DepartingUsers(UnusedUsers):
    """A user table with all users but those in `gone`. It answers when the event is set; with `away` it is not read."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.away = False
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    @override
    async def active(self, *ids: int) -> dict[int, User]:
        self.asked += 1
        await self.answers.wait()
        if self.away:
            raise StorageUnavailable("mysql", "away")
        return {user: User(user, "", "", "", "", "active", 0) for user in ids if user not in self.gone}


class RecordedSessions(UnusedSessions):
    """Ended tokens, and a record of the calls that end one."""

    def __init__(self, steps: Steps) -> None:
        self.out: set[bytes] = set()
        self.asked: list[set[bytes]] = []
        self._steps = steps

    @override
    async def signed_out(self, session: bytes) -> bool:
        return session in self.out

    @override
    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        self.asked.append(set(sessions))
        return self.out & set(sessions)

    @override
    async def sign_out(self, identity: Identity) -> None:
        self._steps.append("sign_out")


class OneToken(UnusedTokens):
    """The only valid token is "token", of an identity; it is issued to everyone if there is a key."""

    issues = True

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @override
    def issue(self, user: User) -> str:
        return "token"

    @override
    def verify(self, token: str) -> Identity:
        if token != "token":
            raise Unauthenticated("no")
        return self.identity


class OneTicket(UnusedTickets):
    """The only valid ticket is "token", of the token's identity."""

    def __init__(self, tokens: OneToken) -> None:
        self._tokens = tokens

    @override
    async def redeem(self, ticket: str) -> Identity:
        return self._tokens.verify(ticket)


class OneAccount(UnusedAccountStore):
    """An account of the name "name" and any case of it, with a password; `meanwhile` is called when it is checked."""

    busy = False

    def __init__(self, steps: Steps, user: User) -> None:
        self.password = b"right"
        self.digest = "digest"
        self.meanwhile: Callable[[], None] = lambda: None
        self._steps = steps
        self._user = user

    @override
    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        self._steps.append("register")
        return self._user

    @override
    async def find(self, user_name: str) -> Found | None:
        return Found(self._user.id, "digest") if user_name.casefold() == "name" else None

    @override
    async def digest_of(self, user: int) -> str:
        return self.digest

    @override
    async def matches(self, password: bytes, digest: str | None) -> bool:
        self._steps.append("matches")
        self.meanwhile()
        return digest is not None and password == self.password

    @override
    async def confirm(self, user: int, digest: str) -> User | None:
        self._steps.append(("confirm", digest))
        return self._user if user == self._user.id and digest == self.digest else None

    @override
    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        self._steps.append("set_password")
        if digest != self.digest:
            return None
        self.digest = "new digest"
        return self.digest

    @override
    async def erase(self, user: int, digest: str) -> bool:
        self._steps.append("erase")
        return digest == self.digest


class RecordedAttempts(UnusedAttempts):
    """Attempts that are recorded, and are too many for the rules in `full`."""

    def __init__(self, steps: Steps) -> None:
        self.full: set[Rule] = set()
        self._steps = steps

    @override
    async def take(self, rule: Rule, subject: str) -> None:
        self._steps.append((rule.name, subject))
        if rule in self.full:
            raise TooFast(rule.value, 9)

    @override
    async def forgive(self, rule: Rule, subject: str) -> None:
        self._steps.append(("forgive", subject))


class RecordedAccounts:
    """Accounts with one user, on fakes that record in `steps` the order of their calls."""

    def __init__(self, user: User, registration: Registration = Registration.AUTO) -> None:
        self.steps: Steps = []
        self.store = OneAccount(self.steps, user)
        self.attempts = RecordedAttempts(self.steps)
        self.sessions = RecordedSessions(self.steps)
        self.tokens = OneToken(Identity(user.id))
        access = Access(
            Mode.TOKEN, KnownUsers(user), self.sessions, self.tokens, OneTicket(self.tokens), clock=lambda: 0.0
        )
        self.accounts = Accounts(self.store, access, self.sessions, self.attempts, self._changed, registration)

    def _changed(self, user: int) -> None:
        self.steps.append(("changed", user))


class ListedSockets(OpenSockets):
    """The open sockets of these identities."""

    def __init__(self, *identities: Identity) -> None:
        self._all = frozenset(identities)
        self.closed: set[Identity] = set()

    @override
    def users(self) -> Collection[int]:
        return {each.user for each in self._all - self.closed}

    @override
    def identities(self, users: Iterable[int]) -> set[Identity]:
        here = set(users)
        return {each for each in self._all - self.closed if each.user in here}

    @override
    def close_sessions(self, identities: Collection[Identity]) -> None:
        self.closed |= set(identities)
