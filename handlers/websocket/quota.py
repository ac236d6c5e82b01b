"""The quota of sockets: how many are open, or being opened, in all, for each user and from each address.

A socket takes its lease in the handshake, and gives it back when the handshake fails or the connection is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

__all__ = ["ALL", "ConnectionQuota", "QuotaLease"]

ALL = "all"  # stands for all sockets; users are numbers, and addresses have dots or colons


class ConnectionQuota:
    """Counts what is taken, by user, by address and in all.

    `first` is called with a user of whom the first is taken, `last` with a user of whom the last was given back. Both
    are called when the counts are right, so a `first` that raises leaves a lease to be released.
    """

    def __init__(self, first: Callable[[int], None], last: Callable[[int], None]) -> None:
        self._taken: Counter[int | str] = Counter()
        self._first = first
        self._last = last

    def count(self, of: int | str) -> int:
        """Return how many are taken."""
        return self._taken[of]

    def users(self) -> list[int]:
        """Return the users of whom any are taken."""
        return [of for of in self._taken if isinstance(of, int)]

    def lease(self) -> QuotaLease:
        """Return a lease that has taken nothing yet."""
        return QuotaLease(self)

    def take(self, of: int | str) -> None:
        """Count one more; a lease calls it."""
        self._taken[of] += 1
        if self._taken[of] == 1 and isinstance(of, int):
            self._first(of)

    def give_back(self, taken: Iterable[int | str]) -> None:
        """Count one less of each; a lease calls it."""
        gone = []
        for of in taken:
            self._taken[of] -= 1
            if not self._taken[of]:
                del self._taken[of]
                gone.append(of)
        for of in gone:
            if isinstance(of, int):
                self._last(of)


class QuotaLease:
    """What one socket has taken of the quotas; it is given back together."""

    __slots__ = ("_own", "_quota")

    def __init__(self, quota: ConnectionQuota) -> None:
        self._quota = quota
        self._own: list[int | str] = []

    def take(self, of: int | str, most: int, error: Exception) -> None:
        """Take one of a quota. Raises `error` when `most` are taken."""
        if self._quota.count(of) >= most:
            raise error
        self._own.append(of)
        self._quota.take(of)

    def release(self) -> None:
        """Give back what was taken; does nothing the second time."""
        own, self._own = self._own, []
        self._quota.give_back(own)
