"""Token buckets: how fast a user or an address may send requests.

The limit rule, which is about strangers, is in models/chat/stranger_limit.py.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

__all__ = ["INBOX", "LISTED", "READ", "RESUMED", "SOUGHT", "Bucket", "Buckets"]

KEPT = 100_000  # users, or addresses, whose buckets are kept; one that was not used for long is full anyhow

# What requests weigh besides the 1 of each: a token is what a message costs, some 100 µs of CPU, databases included.
LISTED = 0.5  # a conversation in a list
RESUMED = 0.25  # a conversation that is resumed, whether it exists or not
INBOX = 10.0  # an inbox socket that opens, for which its user's conversations are looked up
READ = 0.05  # a message in an answer
SOUGHT = 5.0  # a time that a page begins at, which is found by bisection


class Bucket:
    """Holds up to `burst` tokens and gains `rate` of them a second, by a clock in seconds that only rises.

    A request takes as many tokens as it weighs: 1 for a message, more for what costs the server more. One whole token
    is enough to pass: a request that weighs more than what is left leaves a debt, which has to be gained back before
    the next one passes. So requests that weigh much need not wait for a full bucket, and may weigh more than it holds.
    A request that is refused costs a token as well, up to a second's worth: of many who wait each waits longer.
    """

    __slots__ = ("_burst", "_clock", "_left", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._seen = clock()

    def take(self, weight: float = 1.0) -> float:
        """Take the tokens of a request of this weight.

        Returns 0 when the request passes, else the seconds after which it will. A weight may be less than 1.
        """
        self._gain()
        needed = min(weight, 1.0)
        if self._left >= needed:
            self._left -= weight
            return 0.0
        self._left = min(self._left, max(self._left - needed, -self._rate))
        return (needed - self._left) / self._rate

    def charge(self, weight: float) -> None:
        """Take tokens for what a request that has passed turned out to cost, if need be as a debt."""
        self._gain()
        self._left -= weight

    def _gain(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now


class Buckets:
    """A bucket for each user, or for each address."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: LRUCache[int | str, Bucket] = LRUCache(KEPT)

    def of(self, user: int | str) -> Bucket:
        """The bucket of a user, or of an address."""
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = Bucket(self._rate, self._burst, self._clock)
        return bucket
