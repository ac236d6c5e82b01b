"""What accounts ask of storage and handlers: Protocols that these implement, as in models/chat/ports.py.

All coroutines raise EngineUnavailable when their engine is down or slow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from models.records import Identity, User

__all__ = ["AccountStore", "Attempts", "Found", "OpenSockets", "Rule", "Sessions", "Tickets", "Tokens"]


class Found(NamedTuple):
    """An account, and its password digest; "" if it has none."""

    user: int
    digest: str


class AccountStore(Protocol):
    """The accounts in the user table."""

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user; `password` has 8 to 72 bytes. Raises NameTaken."""

    async def find(self, user_name: str) -> Found | None:
        """The active account of that name."""

    async def digest_of(self, user: int) -> str:
        """The password digest of an account."""

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Whether a digest is this password's; takes as long when there is none."""

    @property
    def busy(self) -> bool:
        """Whether so many passwords wait to be checked that no more are taken."""

    async def confirm(self, user: int, digest: str) -> User | None:
        """The active account as it is now, if its password digest still is this one."""

    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        """Gives an account whose digest is this one a new password, and ends its tokens; the new digest.

        None, if another change was faster.
        """

    async def erase(self, user: int, digest: str) -> bool:
        """Deletes an account whose digest is this one, and what it says about a person; whether it was there."""


class Sessions(Protocol):
    """The tokens that were ended before their time was over."""

    async def signed_out(self, session: bytes) -> bool:
        """Whether a token was ended by itself, some seconds ago or earlier."""

    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        """Which of these tokens were ended by themselves."""

    async def sign_out(self, identity: Identity) -> None:
        """Ends one token."""

    async def sign_out_everywhere(self, user: int) -> None:
        """Ends all tokens of a user."""


class Tokens(Protocol):
    """Signed tokens."""

    @property
    def issues(self) -> bool:
        """Whether there is a key to sign with."""

    def issue(self, user: User) -> str:
        """A token for a user. Raises Forbidden when tokens are issued elsewhere alone."""

    def verify(self, token: str) -> Identity:
        """Whose token it is. Raises Unauthenticated unless it is signed by a known key, for us, and in its time."""


class Tickets(Protocol):
    """Tickets for one use within a moment."""

    async def issue(self, identity: Identity) -> str:
        """A ticket that makes its bearer somebody."""

    async def redeem(self, ticket: str) -> Identity:
        """Whom a ticket makes its bearer; it is used up. Raises Unauthenticated."""


class Rule(StrEnum):
    """What may be tried so often and no more; the text is for the error."""

    ACCOUNT = "attempts to sign in to this account"
    CONFIRMATION = "attempts to confirm the password of this account"
    ADDRESS = "attempts to sign in from this address"
    REGISTRATION = "registrations from this address"


class Attempts(Protocol):
    """How often something was tried, counted for all processes together."""

    async def take(self, rule: Rule, subject: str) -> None:
        """Counts an attempt. Raises TooFast when there were too many."""

    async def forgive(self, rule: Rule, subject: str) -> None:
        """Forgets the attempts of a subject."""


class OpenSockets(Protocol):
    """The sockets of this process, as somebody who closes them sees them."""

    def users(self) -> Collection[int]:
        """Who has sockets here."""

    def identities(self, users: Iterable[int]) -> set[Identity]:
        """As whom these users have sockets here."""

    def close_sessions(self, identities: Collection[Identity]) -> None:
        """Closes their sockets."""
