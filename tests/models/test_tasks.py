"""Ending tasks, also those that lose a cancellation."""

from __future__ import annotations

import asyncio

from models.tasks import end


async def test_a_task_that_loses_a_cancellation() -> None:
    """It is cancelled until it ends."""
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
