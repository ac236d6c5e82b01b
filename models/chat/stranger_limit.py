"""The limit rule: how many messages a user may send to a peer who has never answered.

The rule and its figures are the article's (section 2.3.3). A may send to B while A has sent fewer than three messages,
or once B has written to A. Each accepted message keeps A's count for another 90 days; a refusal cuts that to 30 days.
`storage/redis/counters.py` applies the rule in Redis, in one atomic script that is tested against this function.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ACCEPTED_DAYS", "DAY", "LIMIT", "REFUSED_DAYS", "Verdict", "decide"]

LIMIT = 3
DAY = 86_400  # seconds
ACCEPTED_DAYS = 90
REFUSED_DAYS = 30


class Verdict(NamedTuple):
    """Whether a message is accepted, the sender's count afterwards, and how many days that count lives."""

    accepted: bool
    count_after: int
    days: int


def decide(mine: int, theirs: int) -> Verdict:
    """Decide on one message, given the numbers of messages from the sender to the peer (`mine`) and back (`theirs`)."""
    if mine < LIMIT or theirs > 0:
        return Verdict(True, mine + 1, ACCEPTED_DAYS)
    return Verdict(False, mine, REFUSED_DAYS)
