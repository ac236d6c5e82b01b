"""Tests of the fields of accounts."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from handlers.http import fields
from models.errors import InvalidRequest
from models.records import Profile, User


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "body"),
        ({"user_name": "other"}, "body"),
        ({"nick_name": "x"}, "nick_name"),
        ({"nick_name": None}, "nick_name"),
        ({"email": "no address"}, "email"),
        ({"email": "a@b\n"}, "email"),
        ({"email": "a@" + "b" * 255}, "email"),
        ({"avatar": "javascript:alert(1)"}, "avatar"),
        ({"avatar": "data:text/html,x"}, "avatar"),
        ({"avatar": 'https://x/"onload='}, "avatar"),
        ({"avatar": "https://x/" + "y" * 1000}, "avatar"),
        ({"avatar": ["https://x"]}, "avatar"),
    ],
)
def test_a_profile_that_cannot_be(given: dict[str, Any], field: str) -> None:
    """An invalid field of a profile is named."""
    with pytest.raises(InvalidRequest, match=f"^{field}:"):
        fields.profile(given)


def test_a_profile_in_part() -> None:
    """Fields that are not given stay, and empty ones are cleared."""
    assert fields.profile({"email": ""}) == Profile(email="")
    assert fields.profile({"nick_name": "小明", "avatar": "https://x/y.png"}) == Profile(
        "小明", None, "https://x/y.png"
    )


def test_others_see_less() -> None:
    """Other users see neither the address nor the status."""
    user = User(1, "name", "nick", "a@b", "https://x", "active", 0)
    assert set(fields.shown_to_others(user)) == {"id", "user_name", "nick_name", "avatar"}


def test_names_from_elsewhere() -> None:
    """A name to sign in with may be as long as the column, and one character short."""
    assert fields.login_name({"user_name": "x"}) == "x"
    with pytest.raises(InvalidRequest):
        fields.login_name({"user_name": "x" * 256})


def test_a_password_is_as_long_as_what_is_hashed() -> None:
    """The length of the hashed form counts, not of the typed one.

    Letters that are typed as two characters do not make a password too long, nor a short one long enough.
    """
    typed = unicodedata.normalize("NFD", "ä" * 30)  # 90 bytes, and 60 in the hashed form
    assert fields.new_password({"password": typed}) == typed.encode()
    assert fields.password({"password": typed}) == typed.encode()
    with pytest.raises(InvalidRequest, match="has 6 bytes"):
        fields.new_password({"password": unicodedata.normalize("NFD", "äää")})
    before = "\u0958" * 24  # 72 bytes as typed, and more in today's form
    assert fields.password({"password": before}) == before.encode()
    with pytest.raises(InvalidRequest, match="72 are allowed"):
        fields.new_password({"password": before})
