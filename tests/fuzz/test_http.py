"""A short run of damaged requests finds nothing."""

from __future__ import annotations

from tests.fuzz.http import fuzz

LEAST = 500  # answers, however long they take


def test_requests() -> None:
    """Damaged requests find nothing, neither at servers that believe `uid` nor at others."""
    tally, lines = fuzz(seconds=8, number=7, least=LEAST)
    assert not tally.findings, "\n".join([*tally.lines(), *lines, *tally.findings.examples])
    assert tally.total >= LEAST
