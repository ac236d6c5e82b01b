"""Tests of the log: the format of lines, and what must not be in them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from config.logs import configure_logging
from config.redaction import Redactor
from config.settings import Log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("kind", ["text", "json"])
def test_tracebacks_hold_no_values(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback shows code but no local variables, since these hold passwords and messages."""
    configure_logging(Log(log_format=kind), Redactor([]))
    password = "correct horse battery staple"
    try:
        raise KeyError(len(password))
    except KeyError:
        structlog.get_logger("test").exception("it_failed")
    shown = capsys.readouterr().err
    assert "KeyError" in shown
    assert "it_failed" in shown
    assert password not in shown.replace('password = "correct horse battery staple"', "")


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each event at or above the level is one JSON object on a line, also those of other libraries."""
    configure_logging(Log(log_format="json", log_level="warning"), Redactor([]))
    structlog.get_logger("test").info("quiet")
    structlog.get_logger("test").warning("loud", user=1)
    logging.getLogger("tornado.general").error("theirs")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["user"], ours["level"], ours["logger"]) == ("loud", 1, "warning", "test")
    assert (theirs["event"], theirs["logger"]) == ("theirs", "tornado.general")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_no_line_holds_a_secret(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret is masked in values, in exceptions' texts and in other libraries' lines."""
    url = "redis://:hunter22@h"
    configure_logging(Log(log_format=kind), Redactor([url]))
    try:
        raise ValueError(url)
    except ValueError:
        structlog.get_logger("test").exception("it_failed", url=url)
    logging.getLogger("theirs").error("cannot reach %s", url)
    shown = capsys.readouterr().err
    assert ("hunter22" in shown, shown.count("***")) == (False, 3)


def test_what_tornado_quotes_of_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    """A malformed header, which may hold a token or a ticket, is not logged. A token is masked in every line."""
    configure_logging(Log(), Redactor([]))
    tornado = logging.getLogger("tornado.general")
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    tornado.info("Malformed HTTP message from %s: %s", "127.0.0.1", f"Invalid header value {token!r} secret-ticket")
    tornado.warning("something else with %s", token)
    shown = capsys.readouterr().err
    assert "Malformed HTTP message from 127.0.0.1" in shown
    assert (token in shown, "secret-ticket" in shown, "something else with ***" in shown) == (False, False, True)


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_clients_without_tls(level: str, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A client that does not use TLS on a TLS port is logged at level debug only."""
    configure_logging(Log(log_level=level), Redactor([]))
    logging.getLogger("tornado.general").warning("SSL Error on %s %s: %s", 25, "127.0.0.1", "HTTP_REQUEST")
    assert ("HTTP_REQUEST" in capsys.readouterr().err) is shown


ODD = {
    "a command to the terminal": "\x1b]0;title\x07",
    "one of a single character": "\u009b31mred",
    "the next line": "a\u0085b",
    "another line": "a\n2026-01-01 [error] forged",
    "a separator": "a\u2028b",
    "the other direction": "a\u202eb",
    "what is not seen": "a\u200bb\u2060c\ufeffd",
    "what is taken back": "secret\x08\x08\x08\x7f",
    "half a character": "a\ud83d",
    "a return": "a\rb",
}


class Shown:
    """An object with the given text as its repr."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_a_terminal_would_obey(kind: str, odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped in values, events, other libraries' lines, and the texts of errors."""
    configure_logging(Log(log_format=kind, log_level="debug"), Redactor([]))
    log = structlog.get_logger("test")
    log.debug("request", path=odd, spaced=f"a b {odd}", several=[odd, {odd: odd}], object=Shown(odd))
    log.info(odd)
    logging.getLogger("theirs").warning("quoting %s", odd)
    shown = capsys.readouterr().err
    assert len(shown.split("\n")) == 4
    assert shown.replace("\n", "").isprintable()
    try:
        raise ValueError(odd)
    except ValueError:
        log.exception("failed")
    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert shown.replace("\n", "").isprintable()


def test_what_is_shown_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Printable text of any script is not escaped, and numbers are not quoted."""
    configure_logging(Log(log_level="debug"), Redactor([]))
    structlog.get_logger("test").debug("request", path="/用户/é", ms=1.5, none=None, text="two words")
    shown = capsys.readouterr().err
    assert "path=/用户/é" in shown
    assert "ms=1.5" in shown
    assert "text='two words'" in shown
