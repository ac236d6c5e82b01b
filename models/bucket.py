"""Token buckets: how fast somebody may ask. Not the limit rule, which is about strangers (models/limits.py)."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

__all__ = ["Bucket", "Buckets"]

KEPT = 100_000  # users whose buckets are kept; that of somebody who has not asked for long is full anyhow


class Bucket:
    """Holds up to `burst` requests and gains `rate` of them a second, by a clock in seconds that only rises.

    A request that is refused costs as well, up to a second's worth: of many who wait each waits longer.
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._seen = clock()

    def take(self) -> float:
        """Takes a request: 0, or the seconds after which there will be one to take."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        self._left = max(self._left - 1, -self._rate)
        return (1 - self._left) / self._rate


class Buckets:
    """A bucket for each user."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: LRUCache[int, Bucket] = LRUCache(KEPT)

    def of(self, user: int) -> Bucket:
        """The bucket of a user."""
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = Bucket(self._rate, self._burst, self._clock)
        return bucket
