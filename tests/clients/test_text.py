"""Tests of text of other users on a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clients.text import lines_in, visible, width_of, wrapped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x00\x08\x0d\x7f", "␀␈␍␡"),
        ("\x9b31m\x85", "<U+009B>31m<U+0085>"),
        ("user\u202egnp.exe\u2066\u200f", "user<U+202E>gnp.exe<U+2066><U+200F>"),
        ("one\u2028two", "one<U+2028>two"),
        ("\udc80", "<U+DC80>"),
        ("a\tb", "a    b"),
        ("\U0001f468\u200d\U0001f469 می\u200cخواهم é 你好", "\U0001f468\u200d\U0001f469 می\u200cخواهم é 你好"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """Control characters and characters that change the direction of text become visible; others stay."""
    assert visible(text) == shown


def test_nothing_gets_through() -> None:
    """No Unicode character reaches the terminal with an effect."""
    for code in range(sys.maxunicode + 1):
        for letter in visible(chr(code)):
            assert unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} or letter in "\u200c\u200d"


def test_lines() -> None:
    """Lines are split at all line ends."""
    assert lines_in("one\r\ntwo\n\n\x1bthree") == ["one", "two", "", "␛three"]
    assert lines_in("") == [""]


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))), st.integers(2, 30))
@example(" 0字", 2)
@example("x  0字", 2)
def test_wrapping(text: str, width: int) -> None:
    """Nothing is lost, and no part is wider than the limit."""
    parts = wrapped(text, width)
    assert "".join(parts) == text
    assert all(width_of(part) <= width for part in parts)


def test_wrapping_at_spaces() -> None:
    """Words stay whole where possible."""
    assert wrapped("one two three", 8) == ["one two ", "three"]
    assert wrapped("onetwothree", 8) == ["onetwoth", "ree"]
    assert wrapped("你好你好", 5) == ["你好", "你好"]
    assert wrapped("a 0123456789 b", 5) == ["a ", "01234", "56789", " b"]
