"""Signing in and out over HTTP, the current session, passwords, and tickets for sockets."""

from __future__ import annotations

from tornado.web import HTTPError

from handlers.http import fields
from handlers.http.base import BaseHandler
from models.accounts.service import Accounts
from models.chat.ports import Users
from models.errors import Forbidden, InvalidRequest, Unauthenticated, UnknownUser
from models.records import User

__all__ = [
    "LoginHandler",
    "LogoutEverywhereHandler",
    "LogoutHandler",
    "PasswordHandler",
    "SessionHandler",
    "TicketHandler",
]

OFFERED = 50  # users that the page offers to choose from where `uid` is believed


class _SignInHandler(BaseHandler):
    """The base of the handlers that set a browser's token or delete it."""

    def initialize(self, accounts: Accounts, token_lifetime: float) -> None:
        """Take the collaborators; `token_lifetime` is in seconds."""
        self._accounts = accounts
        self._token_lifetime = token_lifetime

    def answer_signed_in(self, user: User, token: str | None) -> None:
        """Answer with a user and a token, in the body for programs and in a cookie for browsers."""
        self.keep_token(token, self._token_lifetime)
        self.answer({"user": fields.shown(user), "token": token})


class LoginHandler(_SignInHandler):
    """POST /user/login"""

    async def post(self) -> None:
        """Sign in with `user_name` and `password`, as a form or a JSON object."""
        given = self.given()
        name, password = fields.login_name(given), fields.password(given)
        self.answer_signed_in(*await self._accounts.sign_in(self.address, name, password))


class LogoutHandler(_SignInHandler):
    """POST /user/logout"""

    async def post(self) -> None:
        """End the token of this request."""
        await self._accounts.sign_out(await self.identify())
        self.keep_token(None)
        self.answer(None)


class LogoutEverywhereHandler(_SignInHandler):
    """POST /user/logout/everywhere"""

    async def post(self) -> None:
        """End all tokens of the caller."""
        await self._accounts.sign_out_everywhere((await self.identify()).user)
        self.keep_token(None)
        self.answer(None)


class PasswordHandler(_SignInHandler):
    """POST /user/password"""

    async def post(self) -> None:
        """Change `password` to `new_password`, which ends all tokens. The answer is that of signing in."""
        identity = await self.identify()
        given = self.given()
        current, new = fields.password(given), fields.new_password(given, "new_password")
        self.answer_signed_in(*await self._accounts.change_password(self.address, identity.user, current, new))


class TicketHandler(BaseHandler):
    """POST /ws/ticket"""

    async def post(self) -> None:
        """Answer with a ticket with which the caller can open one socket within a short time."""
        self.answer({"ticket": await self.policy.access.ticket(await self.identify())})


class SessionHandler(BaseHandler):
    """GET /session"""

    def initialize(self, users: Users, accounts: Accounts, max_content: int, log: str) -> None:
        """Take the collaborators, the maximum number of characters of a message, and the id of the log."""
        self._users = users
        self._log_id = log
        self._max_content = max_content
        self._accounts = accounts

    async def get(self) -> None:
        """Answer what a page needs before signing in. That the caller is not signed in is no error.

        Users are listed only where `uid` is believed.
        """
        mode = self.policy.access.mode
        user = await self._caller()
        users = await self._users.first(OFFERED) if mode.believes else []
        self.answer(
            {
                "auth": mode.value,
                "user": fields.shown(user) if user else None,
                "users": [fields.shown_to_others(each) for each in users],
                "max_content": self._max_content,
                "log": self._log_id,
                "registration": self._accounts.open_to_all,
            }
        )

    async def _caller(self) -> User | None:
        """Return the caller's user, None if the caller is not authenticated.

        A cookie with an invalid token is not deleted: the browser may have got a new one meanwhile.
        """
        try:
            user = (await self.identify()).user
        except (Unauthenticated, Forbidden, UnknownUser):  # `uid` is another user's, or no user's
            return None
        except (InvalidRequest, HTTPError):  # `uid` is not given, or not an id
            return None
        return (await self._users.active_now([user])).get(user)
