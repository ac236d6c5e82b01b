"""Helpers for tasks and futures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

__all__ = ["after", "end", "every"]

AGAIN_AFTER = 0.1  # seconds until a task that did not end is cancelled again

_log = structlog.get_logger(__name__)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended. Their exceptions are dropped.

    Tasks are cancelled repeatedly: on Python 3.11 asyncio.wait_for, which redis-py uses for writing, may lose a
    cancellation (https://github.com/python/cpython/issues/86296). If the caller is cancelled meanwhile, the tasks are
    ended first.
    """
    left = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    while left:
        for task in left:
            task.cancel()
        try:
            done, left = await asyncio.wait(left, timeout=AGAIN_AFTER)
        except asyncio.CancelledError as error:
            cancelled = error
            continue
        for task in done:
            if not task.cancelled():
                task.exception()
    if cancelled is not None:
        raise cancelled


async def every(seconds: float, work: Callable[[], Awaitable[None] | None]) -> None:
    """Call `work` after each pause of so many seconds, until cancelled.

    An exception does not end the calls. It is logged once, until a call succeeds again.
    """
    failed = False
    while True:
        await asyncio.sleep(seconds)
        try:
            rest = work()
            if rest is not None:
                await rest
            failed = False
        except Exception:  # noqa: BLE001  # the next call may succeed
            if not failed:
                _log.exception("periodic_work_failed")
            failed = True


def after(seconds: float) -> asyncio.Future[None]:
    """Return a future that is done after this many seconds."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, _finish, future)
    return future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
