"""Passwords: gin-chat-demo's bcrypt digests, in a few threads of low priority.

A hash takes a good part of a second of processor time, on purpose. Its threads therefore yield to the event loop and
to the databases (nice(2) is a matter of threads on Linux), and only so many callers wait for them. On a machine that
others keep busy such a thread hardly runs at all, and no process may raise the priority of its threads again: what it
has been at for too long is done once more by a thread of ordinary priority, and so is what waits behind it.

To be told that a password is wrong takes as long for a name that nobody has, so that time tells nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
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

__all__ = ["COST", "Passwords"]

COST = 12  # bcrypt's, as gin-chat-demo's
NICENESS = 19  # of the threads that begin: the least of the processor's time
PATIENCE = 2.0  # seconds after which a hash counts as held up; it takes a quarter of one by itself
ORDINARY_THREADS = 2  # that do what is held up
TOO_BUSY = "this machine is too busy to check a password in time; try again in a moment"
ENDING = "the server is going away"

_DIGEST = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

Result = TypeVar("Result")
Done = Callable[[Any, Exception | None], None]  # is given the result, or an error


class _Job:
    """A piece of work, and the future of who waits for it."""

    __slots__ = ("answer", "hurried", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.hurried = False  # taken by a thread of ordinary priority

    def settle(self, result: Any, error: Exception | None) -> None:
        """Answers, unless another thread was faster or nobody waits any more."""
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)


class _Thread(threading.Thread):
    """Does one piece of work after the other. It keeps no process from ending: what it is at may take minutes."""

    def __init__(self, name: str, niceness: int) -> None:
        super().__init__(name=name, daemon=True)
        self._niceness = niceness
        self._work: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self.start()

    def do(self, work: Callable[[], Any], done: Done) -> None:
        """Does this next; `done` is called in this thread, with the result or an error."""
        self._work.put((work, done))

    def end(self) -> None:
        """Ends the thread after what it is at."""
        self._work.put(None)

    def run(self) -> None:
        if self._niceness:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (item := self._work.get()) is not None:
            work, done = item
            try:
                result, error = work(), None
            except Exception as failed:  # noqa: BLE001  # whoever waits is told
                result, error = None, failed
            with suppress(RuntimeError):  # the loop has ended meanwhile
                done(result, error)


class _Pool:
    """Up to `size` threads of one priority, each begun when it is first needed."""

    def __init__(self, name: str, size: int, niceness: int) -> None:
        self._name = name
        self._niceness = niceness
        self._left = size  # threads that have not begun
        self._free: list[_Thread] = []
        self._all: list[_Thread] = []

    @property
    def has_room(self) -> bool:
        """Whether a thread has nothing to do."""
        return bool(self._free) or self._left > 0

    def do(self, work: Callable[[], Any], done: Done) -> None:
        """Does a piece of work in a thread that has nothing to do; `done` is called on this event loop."""
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
        """Ends the threads."""
        for thread in self._all:
            thread.end()


class Passwords:
    """Hashes passwords; `threads` at once, while at most `waiting` callers wait, each for up to `timeout` seconds.

    `cost` is bcrypt's. What takes a thread longer than `patience` (seconds) gets ordinary priority.
    """

    def __init__(
        self, threads: int, waiting: int, timeout: float, cost: int = COST, patience: float = PATIENCE
    ) -> None:
        self._timeout = timeout
        self._cost = cost
        self._patience = patience
        self._threads = threads
        self._most = threads + waiting
        self._asked: set[_Job] = set()  # for which somebody waits
        self._waiting: deque[_Job] = deque()  # that no thread has begun
        self._held_up: list[_Job] = []  # what a thread of low priority has been at for too long
        self._low = _Pool("password", threads, NICENESS)
        self._ordinary = _Pool("password-in-haste", ORDINARY_THREADS, 0)
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether so many wait that no more are taken."""
        return len(self._asked) >= self._most

    async def close(self) -> None:
        """Ends the threads; who waits is told that the server is going away."""
        self._closed = True
        for job in self._asked:
            job.settle(None, Overloaded(ENDING))
        for pool in (self._low, self._ordinary):
            pool.end()

    async def digest(self, password: bytes) -> str:
        """The digest of a password of at most 72 bytes. Raises Overloaded when too many wait, or for too long."""
        form = prepared(password.decode()).encode()
        return (await self._run(lambda: bcrypt.hashpw(form, bcrypt.gensalt(self._cost)))).decode()

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Whether a digest is this password's; None, or what is no digest, is nobody's.

        A password that is typed in another form than it is hashed in now may have been hashed as it was typed, and is
        checked a second time. Takes as long in any case, for digests of a lower cost as well. Raises Overloaded.
        """
        forms = forms_of(password.decode())
        return await self._run(lambda: any(self._matches(form, digest or "") for form in forms))

    def _matches(self, password: bytes, digest: str) -> bool:
        form = _DIGEST.fullmatch(digest)
        try:
            matches = form is not None and bcrypt.checkpw(password, digest.encode())
        except ValueError:  # a cost or a salt that cannot be
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
        self._waiting.append(job)
        self._asked.add(job)
        self._begin()
        try:
            async with asyncio.timeout(self._timeout):
                result: Result = await job.answer  # cancelled with this task, and then not begun any more
                return result
        except TimeoutError:
            raise Overloaded(TOO_BUSY) from None
        finally:
            self._asked.discard(job)

    def _begin(self) -> None:
        """Hands to threads what they can take."""
        while not self._closed and self._low.has_room and (job := self._next()):
            timer = asyncio.get_running_loop().call_later(self._patience, self._hold_up, job)
            self._low.do(job.work, partial(self._ended, job, timer))
        while not self._closed and self._ordinary.has_room and (job := self._next_in_haste()):
            job.hurried = True
            self._ordinary.do(job.work, partial(self._ended, job, None))

    def _next(self) -> _Job | None:
        """The next one that waits; None if there is none."""
        while self._waiting:
            job = self._waiting.popleft()
            if not job.answer.done():
                return job
        return None

    def _next_in_haste(self) -> _Job | None:
        """The next one for ordinary priority: what is held up, then what waits while every other thread is held up."""
        for job in self._held_up:
            if not job.hurried and not job.answer.done():
                return job
        return self._next() if len(self._held_up) == self._threads else None

    def _hold_up(self, job: _Job) -> None:
        self._held_up.append(job)
        self._begin()

    def _ended(self, job: _Job, timer: asyncio.TimerHandle | None, result: Any, error: Exception | None) -> None:
        """A thread is through with a job; `timer` is that of a thread of low priority."""
        if timer is not None:
            timer.cancel()
            if job in self._held_up:
                self._held_up.remove(job)
        job.settle(result, error)
        self._begin()
