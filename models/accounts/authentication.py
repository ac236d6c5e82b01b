"""Authentication: who the caller of a request or socket is, and for how long.

In the modes `local` and `open` the parameter `uid` is believed. Otherwise the caller shows a signed token, or a ticket
that was issued for one. A token is valid until it expires, its user is gone, or it is ended. Signing out ends one
token. Signing out everywhere and a changed password, also one that another program changes, end all tokens of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum

from models.accounts.ports import Sessions, Tickets, Tokens
from models.chat.ports import Users
from models.errors import Forbidden, InvalidRequest, Unauthenticated, UnknownUser
from models.records import Identity, User

__all__ = ["Access", "Mode"]


class Mode(StrEnum):
    """How callers are authenticated."""

    LOCAL = "local"  # `uid` is believed, from this machine alone
    OPEN = "open"  # `uid` is believed, from everywhere
    TOKEN = "token"  # a token is required  # noqa: S105  # a mode's name

    @property
    def believes(self) -> bool:
        """Whether `uid` alone authenticates the caller."""
        return self is not Mode.TOKEN


class Access:
    """Authenticate callers. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        mode: Mode,
        users: Users,
        sessions: Sessions,
        tokens: Tokens,
        tickets: Tickets,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.mode = mode
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._tickets = tickets
        self._clock = clock

    async def identify(
        self, *, uid: int | None = None, token: str | None = None, ticket: str | None = None
    ) -> Identity:
        """Return the identity of the caller. A ticket is used up by this.

        Raises Unauthenticated, Forbidden if `uid` is not the user of the token, UnknownUser and InvalidRequest where
        `uid` is believed, StorageUnavailable.
        """
        if self.mode.believes and uid is not None:
            identity = Identity(uid)
        elif ticket is not None:
            identity = await self._tickets.redeem(ticket)
        elif token is not None:
            identity = self._tokens.verify(token)
        elif self.mode.believes:
            raise InvalidRequest("uid", "is missing, and there is no token")
        else:
            raise Unauthenticated("a token is needed")
        if uid is not None and uid != identity.user:
            raise Forbidden("uid is not the one whose token this is")
        user = (await self._users.active(identity.user)).get(identity.user)
        if user is None:
            raise UnknownUser(identity.user) if not identity.session else Unauthenticated("the account is gone")
        if self._over(identity, user) or (identity.session and await self._sessions.signed_out(identity.session)):
            raise Unauthenticated("the token is no longer good")
        return identity

    async def ended(self, identities: Collection[Identity]) -> set[Identity]:
        """Return the identities that are no longer valid, by the tables as they are now. Raises StorageUnavailable."""
        users = await self._users.active_now(list({identity.user for identity in identities}))
        out = await self._sessions.signed_out_now([each.session for each in identities if each.session])
        return {
            each
            for each in identities
            if each.user not in users or each.session in out or self._over(each, users[each.user])
        }

    @property
    def issues(self) -> bool:
        """Whether this server issues tokens."""
        return self._tokens.issues

    def issue(self, user: User) -> str:
        """Return a token for a user who has signed in. Raises Forbidden if only another back end issues tokens."""
        return self._tokens.issue(user)

    async def ticket(self, identity: Identity) -> str:
        """Return a ticket that opens one socket within a short time. Raises StorageUnavailable."""
        return await self._tickets.issue(identity)

    def _over(self, identity: Identity, user: User) -> bool:
        """Return whether a token has expired, or was ended together with all tokens of its user."""
        if identity.expires is not None and identity.expires <= self._clock():
            return True
        if identity.version is not None:
            return identity.version != user.token_version
        return bool(identity.session) and identity.issued <= user.tokens_since
