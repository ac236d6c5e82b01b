"""The fields of accounts in requests: which values are allowed, and how an account is shown."""

from __future__ import annotations

import re
from typing import Any

from handlers.http import names
from models.accounts.passwords import LONGEST, prepared
from models.errors import InvalidRequest
from models.records import Profile, User

__all__ = ["login_name", "new_password", "nick_name", "password", "profile", "shown", "shown_to_others", "user_name"]

# gin-chat-demo's limits, in characters; the password's are in bytes, and its upper limit is bcrypt's.
NICK_NAME = (2, 10)
USER_NAME = (5, 15)
PASSWORD = (8, LONGEST)
STORED = 255  # characters of most columns of the user table
AVATAR = 1000  # characters of that column

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_URL = re.compile(r"https?://[^\s\"'<>\\]+")


def user_name(given: dict[str, Any]) -> str:
    """Return the name of a new account. This and the functions below raise InvalidRequest."""
    name = _shown_text(given, "user_name", USER_NAME)
    _require_shown("user_name", name, name)
    if not names.without_twins(name):
        raise InvalidRequest(
            "user_name", "holds a letter in an unusual form, an accent that none has, or two spaces in a row"
        )
    return name


def nick_name(given: dict[str, Any]) -> str:
    """Return the nick name of an account."""
    name = _shown_text(given, "nick_name", NICK_NAME)
    _require_shown("nick_name", name, names.with_joiners(name))
    return name


def login_name(given: dict[str, Any]) -> str:
    """Return a name to sign in with or to find a user by: any name that the user table may have."""
    return _text(given, "user_name", (1, STORED))


def password(given: dict[str, Any], field: str = "password", least: int = 1) -> bytes:
    """Return a password of at least `least` bytes."""
    text = given.get(field)
    if not isinstance(text, str):
        raise InvalidRequest(field, "is missing" if text is None else "is not text")
    size = len(prepared(text).encode())
    longest = size if least > 1 else min(size, len(text.encode()))  # an older one may have been hashed as it was typed
    if size < least or longest > PASSWORD[1]:
        raise InvalidRequest(field, f"has {size} bytes, {least} to {PASSWORD[1]} are allowed")
    if "\0" in text:
        raise InvalidRequest(field, "holds a NUL character")
    return text.encode()


def new_password(given: dict[str, Any], field: str = "password") -> bytes:
    """Return a password for an account: it has a minimum length."""
    return password(given, field, PASSWORD[0])


def profile(given: dict[str, Any]) -> Profile:
    """Return what to change of an account. Fields that are not given stay as they are."""
    email = _printable(given, "email", (0, STORED)) if "email" in given else None
    if email and not _EMAIL.fullmatch(email):
        raise InvalidRequest("email", "is not an address")
    avatar = _printable(given, "avatar", (0, AVATAR)) if "avatar" in given else None
    if avatar and not _URL.fullmatch(avatar):
        raise InvalidRequest("avatar", "is not an http or https URL")
    changes = Profile(nick_name(given) if "nick_name" in given else None, email, avatar)
    if changes == Profile():
        raise InvalidRequest("body", "names neither nick_name nor email nor avatar")
    return changes


def shown(user: User) -> dict[str, Any]:
    """Return a user as gin-chat-demo's serializer shows one: `nickname` and `create_at` are its spellings."""
    return {
        "id": user.id,
        "user_name": user.user_name,
        "nick_name": user.nick_name,
        "nickname": user.nick_name,
        "type": 0,
        "email": user.email,
        "status": user.status,
        "avatar": user.avatar,
        "create_at": user.created_at,
    }


def shown_to_others(user: User) -> dict[str, Any]:
    """Return the public fields of a user."""
    return {"id": user.id, "user_name": user.user_name, "nick_name": user.nick_name, "avatar": user.avatar}


def _text(given: dict[str, Any], field: str, bounds: tuple[int, int]) -> str:
    value = given.get(field)
    if value is None:
        raise InvalidRequest(field, "is missing")
    if not isinstance(value, str):
        raise InvalidRequest(field, "is not text")
    if not bounds[0] <= len(value) <= bounds[1]:
        raise InvalidRequest(field, f"has {len(value)} characters, {bounds[0]} to {bounds[1]} are allowed")
    return value


def _printable(given: dict[str, Any], field: str, bounds: tuple[int, int]) -> str:
    value = _text(given, field, bounds)
    if not value.isprintable():
        raise InvalidRequest(field, "holds a character that cannot be shown")
    return value


def _shown_text(given: dict[str, Any], field: str, bounds: tuple[int, int]) -> str:
    value = _text(given, field, bounds)
    if value != value.strip():
        raise InvalidRequest(field, "begins or ends with a space")
    return value


def _require_shown(field: str, name: str, plain: str) -> None:
    """Raise InvalidRequest for a name with invisible characters. `plain` is the part of it that is checked for them."""
    if names.hides(plain):
        raise InvalidRequest(field, "holds a character that cannot be seen")
    if names.is_blank(name):
        raise InvalidRequest(field, "has nothing that can be seen")
