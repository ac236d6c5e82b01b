"""The quota of sockets: how many are open, or being opened, in all, for each user and from each address."""

from __future__ import annotations

from collections import Counter

__all__ = ["ALL", "ConnectionQuota", "QuotaLease"]

ALL = "all"  # stands for all sockets; users are numbers, and addresses have dots or colons


class ConnectionQuota:
    """Counts what is taken, by user, by address and in all."""

    def __init__(self) -> None:
        self._taken: Counter[int | str] = Counter()

    def count(self, of: int | str) -> int:
        """Return how many are taken."""
        return self._taken[of]

    def lease(self) -> QuotaLease:
        """Return a lease that has taken nothing yet."""
        return QuotaLease(self._taken)


class QuotaLease:
    """What one socket has taken of the quotas; it is given back together."""

    __slots__ = ("_all", "_own")

    def __init__(self, taken: Counter[int | str]) -> None:
        self._all = taken
        self._own: list[int | str] = []

    def take(self, of: int | str, most: int, error: Exception) -> None:
        """Take one of a quota. Raises `error` when `most` are taken."""
        if self._all[of] >= most:
            raise error
        self._all[of] += 1
        self._own.append(of)

    def release(self) -> None:
        """Give back what was taken; does nothing the second time."""
        for of in self._own:
            self._all[of] -= 1
            if not self._all[of]:
                del self._all[of]
        self._own.clear()
