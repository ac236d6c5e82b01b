"""Passwords: gin-chat-demo's bcrypt digests, computed in a few threads of low priority.

A hash takes a good part of a second of processor time, on purpose. Its threads have a low priority, so that the event
loop and the databases go first (on Linux, nice(2) applies to threads), and the queue of callers is limited. On a busy
machine such a thread hardly runs at all, and a process may not raise its threads' priority again. So a job that takes
too long is done once more by a thread of ordinary priority, and so are jobs that are queued behind it.

Checking a password takes the same time for a name that does not exist, so the time tells nothing about accounts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import bcrypt

from models.accounts.passwords import TOO_MANY, forms_of, prepared
from models.errors import Overloaded

__all__ = ["COST", "Passwords", "end_beside_hashes"]

COST = 12  # bcrypt's cost, the same as gin-chat-demo's
NICENESS = 19  # of the threads of low priority; the highest value
PATIENCE = 2.0  # seconds after which a hash counts as delayed; on an idle machine it takes a quarter of a second
ORDINARY_THREADS = 2  # threads for delayed jobs
TOO_BUSY = "this machine is too busy to check a password in time; try again in a moment"
ENDING = "the server is going away"

_DIGEST = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

Result = TypeVar("Result")
Done = Callable[[Any, Exception | None], None]  # called with the result, or with an error


class _Job:
    """A job, and the future that its caller awaits."""

    __slots__ = ("answer", "hurried", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.hurried = False  # taken by a thread of ordinary priority

    def resolve(self, result: Any, error: Exception | None) -> None:
        """Set the future, unless another thread was faster or the caller was cancelled."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)


class _Thread(threading.Thread):
    """A thread that does one job after the other.

    It is a daemon, so a job that takes minutes does not delay the end of the process. See `end_beside_hashes`.
    """

    def __init__(self, name: str, niceness: int) -> None:
        super().__init__(name=name, daemon=True)
        self._niceness = niceness
        self._work: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self.start()

    def do(self, work: Callable[[], Any], done: Done) -> None:
        """Do this job next. `done` is called in this thread, with the result or an error."""
        self._work.put((work, done))

    def end(self) -> None:
        """End the thread after its current job."""
        self._work.put(None)

    def run(self) -> None:
        if self._niceness:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (item := self._work.get()) is not None:
            work, done = item
            try:
                result, error = work(), None
            except Exception as failed:  # noqa: BLE001  # the caller gets it
                result, error = None, failed
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                done(result, error)


class _Pool:
    """Up to `size` threads of one priority, each started when it is first needed."""

    def __init__(self, name: str, size: int, niceness: int) -> None:
        self._name = name
        self._niceness = niceness
        self._left = size  # threads that were not started yet
        self._free: list[_Thread] = []
        self._all: list[_Thread] = []

    @property
    def has_capacity(self) -> bool:
        """Whether a thread is free."""
        return bool(self._free) or self._left > 0

    def do(self, work: Callable[[], Any], done: Done) -> None:
        """Do a job in a free thread. `done` is called on this event loop."""
        if not self._free:
            self._left -= 1
            self._free.append(_Thread(f"{self._name}_{self._left}", self._niceness))
            self._all.append(self._free[-1])
        thread, loop = self._free.pop(), asyncio.get_running_loop()

        def ended(result: Any, error: Exception | None) -> None:
            self._free.append(thread)
            done(result, error)

        def ended_there(result: Any, error: Exception | None) -> None:
            loop.call_soon_threadsafe(ended, result, error)

        thread.do(work, ended_there)

    def end(self) -> None:
        """End the threads after their current jobs."""
        for thread in self._all:
            thread.end()


