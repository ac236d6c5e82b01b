"""Tests of the back-off."""

from __future__ import annotations

from random import Random

from clients.backoff import BASE, CAP, Backoff


def test_the_bound_doubles_up_to_the_cap() -> None:
    """The bound doubles up to the cap, and begins again after a success."""
    backoff = Backoff(Random(1))
    bounds = []
    for _ in range(9):
        bounds.append(backoff.bound)
        backoff.wait()
    assert bounds == [BASE, 1, 2, 4, 8, 16, CAP, CAP, CAP]
    backoff.reset()
    assert backoff.bound == BASE


def test_full_jitter() -> None:
    """A pause is between 0 and the bound."""
    chance = Random(2)
    waits = [Backoff(chance).wait() for _ in range(1000)]
    assert 0 <= min(waits) < BASE / 20
    assert BASE * 19 / 20 < max(waits) <= BASE
