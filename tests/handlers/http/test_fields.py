"""The fields of accounts."""

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
    """The field is named."""
    with pytest.raises(InvalidRequest, match=f"^{field}:"):
        fields.profile(given)


def test_a_profile_in_part() -> None:
    """What is not given stays; what is empty goes."""
    assert fields.profile({"email": ""}) == Profile(email="")
    assert fields.profile({"nick_name": "小明", "avatar": "https://x/y.png"}) == Profile(
        "小明", None, "https://x/y.png"
    )


def test_others_see_less() -> None:
    """No address and no status."""
    user = User(1, "name", "nick", "a@b", "https://x", "active", 0)
    assert set(fields.shown_to_others(user)) == {"id", "user_name", "nick_name", "avatar"}


def test_names_from_elsewhere() -> None:
    """To sign in with: as long as the column, as short as can be."""
    assert fields.login_name({"user_name": "x"}) == "x"
    with pytest.raises(InvalidRequest):
        fields.login_name({"user_name": "x" * 256})


def test_a_password_is_as_long_as_what_is_hashed() -> None:
    """Not as it was typed: letters typed as two characters are no reason to refuse one, nor to take a shorter one."""
    typed = unicodedata.normalize("NFD", "ä" * 30)  # 90 bytes, and 60 as it is hashed
    assert fields.new_password({"password": typed}) == typed.encode()
    assert fields.password({"password": typed}) == typed.encode()
    with pytest.raises(InvalidRequest, match="has 6 bytes"):
        fields.new_password({"password": unicodedata.normalize("NFD", "äää")})
    before = "\u0958" * 24  # 72 bytes as it is typed, and more in the form of today
    assert fields.password({"password": before}) == before.encode()
    with pytest.raises(InvalidRequest, match="72 are allowed"):
        fields.new_password({"password": before})
