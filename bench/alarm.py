"""End a measurement at once if a message is lost, doubled or out of order, or the server makes another mistake.

Figures of a server that breaks its guarantees are worthless, so the first mistake ends the whole run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Alarm", "UnexpectedError"]

T = TypeVar("T")


class UnexpectedError(Exception):
    """The server wrote something wrong, or did not write something that it had to."""


class Alarm:
    """An alarm that sockets ring from callbacks, whose errors no coroutine would see; `error` is the first one."""

    def __init__(self) -> None:
        self.error: UnexpectedError | None = None
        self._task: asyncio.Task[Any] | None = None

    def ring(self, error: UnexpectedError) -> None:
        """End the guarded work. Only the first error is kept."""
        if self.error is None:
            self.error = error
            if self._task is not None:
                self._task.cancel()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Await some work. Raises the UnexpectedError for which the alarm is rung meanwhile."""
        task = asyncio.ensure_future(work)
        self._task = task
        try:
            result = await task
        except asyncio.CancelledError:
            if self.error is not None:
                raise self.error from None
            raise
        finally:
            task.cancel()
            self._task = None
        if self.error is not None:  # rung just before the work ended
            raise self.error
        return result
