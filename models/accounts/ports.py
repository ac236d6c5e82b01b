"""What accounts need from storage and handlers: Protocols that these implement, as in models/chat/ports.py.

All coroutines raise StorageUnavailable when their database is down or slow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from models.records import Identity, User

__all__ = ["AccountStore", "Attempts", "Found", "OpenSockets", "Rule", "Sessions", "Tickets", "Tokens"]


class Found(NamedTuple):
    """An account and its password digest, "" if it has none."""

    user: int
    digest: str


class AccountStore(Protocol):
    """The accounts in the user table."""

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Add a user. `password` has 8 to 72 bytes. Raises NameTaken."""

    async def find(self, user_name: str) -> Found | None:
        """Return the active account of that name."""

    async def digest_of(self, user: int) -> str:
        """Return the password digest of an account."""

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Return whether a digest belongs to this password. It takes as long when there is no digest."""

    @property
    def busy(self) -> bool:
        """Whether the queue of passwords to be checked is full."""

    async def confirm(self, user: int, digest: str) -> User | None:
        """Return the active account as it is now, if its password digest is still this one."""

    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        """Set the password of an account whose digest is this one, and end its tokens. Return the new digest.

        None if the digest has changed meanwhile.
        """

    async def erase(self, user: int, digest: str) -> bool:
        """Delete an account whose digest is this one, and its personal data. Return whether it existed."""


class Sessions(Protocol):
    """The tokens that were ended before they expired."""

    async def signed_out(self, session: bytes) -> bool:
        """Return whether a token was ended by itself, some seconds ago or earlier."""

    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        """Return which of these tokens were ended by themselves."""

    async def sign_out(self, identity: Identity) -> None:
        """End one token."""

    async def sign_out_everywhere(self, user: int) -> None:
        """End all tokens of a user."""


class Tokens(Protocol):
    """Signed tokens."""

    @property
    def issues(self) -> bool:
        """Whether there is a key to sign with."""

    def issue(self, user: User) -> str:
        """Return a token for a user. Raises Forbidden if only another back end issues tokens."""

    def verify(self, token: str) -> Identity:
        """Return the identity in a token.

        Raises Unauthenticated unless a known key signed it, for this server, and it is valid now.
        """


class Tickets(Protocol):
    """Tickets: secrets for one use within a short time."""

    async def issue(self, identity: Identity) -> str:
        """Return a ticket for an identity."""

    async def redeem(self, ticket: str) -> Identity:
        """Return the identity of a ticket, which is used up. Raises Unauthenticated."""


class Rule(StrEnum):
    """What is limited by attempts. The text is part of the error."""

    ACCOUNT = "attempts to sign in to this account"
    CONFIRMATION = "attempts to confirm the password of this account"
    ADDRESS = "attempts to sign in from this address"
    REGISTRATION = "registrations from this address"


class Attempts(Protocol):
    """Counters of attempts, shared by all processes."""

    async def take(self, rule: Rule, subject: str) -> None:
        """Count an attempt. Raises TooFast if there were too many."""

    async def forgive(self, rule: Rule, subject: str) -> None:
        """Forget the attempts of a subject."""


class OpenSockets(Protocol):
    """The sockets of this process, as the session reaper needs them."""

    def users(self) -> Collection[int]:
        """Return the users that have sockets here."""

    def identities(self, users: Iterable[int]) -> set[Identity]:
        """Return the identities with which the sockets of these users were opened."""

    def close_sessions(self, identities: Collection[Identity]) -> None:
        """Close the sockets of these identities."""
