"""Batches: many callers each await one item, and few calls to the database are in progress.

While `max_concurrent` batches are in progress, items queue. The first batch that ends starts the next one with all that
has queued, up to `max_batch`. There is no timer: an item that comes alone is executed at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Batcher(Generic[Item, Outcome]):
    """Gather items into batches and execute these with `execute`.

    `execute` takes a batch and returns one outcome for each item, in order. An outcome that is an exception is raised
    to that item's caller alone. An exception that `execute` raises is raised to the callers of all its items.

    Args:
        execute: The call that executes a batch.
        max_batch: The most that a batch holds, as the sum of its items' sizes. A larger item is a batch of its own.
        max_concurrent: How many batches may be in progress.
        size: The size of an item.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        max_batch: int,
        max_concurrent: int,
        size: Callable[[Item], int] = lambda item: 1,
    ) -> None:
        self._size = size
        self._execute = execute
        self._max_batch = max_batch
        self._max_concurrent = max_concurrent
        self._queue: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def __call__(self, item: Item) -> Outcome:
        """Execute `item` in a batch and return its outcome."""
        return await self.submit(item)

    @property
    def queued(self) -> int:
        """Return how many items no batch has taken yet."""
        return len(self._queue)

    def submit(self, item: Item) -> asyncio.Future[Outcome]:
        """Queue `item` and return its outcome as a future. Items are executed in the order of these calls."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._running < self._max_concurrent:
            self._running += 1
            task = asyncio.get_running_loop().create_task(self._run_batches())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def _run_batches(self) -> None:
        """Execute batches, one after the other, until the queue is empty."""
        try:
            while self._queue:
                batch: list[tuple[Item, asyncio.Future[Outcome]]] = []
                capacity = self._max_batch
                while self._queue and (capacity >= self._size(self._queue[0][0]) or not batch):
                    item, future = self._queue.popleft()
                    if not future.done():  # else its caller was cancelled
                        batch.append((item, future))
                        capacity -= self._size(item)
                if batch:
                    await self._run_batch(batch)
        finally:
            # Not in the task's done callback: an item submitted before that ran would wait for a task that has ended.
            self._running -= 1

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._execute([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  # each caller of the batch gets it
            outcomes = [error] * len(batch)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
