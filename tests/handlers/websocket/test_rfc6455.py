"""The numbers of RFC 6455."""

from __future__ import annotations

import pytest

from handlers.websocket.rfc6455 import BINARY, TEXT, head, may_close_with


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_heads(size: int, expected: str) -> None:
    """A frame's length takes as few bytes as possible (section 5.2)."""
    assert head(TEXT, size).hex() == expected
    assert head(BINARY, size)[1:] == head(TEXT, size)[1:]


def test_close_codes() -> None:
    """Codes that only describe how a connection ended, and undefined codes, are never sent (section 7.4)."""
    assert [code for code in range(990, 1020) if may_close_with(code)] == [*range(1000, 1004), *range(1007, 1015)]
    assert [may_close_with(code) for code in (0, 2999, 3000, 4999, 5000, 65_535)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
