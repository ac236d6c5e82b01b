"""All fuzzing connections of a run: how many frames are left, what was written, and what came back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from random import Random

from common.tasks import end
from tests.fuzz.attacker import Attacker
from tests.fuzz.mutator import Batch, Endpoint, Mutator
from tests.fuzz.watch import PATIENCE, Findings

__all__ = ["Arena"]

IN_VAIN = 20  # connections in a row that end before a frame was written, after which the run ends


class Arena:
    """All connections of a run: how many frames are left, what was written, and what came back."""

    def __init__(
        self,
        port: int,
        endpoints: Sequence[Endpoint],
        names: Sequence[int],
        findings: Findings,
        marker: str,
        seed: object,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.findings = findings
        self.marker = marker.encode()
        self.kinds: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.closes: Counter[int | str] = Counter()
        self.opened = 0
        self.answered = 0  # valid requests with an id
        self._port = port
        self._endpoints = endpoints
        self._names = names
        self._seed = seed
        self.patience = patience
        self._numbers = count()
        self._left = 0
        self._in_vain = 0
        self._inside: set[Attacker] = set()
        self._coming: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()

    @property
    def frames(self) -> int:
        """The number of written frames."""
        return self.kinds.total()

    async def run(self, frames: int, connections: int) -> None:
        """Write so many frames on so many connections; return when all are closed."""
        self._left = frames
        self._empty.clear()
        for _ in range(connections):
            self._let_in()
        watchman = asyncio.create_task(self._watch())
        try:
            await self._empty.wait()
        finally:
            self._left = 0
            await end(watchman)
            for attacker in tuple(self._inside):
                attacker.abort()

    def take(self, mutator: Mutator) -> Batch | None:
        """Return the next batch for a connection, None if enough was written."""
        if self._left <= 0:
            return None
        batch = mutator.batch(self._left)
        self._left -= batch.frames
        self.kinds += batch.kinds
        return batch

    def entered(self, attacker: Attacker) -> None:
        """Count a new connection."""
        self.opened += 1
        self._inside.add(attacker)

    def left(self, attacker: Attacker) -> None:
        """Count a closed connection, and open another one if frames are left."""
        self._inside.discard(attacker)
        self._in_vain = 0 if attacker.wrote else self._in_vain + 1
        if self._in_vain > IN_VAIN and self._left > 0:
            self.findings.report("a server on which nothing can be written")
            self._left = 0
        if self._left > 0:
            self._let_in()
        self._look_around()

    def _let_in(self) -> None:
        task = asyncio.get_running_loop().create_task(self._come())
        self._coming.add(task)
        task.add_done_callback(self._came)

    async def _come(self) -> None:
        number = next(self._numbers)
        chance = Random(f"{self._seed} {number}")
        endpoint = self._endpoints[number % len(self._endpoints)]
        attacker = Attacker(self, endpoint, Mutator(chance, endpoint, self._names), chance)
        try:
            await asyncio.get_running_loop().create_connection(lambda: attacker, "127.0.0.1", self._port)
        except OSError as error:
            self.findings.report("no connection", repr(error))
            self._left = 0  # the remaining frames would fail in the same way

    def _came(self, task: asyncio.Task[None]) -> None:
        self._coming.discard(task)
        self._look_around()

    def _look_around(self) -> None:
        if not self._inside and not self._coming:
            self._empty.set()

    async def _watch(self) -> None:
        """End connections on which no expected frame arrives."""
        while True:
            await asyncio.sleep(self.patience / 10)
            for attacker in tuple(self._inside):
                if time.monotonic() - attacker.since > self.patience:
                    attacker.give_up()
