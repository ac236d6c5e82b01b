"""How many sockets there are, or are about to be: of all, of each user, from each address."""

from __future__ import annotations

from collections import Counter

__all__ = ["ALL", "Holder", "Places"]

ALL = "all"  # stands for all sockets; users are numbers and addresses have dots or colons


class Places:
    """Counts what is taken."""

    def __init__(self) -> None:
        self._taken: Counter[int | str] = Counter()

    def count(self, of: int | str) -> int:
        """How many are taken."""
        return self._taken[of]

    def holder(self) -> Holder:
        """Somebody who has taken nothing yet."""
        return Holder(self._taken)


class Holder:
    """Takes places, and gives them back together."""

    __slots__ = ("_all", "_own")

    def __init__(self, taken: Counter[int | str]) -> None:
        self._all = taken
        self._own: list[int | str] = []

    def take(self, of: int | str, most: int, error: Exception) -> None:
        """Takes one place, or raises an error when as many as may are taken."""
        if self._all[of] >= most:
            raise error
        self._all[of] += 1
        self._own.append(of)

    def release(self) -> None:
        """Gives back what was taken; nothing the second time."""
        for of in self._own:
            self._all[of] -= 1
            if not self._all[of]:
                del self._all[of]
        self._own.clear()
