"""How long to wait before the next attempt: twice as long each time, with full jitter."""

from __future__ import annotations

from random import Random

__all__ = ["BASE", "CAP", "Backoff"]

BASE = 0.5  # seconds; the longest first wait
CAP = 30.0  # seconds; no wait is longer
_DOUBLINGS = 16  # by then any cap is reached


class Backoff:
    """Counts attempts. Full jitter: each wait is anything from 0 to its bound, so that clients do not come together."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._attempts = 0

    @property
    def bound(self) -> float:
        """The longest that the next wait can be, in seconds."""
        return min(CAP, BASE * 2.0 ** min(self._attempts, _DOUBLINGS))

    def wait(self) -> float:
        """The next wait, in seconds."""
        bound = self.bound
        self._attempts += 1
        return self._chance.uniform(0, bound)

    def reset(self) -> None:
        """An attempt went well: the next wait is a first one again."""
        self._attempts = 0
