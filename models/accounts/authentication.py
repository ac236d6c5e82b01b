"""Who may speak as whom: what makes a request or a socket somebody's, and for how long.

In the modes that believe, `uid` says who asks. Otherwise a token does: a signed one, or a ticket that was had for
one. A token is good until its time is over, its user is gone, or it was ended before: alone by signing out, or with
all of the user's by signing out everywhere and by a change of the password, whoever makes that.
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
    """How it is known who asks."""

    LOCAL = "local"  # `uid` is believed, from this machine alone
    OPEN = "open"  # `uid` is believed, from everywhere
    TOKEN = "token"  # only a token says who somebody is  # noqa: S105  # a mode's name

    @property
    def believes(self) -> bool:
        """Whether `uid` alone says who asks."""
        return self is not Mode.TOKEN


class Access:
    """Tells who asks; `clock` returns seconds since the epoch."""

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
        """Who asks, by what the request says. A ticket is used up by this.

        Raises Unauthenticated, Forbidden when `uid` is somebody else, UnknownUser and InvalidRequest where `uid` is
        believed, EngineUnavailable.
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
        """Those who may no longer speak, by the tables as they are now. Raises EngineUnavailable."""
        users = await self._users.active_now(list({identity.user for identity in identities}))
        out = await self._sessions.signed_out_now([each.session for each in identities if each.session])
        return {
            each
            for each in identities
            if each.user not in users or each.session in out or self._over(each, users[each.user])
        }

    @property
    def issues(self) -> bool:
        """Whether tokens are issued here, and not elsewhere alone."""
        return self._tokens.issues

    def issue(self, user: User) -> str:
        """A token for a user who has signed in. Raises Forbidden where tokens are issued elsewhere."""
        return self._tokens.issue(user)

    async def ticket(self, identity: Identity) -> str:
        """A ticket with which one socket can be opened, soon. Raises EngineUnavailable."""
        return await self._tickets.issue(identity)

    def _over(self, identity: Identity, user: User) -> bool:
        """Whether a token's time is over, or all of its user's tokens of then were ended."""
        if identity.expires is not None and identity.expires <= self._clock():
            return True
        if identity.version is not None:
            return identity.version != user.token_version
        return bool(identity.session) and identity.issued <= user.tokens_since
