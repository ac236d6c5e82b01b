"""Liveness: whether the peer of a socket is there, which shows in answered pings and in bytes that it takes."""

from __future__ import annotations

import secrets
from enum import Enum

from config.settings import Timeouts

__all__ = ["Liveness", "Verdict"]

NONCE = 4  # bytes of a ping, by which its pong is known: who does not read cannot guess them
LEAST = 16_384  # bytes that a peer takes within the ping timeout while it still has to read its way to the ping


class Verdict(Enum):
    """What is to be done about a socket."""

    FINE = "nothing"
    PING = "send a ping with the bytes that `asked` has"
    SILENT = "close: the ping was not answered"
    STUCK = "close: nothing of what is unsent was taken"


class Liveness:
    """What is known of one peer. Times are in the event loop's, from `now` on."""

    __slots__ = ("_moved", "_moved_at", "_moved_before_ping", "_pinged", "asked")

    def __init__(self, now: float) -> None:
        self.asked = b""  # the bytes of a ping that is not answered; none while nothing is asked
        self._pinged = now  # when it was sent, or began to count
        self._moved = 0  # bytes that had been taken at the last look
        self._moved_at = now  # the last look at which that was more than before, or nothing was unsent
        self._moved_before_ping = 0

    def look(self, now: float, timeouts: Timeouts, *, unsent: int, moved: int, reading: bool) -> Verdict:
        """Look at the peer, about once a second.

        `unsent` bytes wait for it, `moved` were taken in all; `reading` is whether its frames, and so its pongs, are
        read at present.
        """
        if not unsent or moved != self._moved:
            self._moved, self._moved_at = moved, now
        elif now - self._moved_at >= timeouts.stall_timeout:
            return Verdict.STUCK
        if not self.asked:
            if now - self._pinged < timeouts.ping_interval:
                return Verdict.FINE
            self.asked = secrets.token_bytes(NONCE)
            self._pinged, self._moved_before_ping = now, moved
            return Verdict.PING
        if not reading:
            self._pinged = now
        elif now - self._pinged >= timeouts.ping_timeout:
            if not unsent or moved - self._moved_before_ping < LEAST:
                return Verdict.SILENT
            self._pinged, self._moved_before_ping = now, moved  # on a slow line the ping may still be on its way
        return Verdict.FINE

    def pong(self, data: bytes) -> bool:
        """Note a pong; whether it was asked for. One that was not proves nothing: it can be sent without reading."""
        if not self.asked or data != self.asked:
            return False
        self.asked = b""
        return True
