"""Tests of the limit rule as a pure function."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.chat.stranger_limit import ACCEPTED_DAYS, LIMIT, REFUSED_DAYS, decide


def test_three_pass_and_the_fourth_does_not() -> None:
    """A stranger can send three messages."""
    count = 0
    for _ in range(3):
        verdict = decide(count, 0)
        assert (True, count + 1, ACCEPTED_DAYS) == verdict
        count = verdict.count_after
    assert decide(count, 0) == (False, 3, REFUSED_DAYS)


@given(mine=st.integers(0, 10**6), theirs=st.integers(0, 10**6))
def test_refused_only_when_full_and_unanswered(mine: int, theirs: int) -> None:
    """Counts are compared as numbers: ten is more than three, unlike in the article's comparison of texts."""
    verdict = decide(mine, theirs)
    assert verdict.accepted == (mine < LIMIT or theirs > 0)
    assert verdict.count_after == mine + verdict.accepted
