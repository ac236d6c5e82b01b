"""Token buckets, which limit the rate of requests of a user or an address.

The limit rule for strangers is in models/chat/stranger_limit.py.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

__all__ = ["INBOX", "LISTED", "READ", "RESUMED", "SOUGHT", "Bucket", "Buckets"]

KEPT = 100_000  # users or addresses whose buckets are kept; a bucket that was not used for long is full anyway

# Weights that are added to a request's 1. A token is the cost of a message: about 100 µs of CPU, databases included.
LISTED = 0.5  # a conversation in a list
RESUMED = 0.25  # a conversation that is resumed, whether it exists or not
INBOX = 10.0  # opening an inbox socket, for which the user's conversations are looked up
READ = 0.05  # a message in a response
SOUGHT = 5.0  # a page of history that begins at a time, which is found by bisection


class Bucket:
    """Hold up to `burst` tokens and gain `rate` tokens a second, by a monotonic clock in seconds.

    A request takes as many tokens as its weight: 1 for a message, more for a request that costs the server more. One
    token is enough to pass. A heavier request leaves a debt, which has to be gained back before the next one passes. So
    heavy requests need not wait for a full bucket, and may weigh more than it holds. A refused request costs a token
    too, up to one second's gain, so that of many callers each is told to wait longer.
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._seen = clock()

    def take(self, weight: float = 1.0) -> float:
        """Take the tokens of a request of this weight, which may be less than 1.

        Returns 0 if the request passes, otherwise the seconds after which it will.
        """
        self._gain()
        needed = min(weight, 1.0)
        if self._left >= needed:
            self._left -= weight
            return 0.0
        self._left = min(self._left, max(self._left - needed, -self._rate))
        return (needed - self._left) / self._rate

    def charge(self, weight: float) -> None:
        """Take tokens for the further cost of a request that has passed, as a debt if there are too few."""
        self._gain()
        self._left -= weight

    def _gain(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now


class Buckets:
    """A bucket for each user or address."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: LRUCache[int | str, Bucket] = LRUCache(KEPT)

    def of(self, user: int | str) -> Bucket:
        """Return the bucket of a user or address."""
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = Bucket(self._rate, self._burst, self._clock)
        return bucket
