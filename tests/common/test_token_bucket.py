"""Token buckets: so many at once, so many a second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.token_bucket import Bucket, Buckets


class Time:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    """What was not used gathers up to the burst and no further."""
    time = Time()
    bucket = Bucket(2, 3, time)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    time.now = 1
    assert bucket.take() == 0
    time.now = 100
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]


def test_refusals_cost_as_well() -> None:
    """Of many who ask at once each has to wait longer, up to a second's worth; and then has it."""
    time = Time()
    bucket = Bucket(10, 1, time)
    bucket.take()
    waits = [bucket.take() for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.2, 1.1)
    time.now = 1.1
    assert bucket.take() == 0


@given(st.lists(st.floats(0, 5), max_size=100), st.integers(1, 50), st.integers(1, 20))
def test_never_more_than_that(pauses: list[float], rate: int, burst: int) -> None:
    """In any stretch of time that begins with a full bucket; and whoever waits as told gets one."""
    time, taken = Time(), 0
    bucket = Bucket(rate, burst, time)
    for pause in pauses:
        time.now += pause
        wait = bucket.take()
        taken += not wait
        assert taken <= burst + time.now * rate + 1e-6
        if wait:
            time.now += wait + 1e-9
            assert bucket.take() == 0
            taken += 1


def test_a_request_takes_what_it_weighs() -> None:
    """One token lets a heavier request pass; what it takes beyond is a debt, and the next request waits for it."""
    time = Time()
    bucket = Bucket(10, 20, time)
    assert bucket.take(15) == 0
    assert bucket.take(15) == 0  # five were left
    assert bucket.take() == pytest.approx(1.1)  # ten are owed, one is needed
    time.now = 1.1 + 1e-9
    assert bucket.take() == 0


def test_a_weight_above_the_burst_passes() -> None:
    """A request that weighs more than a bucket holds is not refused for ever; its debt takes its time."""
    time = Time()
    bucket = Bucket(10, 5, time)
    assert bucket.take(100) == 0
    assert bucket.take(0.5) > 9
    time.now = 9
    assert bucket.take() > 0
    time.now = 11
    assert bucket.take() == 0


def test_a_light_request_needs_no_whole_token() -> None:
    """What weighs less than a message passes while its own weight is left."""
    time = Time()
    bucket = Bucket(1, 1, time)
    assert [bucket.take(0.25) for _ in range(4)] == [0] * 4
    assert bucket.take(0.25) > 0


def test_what_a_request_turned_out_to_cost() -> None:
    """A charge is taken from a request that has passed: refused is the next one."""
    time = Time()
    bucket = Bucket(10, 20, time)
    assert bucket.take() == 0
    bucket.charge(39)
    assert bucket.take() == pytest.approx(2.1)
    time.now = 2.1 + 1e-9
    assert bucket.take() == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 30)), max_size=100), st.integers(1, 50), st.integers(1, 20))
def test_never_more_tokens_than_that(requests: list[tuple[float, float]], rate: int, burst: int) -> None:
    """What passes in any stretch of time weighs as much as the bucket gave, and one debt more at most."""
    time, taken = Time(), 0.0
    bucket = Bucket(rate, burst, time)
    for pause, weight in requests:
        time.now += pause
        wait = bucket.take(weight)
        if wait:
            time.now += wait + 1e-9
            assert bucket.take(weight) == 0
        taken += weight
        assert taken <= burst + time.now * rate + weight + 1e-6


def test_everybody_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is the same one each time; those of who has not asked for long are forgotten."""
    monkeypatch.setattr("common.token_bucket.KEPT", 2)
    buckets = Buckets(1, 1, Time())
    assert [buckets.of(1).take(), buckets.of(1).take() > 0, buckets.of(2).take()] == [0, True, 0]
    assert buckets.of(1) is buckets.of(1)
    for user in range(10, 20):
        buckets.of(user)
    assert buckets.of(1).take() == 0
