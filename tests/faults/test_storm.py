"""A short storm finds nothing, and the same storm detects a sabotaged server."""

from __future__ import annotations

import pytest

from tests.faults.storm import Least, storm

FLAGS = ["--answer-timeout=1", "--engine-timeout=1"]


@pytest.mark.timeout(900)
async def test_nothing_is_lost_doubled_or_reordered() -> None:
    """No message is lost, doubled or reordered, whatever happens to servers and databases."""
    outcome = await storm(
        12, seed=1, rounds=2, longest_stop=3, least=Least(acknowledged=101, kinds=4), patience=200, flags=FLAGS
    )
    assert outcome.verdict.clean, outcome.table()
    assert outcome.verdict.acknowledged > 100
    assert len(outcome.faults) > 3


SABOTAGE = [
    # The server dies with acknowledged messages in its memory.
    ("acknowledge-early", "lost", "was acknowledged as"),
    # A message that mongod committed late is resent, and stored again.
    ("without-index", "doubled", "is stored 2 times"),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("sabotage", "kind", "finding"), SABOTAGE)
async def test_sabotage_is_noticed(sabotage: str, kind: str, finding: str) -> None:
    """Servers are killed while their inserts wait in mongod's sockets, and the verdict finds the damage."""
    outcome = await storm(
        4,
        seed=1,
        faults=["mongod stopped, server killed"],
        rounds=0,
        longest_stop=1,
        least=Least(acknowledged=30, faults=4),
        patience=10,  # devices that hold a lost message never recover
        settles=5,
        flags=FLAGS,
        sabotage=sabotage,
    )
    assert any(finding in found for found in getattr(outcome.verdict, kind)), outcome.table()
