"""Rendering a conversation: rows of styled text, no wider than the screen, with control characters made visible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from clients.conversation import Conversation
from clients.outbox import Pending
from clients.server import Peer
from clients.text import lines_in, visible, width_of, wrapped
from clients.timeline import Message

__all__ = ["STYLES", "Row", "notice_rows", "rows_of"]

Row = list[tuple[str, str]]

STYLES = {
    "time": "ansibrightblack",
    "day": "ansibrightblack",
    "own": "ansigreen",
    "peer": "ansicyan",
    "tick": "ansibrightblack",
    "read": "bold ansicyan",  # bold is visible without colours too
    "failed": "bold ansired",
    "notice": "ansiyellow",
    "title": "reverse",
    "toolbar": "reverse",
}
WAITING, STORED, RECEIVED, FAILED = "·", "✓", "✓✓", "!"
OWN = "you"
LONGEST_NAME = 15  # columns; longer names are cut
NARROW = 40  # columns; on narrower screens a message begins on a row of its own
TICKS = 3  # columns for ticks at the end of a row


def rows_of(
    conversation: Conversation, user: Peer, pending: Iterable[Pending], notices: Iterable[str], width: int
) -> list[Row]:
    """Return the rows of a conversation, of its pending messages, and of notices. `width` is in columns."""
    names = {user.id: OWN, conversation.peer.id: _cut(visible(str(conversation.peer)))}
    column = max(map(width_of, names.values()))
    rows: list[Row] = []
    day = ""
    for message in conversation.messages:
        moment = datetime.fromtimestamp(message.time / 1000).astimezone()
        if f"{moment:%A %d %B %Y}" != day:
            day = f"{moment:%A %d %B %Y}"
            rows.append([("class:day", f"-- {day} --"[:width])])
        own = message.sender == user.id
        tick = _tick(conversation, message) if own else ("", "")
        name = names.get(message.sender, names[conversation.peer.id])
        rows += _message(moment, name, column, message.content, tick, width, own=own)
    for each in pending:
        moment = datetime.fromtimestamp(each.time / 1000).astimezone()
        tick = ("class:failed", FAILED) if each.failed else ("class:tick", WAITING)
        rows += _message(moment, OWN, column, each.content, tick, width, own=True)
        if each.failed:
            rows += [[("class:failed", part)] for part in wrapped(f"{each.failed}; /retry or /discard", width)]
    return [*rows, *notice_rows(notices, width)]


def notice_rows(notices: Iterable[str], width: int) -> list[Row]:
    """Return rows of text that is visible already."""
    return [[("class:notice", part)] for notice in notices for part in wrapped(notice, width)]


def _message(
    moment: datetime, name: str, column: int, content: str, tick: tuple[str, str], width: int, *, own: bool
) -> Iterator[Row]:
    padding = " " * (column - width_of(name))
    head: Row = [("class:time", f"{moment:%H:%M} "), ("class:own" if own else "class:peer", name), ("", padding + "  ")]
    indent = sum(width_of(text) for _, text in head)
    if width < NARROW:
        yield head
        indent = 1
        head = [("", " ")]
    parts = [part for line in lines_in(content) for part in wrapped(line, max(width - indent - TICKS, 1))]
    for number, part in enumerate(parts):
        row: Row = [*head, ("", part)] if number == 0 else [("", " " * indent + part)]
        if number == len(parts) - 1 and tick[1]:
            row += [("", " "), tick]
        yield row


def _tick(conversation: Conversation, message: Message) -> tuple[str, str]:
    if message.seq <= conversation.read:
        return "class:read", RECEIVED
    return "class:tick", RECEIVED if message.seq <= conversation.received else STORED


def _cut(name: str) -> str:
    return wrapped(name, LONGEST_NAME)[0] if width_of(name) > LONGEST_NAME else name
