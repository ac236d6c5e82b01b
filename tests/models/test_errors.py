"""Tests of the error tree."""

from __future__ import annotations

import pytest

from models.errors import (
    Blocked,
    ChatError,
    DatabaseRefused,
    InvalidFrame,
    InvalidRequest,
    LimitReached,
    NameTaken,
    NotSent,
    Overloaded,
    QuotaReached,
    StorageUnavailable,
    TooFast,
    Unauthenticated,
    UnknownUser,
)


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidFrame("x"), 400, 400),
        (InvalidRequest("field", "x"), 400, 400),
        (Unauthenticated("x"), 401, 401),
        (Blocked(), 403, 403),
        (UnknownUser(1), 404, 404),
        (NameTaken("x"), 409, 409),
        (TooFast("requests", 1.0), 429, 429),
        (LimitReached(), 50006, 429),
        (QuotaReached("bytes", 1.0), 50006, 429),
        (StorageUnavailable("redis", "x"), 40001, 503),
        (NotSent("mongodb", "x"), 40001, 503),
        (Overloaded("x"), 40001, 503),
        (DatabaseRefused("mysql", "x", "1142"), 40001, 500),
        (ChatError("x"), 500, 500),
    ],
)
def test_each_error_has_its_codes(error: ChatError, code: int, status: int) -> None:
    """Errors have the codes of docs/protocol.md, "Codes", and the HTTP statuses of docs/openapi.yaml."""
    assert (error.code, error.status) == (code, status)


def test_an_invalid_request_names_its_field() -> None:
    """An invalid request names its field, so that a form can show the error there."""
    error = InvalidRequest("password", "is missing")
    assert (error.field, str(error)) == ("password", "password: is missing")
