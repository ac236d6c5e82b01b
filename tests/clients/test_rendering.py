"""Tests of the rendering of a conversation."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.conversation import Conversation
from clients.outbox import Pending
from clients.rendering import Row, rows_of
from clients.server import Peer
from clients.text import width_of
from clients.timeline import Message

ME, PEER = Peer(1, "xiaoming", ""), Peer(2, "xiaohong", "")
NOON = 1_700_049_600_000  # 12:00 UTC


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def text(rows: list[Row]) -> list[str]:
    return ["".join(part for _, part in row) for row in rows]


def conversation(*messages: tuple[Peer, str], name: str = "xiaohong") -> Conversation:
    made = Conversation(Peer(2, name, ""), 0)
    for seq, (sender, content) in enumerate(messages, 1):
        made.said(Message(seq, NOON + seq * 60_000, sender.id, content, ""))
    return made


def test_ticks() -> None:
    """Own messages show: stored, received, read, pending, or failed with the reason; the peer's show nothing."""
    talk = conversation((ME, "one"), (ME, "two"), (ME, "three"), (PEER, "four"))
    talk.moved(2, 1)
    waiting = Pending("018bd2e0-0000-7000-8000-000000000000", 2, "five")
    rows = rows_of(talk, ME, [waiting, waiting._replace(content="six", failed="not taken")], ["a notice"], 60)
    assert text(rows) == [
        "-- Wednesday 15 November 2023 --",
        "12:01 you       one ✓✓",
        "12:02 you       two ✓✓",
        "12:03 you       three ✓",
        "12:04 xiaohong  four",
        "12:06 you       five ·",
        "12:06 you       six !",
        "not taken; /retry or /discard",
        "a notice",
    ]
    assert [row[-1][0] for row in rows[1:4]] == ["class:read", "class:tick", "class:tick"]


def test_long_and_many_lines() -> None:
    """Further lines are indented, so that no message can look like two."""
    talk = conversation((PEER, "the first line is long\n12:00 you  fake"))
    assert text(rows_of(talk, ME, [], [], 44))[1:] == [
        "12:01 xiaohong  the first line is long",
        "                12:00 you  fake",
    ]
    assert text(rows_of(talk, ME, [], [], 30))[1:] == [
        "12:01 xiaohong  ",
        " the first line is long",
        " 12:00 you  fake",
    ]


def test_days() -> None:
    """Each day begins with its name."""
    talk = conversation((PEER, "one"))
    talk.said(Message(2, NOON + 86_400_000, 2, "two", ""))
    assert [line for line in text(rows_of(talk, ME, [], [], 60)) if line.startswith("--")] == [
        "-- Wednesday 15 November 2023 --",
        "-- Thursday 16 November 2023 --",
    ]


@settings(deadline=None)
@given(st.text(), st.text(), st.integers(20, 100))
def test_no_row_is_too_wide_or_obeyed(name: str, content: str, width: int) -> None:
    """No name or message makes a row too wide, or contains a control character."""
    rows = rows_of(conversation((PEER, content), (ME, content), name=name), ME, [], [], width)
    for line in text(rows):
        assert width_of(line) <= width or width < 40
        assert line.isprintable() or not any(letter < " " or "\x7f" <= letter < "\xa0" for letter in line)
