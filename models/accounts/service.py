"""Accounts: signing up, signing in and out, changing the password, leaving. The steps of each stand here in order.

Whatever takes a password counts as an attempt before the password is looked at, so that many at once are counted as
well. An attempt is counted for the account that a name belongs to, not for the name as it was spelt: the table takes
several spellings for the same.
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
    """Whether anybody can register."""

    AUTO = "auto"  # where tokens are issued here; elsewhere accounts are made by whoever issues them
    ON = "on"
    OFF = "off"


class Accounts:
    """The accounts.

    `changed` is told of users whose sockets have to be looked at, here and in other processes.
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
        """Whether anybody can register."""
        if self._registration is Registration.AUTO:
            return self._access.issues
        return self._registration is Registration.ON

    async def register(self, address: str, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user. Raises TooFast, NameTaken, Forbidden where nobody can register."""
        if not self.open_to_all:
            elsewhere = "tokens are issued elsewhere, and so are accounts"
            raise Forbidden(elsewhere if self._registration is Registration.AUTO else "registration is turned off")
        self._require_room()
        await self._attempts.take(Rule.REGISTRATION, address)
        return await self._store.register(user_name, nick_name, password)

    async def sign_in(self, address: str, user_name: str, password: bytes) -> tuple[User, str]:
        """The user of that name and password, and a token.

        Raises TooFast, and Unauthenticated with the same text, after the same time, for a name that nobody has.
        """
        if not self._access.issues:
            raise Forbidden("tokens are issued elsewhere")
        self._require_room()
        await self._attempts.take(Rule.ADDRESS, address)
        found = await self._store.find(user_name)
        subject = str(found.user) if found else f"name {user_name.casefold()}"
        await self._attempts.take(Rule.ACCOUNT, subject)
        matches = await self._store.matches(password, found.digest if found else None)
        # The password may have been changed while this one waited to be checked.
        user = await self._store.confirm(found.user if found else 0, found.digest if found else "")
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

    async def change_password(self, address: str, user: int, current: bytes, new: bytes) -> tuple[User, str | None]:
        """Changes a password and ends all tokens; the user, and a new token if such are issued here.

        Raises TooFast, Forbidden when the current password is another, or was changed meanwhile.
        """
        digest = await self._confirmed(address, user, current)
        changed = await self._store.set_password(user, digest, new)
        self._changed(user)
        found = await self._store.confirm(user, changed) if changed is not None else None
        if found is None:
            raise Forbidden("the password was changed meanwhile, or the account is gone")
        return found, self._access.issue(found) if self._access.issues else None

    async def delete(self, address: str, user: int, password: bytes) -> None:
        """Deletes an account, which ends its tokens. Raises TooFast, Forbidden when the password is another."""
        if not await self._store.erase(user, await self._confirmed(address, user, password)):
            raise Forbidden("the password was changed meanwhile, or the account is gone")
        self._changed(user)

    async def _confirmed(self, address: str, user: int, password: bytes) -> str:
        """The digest that a password of somebody who has signed in was found to match.

        Counted apart from signing in, or a stranger who guesses would keep the owner from changing the password; and
        counted when it is right as well, since each takes its time.
        """
        self._require_room()
        await self._attempts.take(Rule.ADDRESS, address)
        await self._attempts.take(Rule.CONFIRMATION, str(user))
        digest = await self._store.digest_of(user)
        if not await self._store.matches(password, digest):
            raise Forbidden("the password is wrong")
        return digest

    def _require_room(self) -> None:
        """Refuses before an attempt is counted, as far as can be seen by then: others may be about to wait."""
        if self._store.busy:
            raise Overloaded(TOO_MANY_PASSWORDS)
