"""Signing in and out over HTTP, who is signed in, passwords, and tickets for sockets."""

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

OFFERED = 50  # users whom a page can offer to be, where that is for it to choose


class _SignInHandler(BaseHandler):
    """What those have in common that give a browser its token, for some seconds, or take it away."""

    def initialize(self, accounts: Accounts, token_lifetime: float) -> None:
        """Takes the collaborators."""
        self._accounts = accounts
        self._token_lifetime = token_lifetime

    def answer_signed_in(self, user: User, token: str | None) -> None:
        """A user and a token, for programs in the answer and for browsers in a cookie."""
        self.keep_token(token, self._token_lifetime)
        self.answer({"user": fields.shown(user), "token": token})


class LoginHandler(_SignInHandler):
    """POST /user/login"""

    async def post(self) -> None:
        """Signs in with `user_name` and `password`, as a form or a JSON object."""
        given = self.given()
        name, password = fields.login_name(given), fields.password(given)
        self.answer_signed_in(*await self._accounts.sign_in(self.address, name, password))


class LogoutHandler(_SignInHandler):
    """POST /user/logout"""

    async def post(self) -> None:
        """Ends the token of this request."""
        await self._accounts.sign_out(await self.identify())
        self.keep_token(None)
        self.answer(None)


class LogoutEverywhereHandler(_SignInHandler):
    """POST /user/logout/everywhere"""

    async def post(self) -> None:
        """Ends all tokens of the caller."""
        await self._accounts.sign_out_everywhere((await self.identify()).user)
        self.keep_token(None)
        self.answer(None)


class PasswordHandler(_SignInHandler):
    """POST /user/password"""

    async def post(self) -> None:
        """Changes `password` to `new_password`, which ends all tokens; answers as signing in does."""
        identity = await self.identify()
        given = self.given()
        current, new = fields.password(given), fields.new_password(given, "new_password")
        self.answer_signed_in(*await self._accounts.change_password(self.address, identity.user, current, new))


class TicketHandler(BaseHandler):
    """POST /ws/ticket"""

    async def post(self) -> None:
        """A ticket with which the caller can open one socket, soon."""
        self.answer({"ticket": await self.policy.access.ticket(await self.identify())})


class SessionHandler(BaseHandler):
    """GET /session"""

    def initialize(self, users: Users, accounts: Accounts, max_content: int, log: str) -> None:
        """Takes the collaborators, how many characters a message may have, and the id of the log."""
        self._users = users
        self._log_id = log
        self._max_content = max_content
        self._accounts = accounts

    async def get(self) -> None:
        """What a page needs to know before anybody has signed in; that nobody has is no error.

        Users are listed only where whoever asks may be any of them.
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
        """Who asks; None if nobody is known to.

        A cookie with a token that is no longer good stays: the browser may have got a new one meanwhile.
        """
        try:
            user = (await self.identify()).user
        except (Unauthenticated, Forbidden, UnknownUser):  # `uid` is another's, or nobody's
            return None
        except (InvalidRequest, HTTPError):  # `uid` is not given, or no id
            return None
        return (await self._users.active_now([user])).get(user)
