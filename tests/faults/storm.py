"""Let clients chat while servers and databases are killed, stopped and emptied at random; then judge.

python -m tests.faults.storm --seconds=600 [--seed=…]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from psutil import NoSuchProcess
from redis.exceptions import RedisError

from common.tasks import end
from models.records import conversation_of
from tests.faults.cluster import Cluster
from tests.faults.device import Device
from tests.faults.sabotaged import KINDS
from tests.faults.verdict import Verdict, history, judge

__all__ = ["Least", "Outcome", "storm"]

PAIRS = 5  # conversations, each between two users with two devices
HASTY = 4  # inboxes whose user has no other device
ROUNDS = 8  # of inboxes that open in haste, after all faults
IDLE_SHARE = 0.5  # of a core; a server in an endless loop uses all that it gets
RATE = 8.0  # messages that a device sends in a second
PAUSES = (0.3, 2.5)  # seconds between two faults, at least and at most
TELL_EVERY = 5.0  # seconds between two lines of progress
PATIENCE = 60.0  # seconds to recover from a fault, and to receive all messages after the last one


class Least(NamedTuple):
    """What has to happen in a run at least, however long a busy machine takes: messages, faults, kinds of faults."""

    acknowledged: int = 0
    faults: int = 0
    kinds: int = 0


NOTHING = Least()


@dataclass
class Outcome:
    """What a run did and found."""

    seed: int
    seconds: float
    verdict: Verdict
    faults: Counter[str] = field(default_factory=Counter)
    recovery: dict[str, float] = field(default_factory=dict)  # by fault: the slowest, seconds
    rounds: int = 0  # of messages to inboxes that have just opened in haste
    damaged: int = 0  # rounds in which an inbox did not get a message
    held: list[tuple[float, str]] = field(default_factory=list)  # by seconds since the beginning: what each server held
    idle_shares: list[float] = field(default_factory=list)  # of a core, by server, while all sockets were silent

    def table(self) -> str:
        """Return the outcome as a table."""
        lines = [f"seed {self.seed}, {self.seconds:.0f} s, {self.faults.total()} faults", *self.verdict.lines()]
        lines.append(f"  {'rounds damaged, of rounds tried':34}{self.damaged:8} of {self.rounds}")
        shares = ", ".join(f"{share:.2f}" for share in self.idle_shares)
        lines.append(f"  {'idle servers, share of a core':34}{shares:>8}")
        if self.held:
            lines.append("  what the servers held, the last line without sockets")
        middle = len(self.held) // 2
        for seconds, held in dict.fromkeys((*self.held[:1], *self.held[middle : middle + 1], *self.held[-2:])):
            lines.append(f"      {seconds:6.0f} s  {held}")
        lines.append(f"  {'fault':34}{'count':>8}  slowest recovery")
        for name, count in sorted(self.faults.items()):
            lines.append(f"  {name:34}{count:8}{self.recovery.get(name, 0):10.1f} s")
        return "\n".join(lines)


class _Storm:
    """One run: its devices, its faults, and the times to recover."""

    def __init__(
        self,
        cluster: Cluster,
        chance: random.Random,
        *,
        faults: Sequence[str],
        patience: float,
        tell: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._random = chance
        self._patience = patience
        self._tell = tell
        self._faults = {name: fault for name, fault in cluster.faults.items() if not faults or name in faults}
        if not faults or "connection cut" in faults:
            self._faults["connection cut"] = self._cut
        self._going: dict[str, asyncio.Task[None]] = {}
        self._under_way: set[str] = set()  # faults that are not over yet
        self._calm_since = 0.0
        self.counted: Counter[str] = Counter()
        self.recovery: dict[str, float] = {}
        self.unwell: list[str] = []
        self.limited: dict[str, int] = {}
        self.devices: list[Device] = []
        self.damaged = 0
        self.held: list[tuple[float, str]] = []

    def populate(self) -> None:
        """Add pairs, inboxes that read in haste, one with two peers, and a stranger who gets no answer."""
        people = self._cluster.people(2 * PAIRS + 3)
        hasty = self._cluster.people(2 * HASTY)
        for number in range(PAIRS):
            one, other = people[2 * number : 2 * number + 2]
            for user, peer in ((one, other), (other, one)):
                self._add(user, [peer], rate=RATE)
                self._add(user, [peer], rate=RATE / 4, inbox=number % 2 == 0, hasty=number % 2 == 0)
        for _ in range(HASTY):
            one, other = hasty[:2]
            del hasty[:2]
            self._add(one, [other], rate=RATE / 4, inbox=True, hasty=True)
            self._add(other, [one], rate=RATE / 4)
        middle, stranger, silent = people[2 * PAIRS :]
        friends = [people[2], people[6]]  # users without an inbox
        self._add(middle, friends, rate=RATE, inbox=True)
        for friend in friends:
            self._add(friend, [middle], rate=RATE / 2)
        self._add(stranger, [silent], rate=RATE / 4, gives_up=True)
        self._add(silent, [stranger], rate=0)
        self.limited[conversation_of(stranger, silent)] = 3

    def _add(
        self,
        user: int,
        peers: list[int],
        *,
        rate: float,
        inbox: bool = False,
        gives_up: bool = False,
        hasty: bool = False,
    ) -> None:
        name = f"d{len(self.devices)}"
        seed = f"{self._random.random()}"
        device = Device(
            name,
            user,
            peers,
            port=self._cluster.port,
            seed=seed,
            rate=rate,
            inbox=inbox,
            gives_up=gives_up,
            hasty=hasty,
        )
        self.devices.append(device)

    @property
    def conversations(self) -> dict[str, tuple[int, int]]:
        """The two users of each conversation, by its name."""
        return {conversation_of(d.user, peer): (d.user, peer) for d in self.devices for peer in d.peers}

    async def rage(self, seconds: float, least: Least) -> None:
        """Cause faults for a while, and until `least` has happened; several may overlap, but not two of one kind."""
        loop = asyncio.get_running_loop()
        end_at, tell_at = loop.time() + seconds, loop.time() + TELL_EVERY
        while loop.time() < end_at or not self._reached(least):
            await asyncio.sleep(self._random.uniform(*PAUSES))
            name = self._random.choice(list(self._faults))
            if name not in self._going:
                self._going[name] = loop.create_task(self._happen(name, self._faults[name]))
            if loop.time() >= tell_at:
                tell_at = loop.time() + TELL_EVERY
                await self.look(seconds - end_at + loop.time())
                self._tell(
                    f"{seconds - max(0.0, end_at - loop.time()):6.0f} s  {self.counted.total():4} faults  "
                    f"{sum(len(device.acknowledged) for device in self.devices):7} acknowledged"
                )
        while self._going:
            await asyncio.wait(self._going.values())

    def _reached(self, least: Least) -> bool:
        acknowledged = sum(len(device.acknowledged) for device in self.devices)
        return (
            acknowledged >= least.acknowledged
            and self.counted.total() >= least.faults
            and len(self.counted) >= least.kinds
        )

    async def _happen(self, name: str, fault: Callable[[], Awaitable[None]]) -> None:
        """Cause a fault, and wait until all devices get acknowledgements again.

        The time to recover counts from the moment at which no fault is active.
        """
        try:
            self._under_way.add(name)
            try:
                await fault()
            except (OSError, NoSuchProcess, RedisError) as error:  # another fault was faster
                self._tell(f"{name} did not happen: {error!r}")
                return
            finally:
                self._under_way.discard(name)
            self.counted[name] += 1
            over = self._calm_since = time.monotonic()
            talking = [device for device in self.devices if device.rate and not device.gives_up]
            waited = 0.0
            while talking and waited < self._patience:
                await asyncio.sleep(0.05)
                waited = 0.0 if self._under_way else time.monotonic() - self._calm_since
                talking = [device for device in talking if device.last_acknowledgement < over]
            self.unwell += [f"{d.name} got no acknowledgement after: {name}; {d.trouble}" for d in talking]
            self.recovery[name] = max(waited, self.recovery.get(name, 0.0))
        finally:
            del self._going[name]

    async def _cut(self) -> None:
        for device in self._random.sample(self.devices, len(self.devices) // 2):
            device.cut()

    async def look(self, seconds: float) -> None:
        """Record what the servers hold, so many seconds after the beginning."""
        self.held.append((seconds, await self._cluster.held()))

    async def settle(self, patience: float) -> None:
        """Wait until all messages are acknowledged and received; not forever."""
        for device in self.devices:
            device.fall_silent()
        await self._cluster.healed()
        await self._until(lambda: not self._missing(), patience)

    async def haste(self, rounds: int) -> None:
        """Reopen the inboxes in haste after all faults, and have their peers write to them."""
        hasty = [device for device in self.devices if device.hasty]
        whom = {device.user for device in hasty}
        for _ in range(rounds):
            for device in hasty:
                device.cut()
            connections = {device.name: device.connections for device in hasty}
            await self._until(
                lambda: all(d.resumed > connections[d.name] for d in hasty),  # noqa: B023  # awaited at once
                self._patience,
            )
            for device in self.devices:
                for peer in device.peers:
                    if peer in whom and not device.hasty:
                        device.say(peer)
            await self._until(lambda: not self._missing(), self._patience)
            self.damaged += bool(self._missing())

    def _missing(self) -> list[str]:
        """Return the devices with unacknowledged messages, or without some stored message."""
        last = self._cluster.newest(self.conversations)
        return [
            device.name
            for device in self.devices
            for peer in device.peers
            if not device.settled or device.holds(peer) < last[conversation_of(device.user, peer)]
        ]

    async def _until(self, condition: Callable[[], bool], patience: float) -> None:
        """Wait for a condition; not forever."""
        deadline = asyncio.get_running_loop().time() + patience
        while not condition() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)


def _nothing(line: str) -> None:
    """Drop a line of progress."""


async def storm(
    seconds: float,
    seed: int,
    *,
    faults: Sequence[str] = (),
    rounds: int = ROUNDS,
    longest_stop: float = 30.0,
    least: Least = NOTHING,
    patience: float = PATIENCE,
    settles: float | None = None,
    flags: Sequence[str] = (),
    sabotage: str = "",
    tell: Callable[[str], None] = _nothing,
) -> Outcome:
    """Cause faults for so many `seconds`, longer if less than `least` has happened by then, and judge.

    `faults` are the kinds that may happen; empty means all. `patience` is the time in seconds to recover from each
    fault, and to receive all messages at the end unless `settles` gives another one. `rounds` of messages to inboxes
    that have just opened in haste follow.
    """
    chance = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    tasks: list[asyncio.Task[None]] = []
    try:
        async with Cluster(
            directory, chance, longest_stop=longest_stop, flags=list(flags), sabotage=sabotage
        ) as cluster:
            run = _Storm(cluster, chance, faults=faults, patience=patience, tell=tell)
            run.populate()
            try:
                tasks = [asyncio.create_task(device.run()) for device in run.devices]
                await run.rage(seconds, least)
                tell("no more faults; waiting until everything is acknowledged and received")
                await run.settle(patience if settles is None else settles)
                tell(f"{rounds} rounds of inboxes that open in haste")
                await run.haste(rounds)
                shares = await cluster.idle_shares()
            finally:
                await end(*tasks)
            leftovers = [] if sabotage else await cluster.leftovers(patience)
            await run.look(seconds)
            port = cluster.port()
            histories = {name: await history(port, *users) for name, users in run.conversations.items()}
            stored = {name: cluster.stored(name) for name in run.conversations}
            verdict = judge(run.devices, stored, histories, run.limited)
            verdict.other += [*cluster.logged(), *run.unwell, *leftovers]
            if run.damaged:
                verdict.other.append(f"{run.damaged} of {rounds} rounds of messages to inboxes in haste were damaged")
            if max(shares) > IDLE_SHARE:
                verdict.other.append(f"a server takes {max(shares):.2f} of a core while all sockets are silent")
            for task in tasks:
                if not task.cancelled() and (error := task.exception()):
                    verdict.other.append(f"a device broke: {error!r}")
            return Outcome(
                seed,
                seconds,
                verdict,
                run.counted,
                run.recovery,
                rounds,
                run.damaged,
                run.held,
                shares,
            )
    finally:
        shutil.rmtree(directory)


def main(argv: Sequence[str]) -> int:
    """Run the storm and print the table; return 0 if nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="tests.faults.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to cause faults (default: 600)")
    parser.add_argument("--seed", type=int, help="seed of an earlier run, to repeat its faults (default: a new one)")
    parser.add_argument("--faults", nargs="*", default=(), help="the kinds of faults to cause (default: all)")
    parser.add_argument("--sabotage", choices=sorted(KINDS), default="", help="run servers without one guarantee")
    options = parser.parse_args(argv)
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    outcome = asyncio.run(
        storm(
            options.seconds,
            seed,
            faults=options.faults,
            sabotage=options.sabotage,
            tell=lambda line: print(line, flush=True),
        )
    )
    print(outcome.table(), flush=True)
    return 0 if outcome.verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
