"""Accounts: signing up, signing in and out, changing the password, leaving. The steps of each stand here in order.

Whatever takes a password counts as an attempt before the password is looked at, so that many at once are counted as
well. An attempt is counted for the account that a name belongs to, not for the name as it was spelt: the table takes
several spellings for the same.
"""

from __future__ import annotations

from collections.abc import Callable

from models.access import Access
from models.account_ports import AccountStore, Attempts, Rule, Sessions
from models.errors import Forbidden, Unauthenticated
from models.ports import Users
from models.records import Identity, User

__all__ = ["Accounts"]


class Accounts:
    """The accounts. `changed` is told of users whose sockets have to be looked at, here and in other processes."""

    def __init__(
        self,
        store: AccountStore,
        users: Users,
        access: Access,
        sessions: Sessions,
        attempts: Attempts,
        changed: Callable[[int], None],
    ) -> None:
        self._store = store
        self._users = users
        self._access = access
        self._sessions = sessions
        self._attempts = attempts
        self._changed = changed

    async def register(self, address: str, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user. Raises TooFast, NameTaken."""
        await self._attempts.take(Rule.REGISTRATION, address)
        return await self._store.register(user_name, nick_name, password)

    async def sign_in(self, address: str, user_name: str, password: bytes) -> tuple[User, str]:
        """The user of that name and password, and a token.

        Raises TooFast, and Unauthenticated with the same text, after the same time, for a name that nobody has.
        """
        if not self._access.issues:
            raise Forbidden("tokens are issued elsewhere")
        await self._attempts.take(Rule.ADDRESS, address)
        found = await self._store.find(user_name)
        subject = str(found.user) if found else f"name {user_name.casefold()}"
        await self._attempts.take(Rule.ACCOUNT, subject)
        matches = await self._store.matches(password, found.digest if found else None)
        user = (await self._users.active_now([found.user])).get(found.user) if found else None
        if not matches or user is None:
            raise Unauthenticated("the user name or the password is wrong")
        await self._attempts.forgive(Rule.ACCOUNT, subject)
        return user, self._access.issue(user)

    async def sign_out(self, identity: Identity) -> None:
        """Ends the token of this identity."""
        if not identity.session:
            raise Unauthenticated("there is no token to be ended")
        await self._sessions.sign_out(identity)
        self._changed(identity.user)

    async def sign_out_everywhere(self, user: int) -> None:
        """Ends all tokens of a user."""
        await self._sessions.sign_out_everywhere(user)
        self._changed(user)

    async def change_password(self, user: int, current: bytes, new: bytes) -> tuple[User, str | None]:
        """Changes a password and ends all tokens; the user, and a new token if such are issued here.

        Raises TooFast, Forbidden when the current password is another.
        """
        await self._require_password(user, current)
        await self._store.set_password(user, new)
        self._changed(user)
        changed = (await self._users.active_now([user])).get(user)
        if changed is None:
            raise Unauthenticated("the account is gone")
        return changed, self._access.issue(changed) if self._access.issues else None

    async def delete(self, user: int, password: bytes) -> None:
        """Deletes an account, which ends its tokens. Raises TooFast, Forbidden when the password is another."""
        await self._require_password(user, password)
        await self._store.erase(user)
        self._changed(user)

    async def _require_password(self, user: int, password: bytes) -> None:
        await self._attempts.take(Rule.ACCOUNT, str(user))
        if not await self._store.matches(password, await self._store.digest_of(user)):
            raise Forbidden("the password is wrong")
        await self._attempts.forgive(Rule.ACCOUNT, str(user))
