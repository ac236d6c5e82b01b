"""Clocks that a test moves."""

from __future__ import annotations

import time

__all__ = ["Clock", "ManualClock"]


class Clock:
    """The real time in seconds since the epoch, and an offset that a test changes."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class ManualClock:
    """A clock that stands still until a test sets `now`, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
