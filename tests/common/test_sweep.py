"""Tests of sweeps: all users periodically, a few at a time, and changed users at once."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from common.sweep import BATCH, PARTS, Sweep
from common.tasks import end
from models.errors import StorageUnavailable
from tests.support.sockets import until

USERS = range(10 * PARTS)
COMPLAINT = "not_looked"


async def test_each_user_is_checked() -> None:
    """Each user is checked in the same part of every sweep, also users who have joined meanwhile."""
    here = set(USERS)
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)
        here.add(10 * PARTS)

    task = asyncio.ensure_future(Sweep(0.02, lambda: here, look, COMPLAINT, StorageUnavailable).run())
    await until(lambda: len(looks) >= 3 * PARTS)
    await end(task)
    assert set().union(*looks[:PARTS]) == set(USERS)
    assert {len(users) for users in looks[1:PARTS]} == {10}
    assert looks[PARTS : 2 * PARTS] == looks[2 * PARTS : 3 * PARTS] == [looks[0] | {10 * PARTS}, *looks[1:PARTS]]


async def test_many_users_are_checked_in_batches() -> None:
    """Many users are checked in batches, and none is left out."""
    here = range(int(2.5 * BATCH * PARTS))
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)

    task = asyncio.ensure_future(Sweep(0.02, lambda: here, look, COMPLAINT, StorageUnavailable).run())
    await until(lambda: len(looks) >= 3 * PARTS)
    await end(task)
    assert set().union(*looks[: 3 * PARTS]) == set(here)
    assert sum(map(len, looks[: 3 * PARTS])) == len(here)
    assert {len(users) for users in looks} == {BATCH, BATCH // 2}


async def test_all_and_dirty_users() -> None:
    """Dirty users are checked together, and all others in time, even if there are always new dirty users."""
    looks: list[set[int]] = []

    def dirty_user(number: int) -> int:
        """Return a user in the same part of the sweep as the first one."""
        return number * PARTS % len(USERS)

    async def look(users: set[int]) -> None:
        looks.append(users)
        await asyncio.sleep(0)
        sweep.mark_dirty(dirty_user(len(looks)))

    sweep = Sweep(0.02, lambda: USERS, look, COMPLAINT, StorageUnavailable)
    sweep.mark_dirty(17)
    sweep.mark_dirty(18)
    task = asyncio.ensure_future(sweep.run())
    await until(lambda: set(USERS) <= set().union(*looks))
    await end(task)
    assert looks[0] >= {17, 18}
    assert all(dirty_user(number) in users for number, users in enumerate(looks[1:], 1))


async def test_dirty_users_are_checked_soon() -> None:
    """A user marked during a check is checked right after it, without others, if still present."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    looks: list[set[int]] = []

    async def look(users: set[int]) -> None:
        looks.append(users)
        begun.set()
        await go_on.wait()

    listings = 0

    def present() -> range:
        nonlocal listings
        listings += 1
        return range(4)

    sweep = Sweep(100_000, present, look, COMPLAINT, StorageUnavailable)
    task = asyncio.ensure_future(sweep.run())
    await begun.wait()
    sweep.mark_dirty(1)
    await asyncio.sleep(0)
    assert len(looks) == 1
    sweep.mark_dirty(2)
    go_on.set()
    await until(lambda: len(looks) == 2)
    before = listings
    sweep.mark_dirty(9)
    await until(lambda: listings > before)
    sweep.mark_dirty(3)
    await until(lambda: len(looks) == 3)
    await end(task)
    assert looks == [{0}, {1, 2}, {3}]


async def test_an_outage_is_logged_once() -> None:
    """Each outage is logged once."""
    away = True
    looks = 0

    async def look(users: set[int]) -> None:
        nonlocal looks
        looks += 1
        if away:
            raise StorageUnavailable("mysql", "away")

    async def looks_more() -> None:
        before = looks
        await until(lambda: looks > before + 2)

    with capture_logs() as logs:
        task = asyncio.ensure_future(Sweep(0.01, lambda: USERS, look, COMPLAINT, StorageUnavailable).run())
        for now in (True, False, True):
            away = now
            await looks_more()
        await end(task)
    assert [entry["event"] for entry in logs] == [COMPLAINT] * 2


async def test_a_bug_does_not_end_the_sweep() -> None:
    """An unexpected error is logged, and the sweep goes on."""
    looks = 0

    async def look(users: set[int]) -> None:
        nonlocal looks
        looks += 1
        raise KeyError(looks)

    with capture_logs() as logs:
        task = asyncio.ensure_future(Sweep(0.01, lambda: USERS, look, COMPLAINT, StorageUnavailable).run())
        await until(lambda: looks >= 3)
        await end(task)
    assert {entry["event"] for entry in logs} == {"round_failed"}
