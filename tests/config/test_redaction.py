"""Tests that passwords are removed from URLs, errors and log lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from re import _constants as codes  # type: ignore[attr-defined]  # the typeshed leaves it out
from re import _parser as parser  # type: ignore[attr-defined]  # the same
from types import FrameType
from typing import Any

import pytest

from config import redaction
from config.redaction import Redactor, mask_tokens, masked

URLS = {
    "redis://user:pw@host/0": "redis://user:***@host/0",
    "redis://:pw@host/0": "redis://:***@host/0",
    "unix:///tmp/x.sock": "unix:///tmp/x.sock",
    "unix:///tmp/x.sock?password=pw&db=1": "unix:///tmp/x.sock?password=***&db=1",
    "mongodb://user:p/w@d@a,b/?replicaSet=r": "mongodb://user:***@a,b/?replicaSet=r",
    "mongodb://a/?tlsCertificateKeyFilePassword=pw": "mongodb://a/?tlsCertificateKeyFilePassword=***",
    "mysql://user@host/db": "mysql://user@host/db",
}


@pytest.mark.parametrize(("url", "shown"), URLS.items(), ids=URLS.values())
def test_a_url_without_its_password(url: str, shown: str) -> None:
    """The password of a URL is masked, even if the URL is malformed."""
    assert shown == masked(url)


@pytest.mark.parametrize(
    "text",
    ['Access denied for sec ret!"', "at mysql://u:sec%20ret%21%22@h", '{"event": "sec ret!\\""}'],
)
def test_a_secret_in_any_spelling(text: str) -> None:
    """A URL's password is masked as it is in the URL, decoded, and in JSON."""
    assert "ret" not in Redactor(["mysql://u:sec%20ret%21%22@h/d", ""])(text)


def test_a_value_that_is_not_a_url_is_a_secret() -> None:
    """A secret that is not a URL, such as a token key, is masked, and other text is kept."""
    redact = Redactor(["0123456789abcdef", "redis://localhost", "mysql://u:abc@h/d"])
    assert redact("abc key=0123456789abcdef redis://localhost") == "abc key=*** redis://localhost"


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
TOKENS = {
    f"a {TOKEN}, b": "a ***, b",
    f"/ws%3D{TOKEN}/x": "/ws%3D***/x",
    f"x{TOKEN}": "x***",
    f"{TOKEN}.{TOKEN}": "***.***",
    f"www.example.{TOKEN}.more": "www.example.***.more",
    "eyJh.b.": "***",
    "eyJ.b.c": "eyJ.b.c",
    "eyJh..c": "eyJh..c",
    "eyJh.b": "eyJh.b",
    "h.eyJh.b.c": "h.***",
}


@pytest.mark.parametrize(("text", "shown"), TOKENS.items(), ids=TOKENS)
def test_a_token(text: str, shown: str) -> None:
    """A token is masked anywhere in a text; text without three parts is not a token."""
    assert shown == mask_tokens(text)


HOSTILE = [
    "eyJ",
    "eyJa.",
    "eyJ-_.eyJ",
    "a.",
    ".",
    "://",
    "://a:",
    "?",
    "?a",
    "&password",
    "?password=",
    "@:",
    "\\",
    "x",
]


@pytest.mark.parametrize(
    "work", [mask_tokens, masked, Redactor(["mysql://u:secret@h/d"])], ids=["tokens", "url", "all"]
)
@pytest.mark.parametrize("part", HOSTILE)
def test_the_work_grows_with_the_text(work: Callable[[str], str], part: str) -> None:
    """A text twice as long takes twice the lines of Python and twice the steps of each expression, not four times."""
    texts = [f"{begin}{part * count}" for count in (200, 400) for begin in ("", "://u:p", "?token")]
    lines = [_lines_of(work, text) for text in texts]
    patterns = [each for each in vars(redaction).values() if isinstance(each, re.Pattern)]
    steps = [sum(_steps_of(pattern, text) for pattern in patterns) for text in texts]
    for counts in (lines, steps):
        for shorter, longer in zip(counts[:3], counts[3:], strict=True):
            assert longer <= 2 * shorter + 100


def test_the_steps_of_an_expression() -> None:
    """The count of steps that the test above uses tells a linear expression from a quadratic one."""
    texts = ["eyJ" * 200, "eyJ" * 400]
    linear, square = (
        [_steps_of(re.compile(each), text) for text in texts] for each in ("[a-zA-Z.]+", r"eyJ[a-zA-Z]+\.")
    )
    assert linear[1] <= 2 * linear[0] + 100
    assert square[1] > 3 * square[0]


def _lines_of(work: Callable[[str], str], text: str) -> int:
    """Return how many lines of config/redaction.py are executed for a text."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line" and frame.f_code.co_filename == redaction.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(text)
    finally:
        sys.settrace(before)
    return count


def _steps_of(pattern: re.Pattern[str], text: str) -> int:
    """Return how many characters a backtracking search for all matches reads, for the kinds of items used here."""
    steps = 0
    tree = parser.parse(pattern.pattern, pattern.flags)

    def fits(item: tuple[Any, Any], letter: str) -> bool:
        nonlocal steps
        steps += 1
        key = f"{item} {letter}"
        if key not in known:
            known[key] = bool(_single(item).fullmatch(letter))
        return known[key]

    known: dict[str, bool] = {}

    def match(items: Sequence[tuple[Any, Any]], at: int) -> int | None:
        """Return the end of a match of these items that begins at `at`; None if there is none."""
        if not items:
            return at
        (kind, argument), rest = items[0], items[1:]
        if kind is codes.SUBPATTERN:
            return match([*argument[3], *rest], at)
        if kind is codes.MAX_REPEAT:
            least, most, inner = argument
            end = at
            while end < len(text) and end - at < most and fits(inner[0], text[end]):
                end += 1
            for stop in range(end, at + least - 1, -1):
                if (found := match(rest, stop)) is not None:
                    return found
            return None
        return match(rest, at + 1) if at < len(text) and fits((kind, argument), text[at]) else None

    at = 0
    while at < len(text):
        end = match(list(tree), at)
        at = at + 1 if end is None else max(end, at + 1)
    return steps


def _single(item: tuple[Any, Any]) -> re.Pattern[str]:
    """Return the expression for an item that matches one character."""
    kind, argument = item
    if kind is codes.LITERAL:
        return re.compile(re.escape(chr(argument)))
    if kind is codes.NOT_LITERAL:
        return re.compile(f"[^{re.escape(chr(argument))}]")
    if kind is codes.ANY:
        return re.compile(".")
    assert kind is codes.IN, kind
    inside = ""
    for each, value in argument:
        if each is codes.NEGATE:
            inside = "^"
        elif each is codes.RANGE:
            inside += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        else:
            assert each is codes.LITERAL, each
            inside += re.escape(chr(value))
    return re.compile(f"[{inside}]")
