"""Tests of the envelope, for errors of every kind."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs
from tornado.web import HTTPError

from handlers.http.base import status_of
from models.errors import ChatError, DatabaseRefused, InvalidRequest, NameTaken, StorageUnavailable, UnknownUser
from server import Server
from tests.conftest import Ask
from tests.support.sockets import RawSocket, until


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HTTPError(418), 418),
        (InvalidRequest("x", "y"), 400),
        (UnknownUser(1), 404),
        (NameTaken("x"), 409),
        (StorageUnavailable("redis", "x"), 503),
        (DatabaseRefused("mysql", "x", "1142"), 500),
        (ChatError("x"), 500),
        (KeyError("x"), 500),
        (None, 500),
    ],
)
def test_status_of(error: BaseException | None, status: int) -> None:
    """Each error has its HTTP status."""
    assert status == status_of(error)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/ping", 405), ("GET", "/user/register", 405)]
)
async def test_errors_come_in_the_envelope(method: str, path: str, status: int, http_server: Server) -> None:
    """All errors are in the envelope, including Tornado's own."""
    raw = await RawSocket.open(http_server.port)
    got, body = await raw.request(path, method=method)
    envelope = json.loads(body)
    assert (status, status, None, "fail") == (got, envelope["status"], envelope["data"], envelope["msg"])
    raw.abort()


async def test_an_origin_that_is_no_url(http_server: Server) -> None:
    """An Origin that is not a URL is refused as another origin's, and is not an internal error."""
    raw = await RawSocket.open(http_server.port)
    status, _ = await raw.request("/user/register", method="POST", body="x", headers={"Origin": "http://[::1"})
    assert status == 403
    raw.abort()


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (HTTPError(503, "too many connections"), "debug"),
        (StorageUnavailable("mysql", "x"), "debug"),
        (DatabaseRefused("mysql", "x", "1142"), "debug"),
        (HTTPError(400), "debug"),
        (KeyError("x"), "error"),
        (HTTPError(500), "error"),
    ],
)
async def test_only_bugs_are_errors(
    error: Exception, level: str, http_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only internal errors are logged as errors: clients can cause the others, and would fill a busy server's log."""

    async def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(http_server.stores.users, "active", fail)
    raw = await RawSocket.open(http_server.port)
    with capture_logs() as logs:
        await raw.request("/messages?uid=1&toUid=2")
        await until(lambda: any(entry["event"] == "request" for entry in logs))
    assert [entry["log_level"] for entry in logs if entry["event"] != "request"] == [level]
    raw.abort()


async def test_a_bug_keeps_its_words_to_itself(http_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An internal error is answered with 500 without its text, which is in the log."""

    async def bug(*args: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(http_server.stores.accounts, "register", bug)
    raw = await RawSocket.open(http_server.port)
    body = "nick_name=ab&user_name=abcde&password=12345678"
    status, content = await raw.request(
        "/user/register", method="POST", body=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert status == 500
    assert b"secret" not in content
    raw.abort()


async def test_methods_that_are_not_there(ask: Ask) -> None:
    """An unsupported method is answered with the supported ones (RFC 9110, section 15.5.6)."""
    answer = await ask("PUT", "/user/me", body={})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, PATCH, DELETE")
    assert (await ask("GET", "/openapiXyaml")).status == 404
