"""Sweep: everybody again and again, a few at a time; whoever is suspected at once."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from common.sweep import BATCH, PARTS, Sweep
from common.tasks import end
from models.errors import EngineUnavailable
from tests.support.sockets import until

EVERYBODY = range(10 * PARTS)
COMPLAINT = "not_looked"


async def test_everybody_has_a_turn() -> None:
    """In parts of a round that are alike, each user always in the same one; also who has come meanwhile."""
    here = set(EVERYBODY)
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)
        here.add(10 * PARTS)

    task = asyncio.ensure_future(Sweep(0.02, lambda: here, look, COMPLAINT, EngineUnavailable).run())
    await until(lambda: len(looks) >= 3 * PARTS)
    await end(task)
    assert set().union(*looks[:PARTS]) == set(EVERYBODY)
    assert {len(users) for users in looks[1:PARTS]} == {10}
    assert looks[PARTS : 2 * PARTS] == looks[2 * PARTS : 3 * PARTS] == [looks[0] | {10 * PARTS}, *looks[1:PARTS]]


async def test_many_are_looked_at_a_few_at_a_time() -> None:
    """None is left out."""
    here = range(int(2.5 * BATCH * PARTS))
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)

    task = asyncio.ensure_future(Sweep(0.02, lambda: here, look, COMPLAINT, EngineUnavailable).run())
    await until(lambda: len(looks) >= 3 * PARTS)
    await end(task)
    assert set().union(*looks[: 3 * PARTS]) == set(here)
    assert sum(map(len, looks[: 3 * PARTS])) == len(here)
    assert {len(users) for users in looks} == {BATCH, BATCH // 2}


async def test_everybody_and_dirty() -> None:
    """Suspects that gather travel together; everybody's turn comes also while there are ever new suspects."""
    looks: list[set[int]] = []

    def dirty_user(number: int) -> int:
        """Somebody whose turn comes together with that of the first."""
        return number * PARTS % len(EVERYBODY)

    async def look(users: set[int]) -> None:
        looks.append(users)
        await asyncio.sleep(0)
        sweep.mark_dirty(dirty_user(len(looks)))

    sweep = Sweep(0.02, lambda: EVERYBODY, look, COMPLAINT, EngineUnavailable)
    sweep.mark_dirty(17)
    sweep.mark_dirty(18)
    task = asyncio.ensure_future(sweep.run())
    await until(lambda: set(EVERYBODY) <= set().union(*looks))
    await end(task)
    assert looks[0] >= {17, 18}
    assert all(dirty_user(number) in users for number, users in enumerate(looks[1:], 1))


async def test_suspects_do_not_wait_for_their_turn() -> None:
    """A suspicion that comes during a look is looked at after it, alone; if they are still there."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)
        begun.set()
        await go_on.wait()

    sweep = Sweep(100_000, lambda: range(4), look, COMPLAINT, EngineUnavailable)
    task = asyncio.ensure_future(sweep.run())
    await begun.wait()
    sweep.mark_dirty(1)
    await asyncio.sleep(0)
    assert len(looks) == 1
    sweep.mark_dirty(2)
    go_on.set()
    await until(lambda: len(looks) == 2)
    sweep.mark_dirty(9)
    await until(lambda: not sweep._dirty)
    sweep.mark_dirty(3)
    await until(lambda: len(looks) == 3)
    await end(task)
    assert looks == [{0}, {1, 2}, {3}]


async def test_an_outage_is_complained_of_once() -> None:
    """And the next one again."""
    away = True
    looks = 0

    async def look(users: set[int]) -> None:
        nonlocal looks
        looks += 1
        if away:
            raise EngineUnavailable("mysql", "away")

    async def looks_more() -> None:
        before = looks
        await until(lambda: looks > before + 2)

    with capture_logs() as logs:
        task = asyncio.ensure_future(Sweep(0.01, lambda: EVERYBODY, look, COMPLAINT, EngineUnavailable).run())
        for now in (True, False, True):
            away = now
            await looks_more()
        await end(task)
    assert [entry["event"] for entry in logs] == [COMPLAINT] * 2


async def test_a_bug_does_not_end_the_rounds() -> None:
    """It is logged, and the next look comes."""
    looks = 0

    async def look(users: set[int]) -> None:
        nonlocal looks
        looks += 1
        raise KeyError(looks)

    with capture_logs() as logs:
        task = asyncio.ensure_future(Sweep(0.01, lambda: EVERYBODY, look, COMPLAINT, EngineUnavailable).run())
        await until(lambda: looks >= 3)
        await end(task)
    assert {entry["event"] for entry in logs} == {"round_failed"}
