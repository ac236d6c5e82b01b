"""The limit rule: who may write to somebody that has never answered.

The rule is the article's (section 2.3.3), with its figures: a may send to b while a has sent fewer than
three messages, or once b has written to a. Each accepted message lets a's count live for 90 days more, a
refusal cuts it to 30 days. `storage/redis/counters.py` carries the rule out in Redis, in one atomic script that
is tested against this function.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ACCEPTED_DAYS", "DAY", "LIMIT", "REFUSED_DAYS", "Verdict", "decide"]

LIMIT = 3
DAY = 86_400  # seconds
ACCEPTED_DAYS = 90
REFUSED_DAYS = 30


class Verdict(NamedTuple):
    """Whether a message passes, the sender's count afterwards, and how many days that count lives."""

    accepted: bool
    count_after: int
    days: int


def decide(mine: int, theirs: int) -> Verdict:
    """Decides on one message, given what the sender sent to the peer (`mine`) and the peer to the sender."""
    if mine < LIMIT or theirs > 0:
        return Verdict(True, mine + 1, ACCEPTED_DAYS)
    return Verdict(False, mine, REFUSED_DAYS)
