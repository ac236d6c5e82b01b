"""How many sockets there are, or are about to be: of all, of each user, from each address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ALL", "Places"]

ALL = "all"  # stands for all sockets; users are numbers and addresses have dots or colons


class Places:
    """Counts what is taken."""

    def __init__(self) -> None:
        self._taken: Counter[int | str] = Counter()

    def count(self, of: int | str) -> int:
        """How many are taken."""
        return self._taken[of]

    @contextmanager
    def holder(self) -> Iterator[Callable[[int | str, int, Exception], None]]:
        """Yields a function that takes one place, or raises an error when as many as may are taken.

        What it took is given back at the end.
        """
        taken: list[int | str] = []

        def take(of: int | str, most: int, error: Exception) -> None:
            if self._taken[of] >= most:
                raise error
            self._taken[of] += 1
            taken.append(of)

        try:
            yield take
        finally:
            for of in taken:
                self._taken[of] -= 1
                if not self._taken[of]:
                    del self._taken[of]
