"""Accounts: registering, signing in and out, changing the password, deleting. Each method has its steps in order.

Each request with a password counts as an attempt before the password is checked, so concurrent requests are counted
too. An attempt counts for the account that a name belongs to, not for the spelling of the name: the table accepts
several spellings of one name.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from models.accounts.authentication import Access
from models.accounts.passwords import TOO_MANY as TOO_MANY_PASSWORDS
from models.accounts.ports import AccountStore, Attempts, Rule, Sessions
from models.errors import Forbidden, Overloaded, Unauthenticated
from models.records import Identity, User

__all__ = ["Accounts", "Registration"]


class Registration(StrEnum):
    """Whether anyone can register."""

    AUTO = "auto"  # if this server issues tokens; otherwise the back end that issues them also creates accounts
    ON = "on"
    OFF = "off"


class Accounts:
    """The accounts.

    `changed` is called with each user whose sockets have to be checked, here and in other processes.
    """

    def __init__(
        self,
        store: AccountStore,
        access: Access,
        sessions: Sessions,
        attempts: Attempts,
        changed: Callable[[int], None],
        registration: Registration = Registration.AUTO,
    ) -> None:
        self._store = store
        self._access = access
        self._sessions = sessions
        self._attempts = attempts
        self._changed = changed
        self._registration = registration

    @property
    def open_to_all(self) -> bool:
        """Whether anyone can register."""
        if self._registration is Registration.AUTO:
            return self._access.issues
        return self._registration is Registration.ON

    async def register(self, address: str, user_name: str, nick_name: str, password: bytes) -> User:
        """Add a user. Raises TooFast, NameTaken, Forbidden if registration is off."""
        if not self.open_to_all:
            elsewhere = "tokens are issued elsewhere, and so are accounts"
            raise Forbidden(elsewhere if self._registration is Registration.AUTO else "registration is turned off")
        self._require_capacity()
        await self._attempts.take(Rule.REGISTRATION, address)
        return await self._store.register(user_name, nick_name, password)

    async def sign_in(self, address: str, user_name: str, password: bytes) -> tuple[User, str]:
        """Return the user with that name and password, and a token.

        Raises TooFast, and Unauthenticated. The latter has the same text and takes the same time if the name does not
        exist.
        """
        if not self._access.issues:
            raise Forbidden("tokens are issued elsewhere")
        self._require_capacity()
        await self._attempts.take(Rule.ADDRESS, address)
        found = await self._store.find(user_name)
        subject = str(found.user) if found else f"name {user_name.casefold()}"
        await self._attempts.take(Rule.ACCOUNT, subject)
        matches = await self._store.matches(password, found.digest if found else None)
        # The password may have been changed while this one was in the queue.
        user = await self._store.confirm(found.user if found else 0, found.digest if found else "")
        if not matches or user is None:
            raise Unauthenticated("the user name or the password is wrong")
        await self._attempts.forgive(Rule.ACCOUNT, subject)
        return user, self._access.issue(user)

    async def sign_out(self, identity: Identity) -> None:
        """End the token of this identity."""
        if not identity.session:
            raise Unauthenticated("there is no token to be ended")
        await self._sessions.sign_out(identity)
        self._changed(identity.user)

    async def sign_out_everywhere(self, user: int) -> None:
        """End all tokens of a user."""
        await self._sessions.sign_out_everywhere(user)
        self._changed(user)

    async def change_password(self, address: str, user: int, current: bytes, new: bytes) -> tuple[User, str | None]:
        """Change a password and end all tokens. Return the user, and a new token if this server issues tokens.

        Raises TooFast, and Forbidden if the current password is wrong or was changed meanwhile.
        """
        digest = await self._confirmed(address, user, current)
        changed = await self._store.set_password(user, digest, new)
        self._changed(user)
        found = await self._store.confirm(user, changed) if changed is not None else None
        if found is None:
            raise Forbidden("the password was changed meanwhile, or the account is gone")
        return found, self._access.issue(found) if self._access.issues else None

    async def delete(self, address: str, user: int, password: bytes) -> None:
        """Delete an account, which ends its tokens. Raises TooFast, Forbidden if the password is wrong."""
        if not await self._store.erase(user, await self._confirmed(address, user, password)):
            raise Forbidden("the password was changed meanwhile, or the account is gone")
        self._changed(user)

    async def _confirmed(self, address: str, user: int, password: bytes) -> str:
        """Return the digest that the password of a signed-in user matches.

        These attempts are counted apart from signing in. Otherwise a stranger who guesses passwords could keep the
        owner from changing theirs. Correct passwords count as well, since each check takes its time.
        """
        self._require_capacity()
        await self._attempts.take(Rule.ADDRESS, address)
        await self._attempts.take(Rule.CONFIRMATION, str(user))
        digest = await self._store.digest_of(user)
        if not await self._store.matches(password, digest):
            raise Forbidden("the password is wrong")
        return digest

    def _require_capacity(self) -> None:
        """Refuse if the queue of passwords is full, before an attempt is counted.

        Concurrent requests may still fill it.
        """
        if self._store.busy:
            raise Overloaded(TOO_MANY_PASSWORDS)
