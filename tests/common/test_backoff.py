"""Tests of the back-off."""

from __future__ import annotations

from random import Random

from common.backoff import Backoff


def test_pauses_double_up_to_the_limit() -> None:
    """A pause is twice as long as the one before, up to the limit, and pauses begin again after a success."""
    backoff = Backoff(0.5, 30)
    assert [backoff.next_pause() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert [backoff.next_pause() for _ in range(2)] == [0.5, 1]


def test_the_bound_is_known_before_the_pause() -> None:
    """`bound` is the longest that the next pause can be, also with random pauses."""
    backoff = Backoff(0.5, 1, Random(1))
    bounds = []
    for _ in range(4):
        bounds.append(backoff.bound)
        assert 0 <= backoff.next_pause() <= bounds[-1]
    assert bounds == [0.5, 1, 1, 1]


def test_random_pauses_use_the_whole_range() -> None:
    """With `chance` a pause lies anywhere between 0 and the bound."""
    chance = Random(2)
    pauses = [Backoff(0.5, 30, chance).next_pause() for _ in range(1000)]
    assert 0 <= min(pauses) < 0.5 / 20
    assert 0.5 * 19 / 20 < max(pauses) <= 0.5
