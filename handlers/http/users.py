"""Users over HTTP: registration, the caller's own account, and finding a user."""

from __future__ import annotations

from tornado.web import HTTPError

from handlers.http import fields
from handlers.http.base import BaseHandler
from models.accounts.service import Accounts
from models.chat.ports import Users
from models.errors import InvalidRequest, UnknownUser

__all__ = ["FindHandler", "MeHandler", "RegisterHandler"]


class RegisterHandler(BaseHandler):
    """POST /user/register"""

    def initialize(self, accounts: Accounts) -> None:
        """Take the collaborators."""
        self._accounts = accounts

    async def post(self) -> None:
        """Add a user from `nick_name`, `user_name` and `password`, as a form or a JSON object."""
        given = self.given()
        nick_name, user_name = fields.nick_name(given), fields.user_name(given)
        password = fields.new_password(given)
        self.answer(fields.shown(await self._accounts.register(self.address, user_name, nick_name, password)))


class MeHandler(BaseHandler):
    """/user/me"""

    def initialize(self, accounts: Accounts, users: Users) -> None:
        """Take the collaborators."""
        self._accounts = accounts
        self._users = users

    async def get(self) -> None:
        """Answer with the caller's account."""
        user = (await self.identify()).user
        found = (await self._users.active_now([user])).get(user)
        if found is None:  # the account is gone, but was still cached
            raise UnknownUser(user)
        self.answer(fields.shown(found))

    async def patch(self) -> None:
        """Change those of `nick_name`, `email` and `avatar` that are given."""
        identity = await self.identify()
        changed = await self._users.change(identity.user, fields.profile(self.given()))
        if changed is None:
            raise UnknownUser(identity.user)
        self.answer(fields.shown(changed))

    async def delete(self) -> None:
        """Delete the caller's account; its `password` is required."""
        identity = await self.identify()
        await self._accounts.delete(self.address, identity.user, fields.password(self.given()))
        self.keep_token(None)
        self.answer(None)


class FindHandler(BaseHandler):
    """GET /users?user_name=…"""

    def initialize(self, users: Users) -> None:
        """Take the collaborators."""
        self._users = users

    async def get(self) -> None:
        """Answer with the user of that name. Names are compared as by the table, and as in signing in."""
        await self.identify()
        # Not get_query_arguments, which turns control characters into spaces.
        values = self.request.query_arguments.get("user_name", [])
        if len(values) != 1:
            raise InvalidRequest("user_name", "is missing" if not values else "is given twice")
        try:
            name = values[0].decode()
        except UnicodeDecodeError:
            raise InvalidRequest("user_name", "is not UTF-8") from None
        found = await self._users.named(fields.login_name({"user_name": name}))
        if found is None:
            raise HTTPError(404, "no user of that name")
        self.answer(fields.shown_to_others(found))