def end_beside_hashes(status: int) -> None:
    """End the process with `status` if a thread is still hashing. Call it last.

    When Python ends by itself, it stops a daemon thread by unwinding its stack as soon as the thread returns to Python.
    That aborts the process if Rust code is on the stack, as bcrypt's is (https://github.com/python/cpython/issues/87135).
    """
    if any(isinstance(thread, _Thread) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Passwords:
    """Hash passwords in threads.

    Args:
        threads: The number of threads of low priority.
        waiting: How many callers may be queued besides.
        timeout: Seconds that a caller waits.
        cost: bcrypt's cost.
        patience: Seconds after which a job gets ordinary priority.
    """

    def __init__(
        self, threads: int, waiting: int, timeout: float, cost: int = COST, patience: float = PATIENCE
    ) -> None:
        self._timeout = timeout
        self._cost = cost
        self._patience = patience
        self._threads = threads
        self._most = threads + waiting
        self._asked: set[_Job] = set()  # jobs whose callers are waiting
        self._queue: deque[_Job] = deque()  # jobs that no thread has begun
        self._delayed: list[_Job] = []  # jobs that a thread of low priority has not done in time
        self._low = _Pool("password", threads, NICENESS)
        self._ordinary = _Pool("password-in-haste", ORDINARY_THREADS, 0)
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether the queue is full, so that further calls are refused."""
        return len(self._asked) >= self._most

    async def close(self) -> None:
        """End the threads. Waiting callers get Overloaded, which says that the server is going away."""
        self._closed = True
        for job in self._asked:
            job.resolve(None, Overloaded(ENDING))
        for pool in (self._low, self._ordinary):
            pool.end()

    async def digest(self, password: bytes) -> str:
        """Return a digest of a password of at most 72 bytes. Raises Overloaded if the queue is full or too slow."""
        form = prepared(password.decode()).encode()
        return (await self._run(lambda: bcrypt.hashpw(form, bcrypt.gensalt(self._cost)))).decode()

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Return whether a digest is this password's; False for None or an invalid digest.

        Passwords are normalized before hashing, but earlier ones were hashed as they were typed. So a password that
        differs from its normalized form is checked in both. The check takes the same time for every digest, also for
        one of a lower cost. Raises Overloaded.
        """
        forms = forms_of(password.decode())
        return await self._run(lambda: any(self._matches(form, digest or "") for form in forms))

    def _matches(self, password: bytes, digest: str) -> bool:
        form = _DIGEST.fullmatch(digest)
        try:
            matches = form is not None and bcrypt.checkpw(password, digest.encode())
        except ValueError:  # an invalid cost or salt
            form, matches = None, False
        cost = int(form[1]) if form else self._cost
        if form is None:
            bcrypt.hashpw(password, bcrypt.gensalt(cost))
        # 2^c rounds were done, and 2^c + 2^(c+1) + … + 2^(cost-1) more make 2^cost.
        for missing in range(cost, self._cost):
            bcrypt.hashpw(password, bcrypt.gensalt(missing))
        return matches

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._closed:
            raise Overloaded(ENDING)
        if self.busy:
            raise Overloaded(TOO_MANY)
        job = _Job(work)
        self._queue.append(job)
        self._asked.add(job)
        self._begin()
        try:
            async with asyncio.timeout(self._timeout):
                result: Result = await job.answer  # cancelled with this task; then no thread begins the job
                return result
        except TimeoutError:
            raise Overloaded(TOO_BUSY) from None
        finally:
            self._asked.discard(job)

    def _begin(self) -> None:
        """Give jobs to free threads."""
        while not self._closed and self._low.has_capacity and (job := self._next()):
            timer = asyncio.get_running_loop().call_later(self._patience, self._delay, job)
            self._low.do(job.work, partial(self._ended, job, timer))
        while not self._closed and self._ordinary.has_capacity and (job := self._next_in_haste()):
            job.hurried = True
            self._ordinary.do(job.work, partial(self._ended, job, None))

    def _next(self) -> _Job | None:
        """Take the next job from the queue; None if it is empty."""
        while self._queue:
            job = self._queue.popleft()
            if not job.answer.done():
                return job
        return None

    def _next_in_haste(self) -> _Job | None:
        """Return the next job for ordinary priority: a delayed one, or a queued one if all threads are delayed."""
        for job in self._delayed:
            if not job.hurried and not job.answer.done():
                return job
        return self._next() if len(self._delayed) == self._threads else None

    def _delay(self, job: _Job) -> None:
        self._delayed.append(job)
        self._begin()

    def _ended(self, job: _Job, timer: asyncio.TimerHandle | None, result: Any, error: Exception | None) -> None:
        """Resolve a job that a thread has done. `timer` is that of a thread of low priority."""
        if timer is not None:
            timer.cancel()
            if job in self._delayed:
                self._delayed.remove(job)
        job.resolve(result, error)
        self._begin()
