"""Accounts over HTTP: registration."""

from __future__ import annotations

from typing import Any

import msgspec

from handlers.base import BaseHandler
from models.errors import InvalidRequest
from models.ports import Users
from models.records import User

__all__ = ["RegisterHandler"]

# gin-chat-demo's bounds, in characters; the password's are in bytes, and its upper one is bcrypt's.
NICK_NAME = (2, 10)
USER_NAME = (5, 15)
PASSWORD = (8, 72)


class RegisterHandler(BaseHandler):
    """POST /user/register"""

    def initialize(self, users: Users) -> None:
        """Takes the user table."""
        self._users = users

    async def post(self) -> None:
        """Adds a user from `nick_name`, `user_name` and `password`, as a form or a JSON object."""
        given = self._given()
        nick_name = _text(given, "nick_name", NICK_NAME)
        user_name = _text(given, "user_name", USER_NAME)
        password = given.get("password")
        if not isinstance(password, str):
            raise InvalidRequest("password", "is missing" if password is None else "is not text")
        secret = password.encode()
        if not PASSWORD[0] <= len(secret) <= PASSWORD[1]:
            raise InvalidRequest("password", f"has {len(secret)} bytes, {PASSWORD[0]} to {PASSWORD[1]} are allowed")
        if "\0" in password:
            raise InvalidRequest("password", "holds a NUL character")
        self.answer(_shown(await self._users.register(user_name, nick_name, secret)))

    def _given(self) -> dict[str, Any]:
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json":
            try:
                body = msgspec.json.decode(self.request.body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                raise InvalidRequest("body", "is not JSON") from None
            if not isinstance(body, dict):
                raise InvalidRequest("body", "is not a JSON object")
            return body
        fields = {}
        for name, values in self.request.body_arguments.items():
            try:
                fields[name] = values[-1].decode()
            except UnicodeDecodeError:
                raise InvalidRequest(name, "is not UTF-8") from None
        return fields


def _text(given: dict[str, Any], field: str, bounds: tuple[int, int]) -> str:
    value = given.get(field)
    if value is None:
        raise InvalidRequest(field, "is missing")
    if not isinstance(value, str):
        raise InvalidRequest(field, "is not text")
    if not bounds[0] <= len(value) <= bounds[1]:
        raise InvalidRequest(field, f"has {len(value)} characters, {bounds[0]} to {bounds[1]} are allowed")
    if not value.isprintable() or value != value.strip():
        raise InvalidRequest(field, "begins or ends with a space, or holds a character that cannot be shown")
    return value


def _shown(user: User) -> dict[str, Any]:
    """A user as gin-chat-demo's serializer shows one: `nickname` and `create_at` are its spellings."""
    return {
        "id": user.id,
        "user_name": user.user_name,
        "nickname": user.nick_name,
        "type": 0,
        "email": user.email,
        "status": user.status,
        "avatar": user.avatar,
        "create_at": user.created_at,
    }
