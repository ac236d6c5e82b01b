"""Tests of the helpers for tasks and futures."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from common.tasks import after, end, every
from tests.support.sockets import until


async def test_a_task_that_loses_a_cancellation() -> None:
    """A task that loses a cancellation is cancelled again until it ends."""
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    async def broken() -> None:
        raise ValueError

    tasks = [asyncio.ensure_future(deaf()), asyncio.ensure_future(broken())]
    await asyncio.sleep(0)
    await end(*tasks)
    assert lost == 3
    assert [task.cancelled() for task in tasks] == [True, False]
    await end()


async def test_an_end_that_is_ended() -> None:
    """A task that is cancelled while it ends another task ends that one first."""
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        while lost < 4:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1

    inner = asyncio.ensure_future(deaf())

    async def outer() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await end(inner)

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(0)
    await end(task)
    left = not inner.done()
    await end(inner)  # so that the test ends even if it fails
    assert (left, task.cancelled()) == (False, True)


async def test_time_fulfils_a_future() -> None:
    """A future is done after its time, unless it was cancelled before."""
    early, late = after(0.01), after(0.02)
    early.cancel()
    await late
    assert (early.cancelled(), late.done()) == (True, True)


async def test_periodic_work() -> None:
    """Work is done again after each pause."""
    calls: list[None] = []
    task = asyncio.ensure_future(every(0, lambda: calls.append(None)))
    await until(lambda: len(calls) >= 3)
    await end(task)


async def test_periodic_work_that_fails() -> None:
    """Work that fails is done again, and logged once until it succeeds."""
    fails = True
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        if fails:
            raise KeyError

    async def more_calls() -> None:
        before = calls
        await until(lambda: calls >= before + 3)

    with capture_logs() as logs:
        task = asyncio.ensure_future(every(0, work))
        for now in (True, False, True):
            fails = now
            await more_calls()
        await end(task)
    assert [entry["event"] for entry in logs] == ["periodic_work_failed"] * 2


async def test_periodic_work_begins_after_a_pause() -> None:
    """The first call comes after a pause."""
    calls: list[None] = []
    task = asyncio.ensure_future(every(1000, lambda: calls.append(None)))
    await asyncio.sleep(0)
    await end(task)
    assert calls == []
