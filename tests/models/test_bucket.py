"""Token buckets: so many at once, so many a second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bucket import Bucket, Buckets


def test_a_burst_then_the_rate() -> None:
    """What was not used gathers up to the burst and no further."""
    bucket = Bucket(rate=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [0, 0, 0, 1]
    assert bucket.take(1) == 0
    assert [bucket.take(100) for _ in range(3)] == [0, 0, 0]


def test_refusals_cost_as_well() -> None:
    """Of many who ask at once each has to wait longer, up to a second's worth; and then has it."""
    bucket = Bucket(rate=10, burst=1, now=0)
    bucket.take(0)
    waits = [bucket.take(0) for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.2, 1.1)
    assert bucket.take(1.1) == 0


@given(st.lists(st.floats(0, 5), max_size=100), st.integers(1, 50), st.integers(1, 20))
def test_never_more_than_that(pauses: list[float], rate: int, burst: int) -> None:
    """In any stretch of time that begins with a full bucket; and whoever waits as told gets one."""
    bucket, now, taken = Bucket(rate, burst, 0), 0.0, 0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        taken += not wait
        assert taken <= burst + now * rate + 1e-6
        if wait:
            now += wait + 1e-9
            assert bucket.take(now) == 0
            taken += 1


def test_everybody_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is the same one each time; those of who has not asked for long are forgotten."""
    monkeypatch.setattr("models.bucket.KEPT", 2)
    buckets = Buckets(1, 1, lambda: 0.0)
    assert [buckets.take(1), buckets.take(1) > 0, buckets.take(2)] == [0, True, 0]
    for user in range(10, 20):
        buckets.take(user)
    assert buckets.take(1) == 0
