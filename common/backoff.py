"""Back-off: pauses between attempts, each twice as long as the one before, up to a limit."""

from __future__ import annotations

from random import Random

__all__ = ["Backoff"]


class Backoff:
    """Return the pauses between the attempts at one thing.

    Args:
        first: The first pause, in seconds.
        longest: The limit of a pause, in seconds.
        chance: With it, each pause is a random time from 0 to its bound, so that many callers that fail together do not
            try again together.
    """

    __slots__ = ("_chance", "_first", "_longest", "bound")

    def __init__(self, first: float, longest: float, chance: Random | None = None) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self.bound = first
        """The longest that the next pause can be, in seconds."""

    def next_pause(self) -> float:
        """Return the pause before the next attempt, in seconds."""
        bound = self.bound
        self.bound = min(2 * bound, self._longest)
        return bound if self._chance is None else self._chance.uniform(0, bound)

    def reset(self) -> None:
        """Begin with the first pause again, since an attempt has succeeded."""
        self.bound = self._first
