"""Text of other users on a terminal: its control characters have no effect, and its width is known.

A message may have any character. Two kinds are shown as symbols. A terminal acts on the first: ESC and the other
control characters of ISO 6429. The second change the direction or position of the text around them: Unicode's category
Cf, and line separators.
"""

from __future__ import annotations

import unicodedata

from wcwidth import wcwidth

__all__ = ["lines_in", "visible", "width_of", "wrapped"]

_TAB = "    "
_PICTURES = 0x2400  # U+2400 is the picture of U+0000, and so on
_DELETE, _PICTURE_OF_DELETE = "\x7f", "\u2421"
_JOINERS = "\u200c\u200d"  # Persian words and many emoji need them, and they have no other effect
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def visible(text: str) -> str:
    """Return one line in which every character is visible."""
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def lines_in(text: str) -> list[str]:
    """Return the lines of a message, each of them visible; at least one."""
    return [visible(line) for line in text.replace("\r\n", "\n").split("\n")]


def width_of(text: str) -> int:
    """Return the columns that visible text takes."""
    return sum(map(_columns, text))


def wrapped(text: str, width: int) -> list[str]:
    """Return visible text in parts of at most `width` columns, at least one, broken after spaces where possible."""
    if len(text) <= width and text.isascii():
        return [text]
    parts: list[str] = []
    start, columns, space = 0, 0, 0
    for index, letter in enumerate(text):
        columns += _columns(letter)
        while columns > width and index > start:  # after a break at a space, a wide letter may still not fit
            end = space if space > start else index
            parts.append(text[start:end])
            start = end
            columns = width_of(text[start : index + 1])
        if letter == " ":
            space = index + 1
    return [*parts, text[start:]]


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in _HIDDEN or letter in _JOINERS:
        return letter
    if letter == "\t":
        return _TAB
    if letter == _DELETE:
        return _PICTURE_OF_DELETE
    if letter < " ":
        return chr(_PICTURES + ord(letter))
    return f"<U+{ord(letter):04X}>"


def _columns(letter: str) -> int:
    return max(wcwidth(letter), 0)
