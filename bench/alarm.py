"""What ends a measurement at once: a message lost, doubled, out of order, or anything else the server must not do.

Figures of a server that breaks its promises are worth nothing, so the first such thing ends everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Alarm", "UnexpectedError"]

T = TypeVar("T")


class UnexpectedError(Exception):
    """The server wrote something that it should not have, or did not write what it should have."""


class Alarm:
    """Rung by sockets, from callbacks that nobody awaits; `error` is what they rang it for first."""

    def __init__(self) -> None:
        self.error: UnexpectedError | None = None
        self._task: asyncio.Task[Any] | None = None

    def ring(self, error: UnexpectedError) -> None:
        """Ends what is guarded. What follows from the first error is not told."""
        if self.error is None:
            self.error = error
            if self._task is not None:
                self._task.cancel()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits some work. Raises the UnexpectedError for which the alarm is rung meanwhile."""
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
        if self.error is not None:  # in the very last moment
            raise self.error
        return result
