"""Tests of token buckets, which allow a burst and a rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.token_bucket import Bucket, Buckets
from tests.support.clocks import ManualClock


def test_a_burst_then_the_rate() -> None:
    """Unused tokens accumulate up to the burst and no further."""
    time = ManualClock()
    bucket = Bucket(2, 3, time)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    time.now = 1
    assert bucket.take() == 0
    time.now = 100
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]


def test_refusals_cost_as_well() -> None:
    """Each further refused request has to wait longer, up to the time of one second's gain, and then passes."""
    time = ManualClock()
    bucket = Bucket(10, 1, time)
    bucket.take()
    waits = [bucket.take() for _ in range(20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.2, 1.1)
    time.now = 1.1
    assert bucket.take() == 0


@given(st.lists(st.floats(0, 5), max_size=100), st.integers(1, 50), st.integers(1, 20))
def test_never_more_than_that(pauses: list[float], rate: int, burst: int) -> None:
    """From a full bucket, at most the burst plus the rate pass, and a request that waited as told passes."""
    time, taken = ManualClock(), 0
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
    """One token lets a heavier request pass. The rest of its weight is a debt, for which the next request waits."""
    time = ManualClock()
    bucket = Bucket(10, 20, time)
    assert bucket.take(15) == 0
    assert bucket.take(15) == 0  # five were left
    assert bucket.take() == pytest.approx(1.1)  # a debt of ten, and the one that is needed
    time.now = 1.1 + 1e-9
    assert bucket.take() == 0


def test_a_weight_above_the_burst_passes() -> None:
    """A request that weighs more than a bucket holds passes, and its debt is gained back over time."""
    time = ManualClock()
    bucket = Bucket(10, 5, time)
    assert bucket.take(100) == 0
    assert bucket.take(0.5) > 9
    time.now = 9
    assert bucket.take() > 0
    time.now = 11
    assert bucket.take() == 0


def test_a_light_request_needs_no_whole_token() -> None:
    """A request that weighs less than 1 passes while the bucket holds its weight."""
    time = ManualClock()
    bucket = Bucket(1, 1, time)
    assert [bucket.take(0.25) for _ in range(4)] == [0] * 4
    assert bucket.take(0.25) > 0


def test_what_a_request_turned_out_to_cost() -> None:
    """A charge for a request that has passed does not refuse that one but the next one."""
    time = ManualClock()
    bucket = Bucket(10, 20, time)
    assert bucket.take() == 0
    bucket.charge(39)
    assert bucket.take() == pytest.approx(2.1)
    time.now = 2.1 + 1e-9
    assert bucket.take() == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 30)), max_size=100), st.integers(1, 50), st.integers(1, 20))
def test_never_more_tokens_than_that(requests: list[tuple[float, float]], rate: int, burst: int) -> None:
    """From a full bucket, requests take at most the tokens that it gave plus one debt."""
    time, taken = ManualClock(), 0.0
    bucket = Bucket(rate, burst, time)
    for pause, weight in requests:
        time.now += pause
        wait = bucket.take(weight)
        if wait:
            time.now += wait + 1e-9
            assert bucket.take(weight) == 0
        taken += weight
        assert taken <= burst + time.now * rate + weight + 1e-6


def test_each_user_has_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each user has one bucket of their own, and buckets that were not used for long are dropped."""
    monkeypatch.setattr("common.token_bucket.KEPT", 2)
    buckets = Buckets(1, 1, ManualClock())
    assert [buckets.of(1).take(), buckets.of(1).take() > 0, buckets.of(2).take()] == [0, True, 0]
    assert buckets.of(1) is buckets.of(1)
    for user in range(10, 20):
        buckets.of(user)
    assert buckets.of(1).take() == 0
