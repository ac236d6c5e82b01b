"""Liveness: the verdict of each check."""

from __future__ import annotations

import pytest

from config.settings import Timeouts
from handlers.websocket.liveness import LEAST, Liveness, Verdict

TIMEOUTS = Timeouts(ping_interval=30, ping_timeout=20, stall_timeout=20)


def look(liveness: Liveness, now: float, *, unsent: int = 0, moved: int = 0, reading: bool = True) -> Verdict:
    """Check with these timeouts."""
    return liveness.look(now, TIMEOUTS, unsent=unsent, moved=moved, reading=reading)


def test_pings_and_pongs() -> None:
    """A ping is due each interval, and only a pong with the ping's bytes answers it."""
    peer = Liveness(100)
    seen = set()
    assert not peer.pong(b"")
    for number in range(1, 4):
        assert look(peer, 100 + 30 * number - 1) is Verdict.FINE
        assert look(peer, 100 + 30 * number) is Verdict.PING
        assert look(peer, 100 + 30 * number + 1) is Verdict.FINE
        seen.add(peer.asked)
        assert not any(map(peer.pong, (b"", b"x", peer.asked + b"x", peer.asked[:-1])))
        assert peer.pong(peer.asked)
        assert not peer.asked
    assert len(seen) == 3


def test_silence() -> None:
    """A ping must be answered in time, counted while frames are read."""
    peer = Liveness(0)
    assert look(peer, 30) is Verdict.PING
    assert look(peer, 49, reading=False) is Verdict.FINE
    assert look(peer, 68) is Verdict.FINE
    assert look(peer, 69) is Verdict.SILENT


@pytest.mark.parametrize("reading", [False, True])
def test_nothing_is_taken(reading: bool) -> None:
    """Unsent bytes that do not move are a verdict, though pings are answered; any progress starts the time anew."""
    peer, moved = Liveness(0), {40: 7, 50: 8, 59: 8, 69: 8, 70: 8}
    verdicts = []
    for now, bytes_moved in moved.items():
        verdicts.append(look(peer, now, unsent=5, moved=bytes_moved, reading=reading))
        peer.pong(peer.asked)
    assert verdicts == [Verdict.PING, Verdict.FINE, Verdict.FINE, Verdict.FINE, Verdict.STUCK]


def test_nothing_is_unsent() -> None:
    """A peer without unsent bytes is never stuck."""
    peer = Liveness(0)
    assert look(peer, 1, unsent=5) is Verdict.FINE
    assert look(peer, 20) is Verdict.FINE
    assert look(peer, 29, unsent=5) is Verdict.FINE


def test_a_slow_line() -> None:
    """A ping behind many unsent bytes has more time while the peer takes enough of them in each timeout."""
    peer = Liveness(0)
    assert look(peer, 30, unsent=900_000, moved=1) is Verdict.PING
    assert look(peer, 49, unsent=900_000, moved=LEAST) is Verdict.FINE
    assert look(peer, 50, unsent=800_000, moved=LEAST + 1) is Verdict.FINE
    assert look(peer, 60, unsent=700_000, moved=LEAST + 2) is Verdict.FINE
    assert look(peer, 70, unsent=700_000, moved=2 * LEAST) is Verdict.SILENT
