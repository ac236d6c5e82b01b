"""Rounds: everybody again and again, whoever is suspected at once."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from models.rounds import Rounds
from models.tasks import end
from tests.sockets import until


async def test_everybody_and_suspects() -> None:
    """Suspects that gather travel together; everybody's turn comes also while there are ever new suspects."""
    looks: list[set[int] | None] = []

    async def look(users: set[int] | None) -> None:
        looks.append(users)
        if len(looks) < 50:
            rounds.suspect(len(looks))

    rounds = Rounds(0.02, look)
    rounds.suspect(100)
    rounds.suspect(200)
    task = asyncio.ensure_future(rounds.run())
    await until(lambda: None in looks)
    await end(task)
    assert looks[0] == {100, 200}
    assert {1} in looks


async def test_one_look_at_a_time() -> None:
    """A suspicion that comes during a look is looked at after it."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    looks: list[set[int] | None] = []

    async def look(users: set[int] | None) -> None:
        looks.append(users)
        begun.set()
        await go_on.wait()

    rounds = Rounds(1000, look)
    rounds.suspect(1)
    task = asyncio.ensure_future(rounds.run())
    await begun.wait()
    rounds.suspect(2)
    go_on.set()
    await until(lambda: len(looks) == 2)
    await end(task)
    assert looks == [{1}, {2}]


async def test_a_bug_does_not_end_the_rounds() -> None:
    """It is logged, and the next look comes."""
    looks = 0

    async def look(users: set[int] | None) -> None:
        nonlocal looks
        looks += 1
        raise KeyError(looks)

    rounds = Rounds(0.01, look)
    rounds.suspect(1)
    with capture_logs() as logs:
        task = asyncio.ensure_future(rounds.run())
        await until(lambda: looks >= 3)
        await end(task)
    assert {entry["event"] for entry in logs} == {"round_failed"}
