"""Tests of the error tree."""

from __future__ import annotations

import pytest

from models.errors import (
    ChatError,
    DatabaseReadOnly,
    DatabaseRefused,
    InvalidFrame,
    InvalidRequest,
    LimitReached,
    NameTaken,
    NotSent,
    StorageUnavailable,
    UnknownUser,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidFrame("x"), 400),
        (InvalidRequest("field", "x"), 400),
        (UnknownUser(1), 404),
        (NameTaken("x"), 409),
        (LimitReached(), 50006),
        (StorageUnavailable("redis", "x"), 40001),
        (NotSent("mongodb", "x"), 40001),
        (DatabaseReadOnly("mysql", "x"), 40001),
        (DatabaseRefused("mysql", "x", "1142"), 40001),
        (ChatError("x"), 500),
    ],
)
def test_each_error_has_its_wire_code(error: ChatError, code: int) -> None:
    """Errors have the codes of docs/protocol.md, "Codes"."""
    assert code == error.code
    assert isinstance(error, ChatError)


def test_an_invalid_request_names_its_field() -> None:
    """An invalid request names its field, so that a form can show the error there."""
    error = InvalidRequest("password", "is missing")
    assert (error.field, str(error)) == ("password", "password: is missing")
