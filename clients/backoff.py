"""The back-off of a client: the pause before the next attempt, doubled each time, with full jitter."""

from __future__ import annotations

from random import Random

__all__ = ["BASE", "CAP", "Backoff"]

BASE = 0.5  # seconds; the first pause is at most this long
CAP = 30.0  # seconds; no pause is longer
_DOUBLINGS = 16  # after so many, any cap is reached


class Backoff:
    """Counts attempts. Each pause is a random time from 0 to its bound, so that clients do not reconnect together."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._attempts = 0

    @property
    def bound(self) -> float:
        """The longest that the next pause can be, in seconds."""
        return min(CAP, BASE * 2.0 ** min(self._attempts, _DOUBLINGS))

    def wait(self) -> float:
        """Return the next pause, in seconds."""
        bound = self.bound
        self._attempts += 1
        return self._chance.uniform(0, bound)

    def reset(self) -> None:
        """Begin again with the first pause: an attempt has succeeded."""
        self._attempts = 0
