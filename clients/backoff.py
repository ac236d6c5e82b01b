"""The back-off of a client: random pauses, so that clients that lost the server together do not return together."""

from __future__ import annotations

from random import Random

from common.backoff import Backoff

__all__ = ["BASE", "CAP", "Backoff", "client_backoff"]

BASE = 0.5  # seconds; the first pause is at most this long
CAP = 30.0  # seconds; no pause is longer


def client_backoff(chance: Random) -> Backoff:
    """Return the back-off of one connection, or of one conversation's messages."""
    return Backoff(BASE, CAP, chance)
