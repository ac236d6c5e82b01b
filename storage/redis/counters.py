"""The limit rule's counters, in Redis.

How many messages a sent to b is the key `<prefix>:{<bucket>}:<run id>:<a>-><b>`. The bucket keeps both
directions of a pair, and their neighbours, in one slot of a Redis Cluster. The run id changes with every start
of Redis, so counts that an old dump brings back are never read; after a flush the marker `since` is missing.
Either way a count that is not there is rebuilt once, from what MongoDB held before the marker's time: what came
later was counted. A count that has expired stays expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import structlog
from redis.asyncio import Redis

from common.tasks import end
from models.chat.ports import Admission, Recount
from models.chat.stranger_limit import ACCEPTED_DAYS, DAY, LIMIT, REFUSED_DAYS
from models.errors import ChatError, EngineUnavailable, LimitReached
from storage.redis.client import RedisServer
from storage.redis.quotas import RedisQuotas

__all__ = ["RedisCounters"]

BUCKETS = 64
GATHER = 1.0  # seconds for which messages of open conversations gather
CHUNK = 20  # pairs counted in one round trip; more would keep messages waiting
MESSAGE = 200  # bytes that a message counts besides its content: many that are empty fill a disk as well
MAX_GATHERED = 100_000  # pairs; a count that finds no room is one that need not rise

Pair = tuple[int, int]  # sender and recipient

_log = structlog.get_logger(__name__)
_source = Path(__file__).parent


class _Gathered:
    """Messages of one pair that wait to be counted: how many, and how many bytes."""

    __slots__ = ("amount", "recount", "size")

    def __init__(self, recount: Recount) -> None:
        self.amount = 0
        self.size = 0
        self.recount = recount


class RedisCounters:
    """The counters of all pairs below a key prefix, and `quotas`, those of accounts."""

    def __init__(self, server: RedisServer, prefix: str, quotas: RedisQuotas) -> None:
        self._server = server
        self._quotas = quotas
        self.spent = quotas.spent.keys()
        self.take_stranger = quotas.take_stranger
        self._client = client = server.client
        self._prefix = prefix
        self._count = client.register_script((_source / "count.lua").read_text("utf-8"))
        self._give_back = client.register_script((_source / "give_back.lua").read_text("utf-8"))
        self._run = ""
        self._gathered: dict[Pair, _Gathered] = {}
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Writes the gathered counts, once."""
        if self._task is not None:
            await end(self._task)
        await self._flush()
        await self._quotas.close()

    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        """Decides on one message and counts it. Raises LimitReached, QuotaReached, EngineUnavailable."""
        self._quotas.require_room(sender)
        verdict, theirs, epoch = await self._counted(sender, recipient, 1, recount, ask=True)
        if verdict == "refused":
            raise LimitReached
        admission = Admission(sender, recipient, epoch, theirs)
        if not theirs:
            try:
                await self._quotas.take_stranger(sender, recipient)
            except ChatError:
                with suppress(EngineUnavailable):  # then the count is too high, not too low
                    await self.give_back(admission)
                raise
        return admission

    def weigh(self, sender: int, content: str) -> None:
        """Counts the bytes of a message that was admitted and is stored, soon."""
        self._quotas.note(sender, MESSAGE + len(content.encode()))

    async def give_back(self, admission: Admission) -> None:
        """Takes back the count of a message that is known not to be stored."""
        run, since = admission.epoch.split()
        keys = self._keys(run, admission.sender, admission.recipient)
        # When the answer is lost it is not tried again: the count may stay too high, never fall too low.
        with self._server.errors():
            await self._give_back(keys=keys[:2], args=[run, since])

    def gather(self, sender: int, recipient: int, recount: Recount, content: str) -> None:
        """Counts a message that the rule cannot refuse, together with what else gathers in a moment."""
        pair = (sender, recipient)
        gathered = self._gathered.get(pair)
        if gathered is None:
            if len(self._gathered) >= MAX_GATHERED:
                return
            gathered = self._gathered[pair] = _Gathered(recount)
        gathered.amount += 1
        gathered.size += MESSAGE + (len(content) if content.isascii() else len(content.encode()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run_gathered())

    def _keys(self, run: str, sender: int, recipient: int) -> list[str]:
        low, high = sorted((sender, recipient))
        base = f"{self._prefix}:{{{crc32(f'{low}-{high}'.encode()) % BUCKETS}}}:{run}:"
        mine, theirs = f"{sender}->{recipient}", f"{recipient}->{sender}"
        return [base + name for name in ("since", mine, theirs, f"{mine}:seen", f"{theirs}:seen")]

    async def _counted(
        self, sender: int, recipient: int, amount: int, recount: Recount, *, ask: bool
    ) -> tuple[str, int, str]:
        """Runs the script until it has decided: verdict, the peer's count, and the epoch it belongs to."""
        held: tuple[int, int] | tuple[str, str] = ("", "")
        while True:
            asked = self._run
            with self._server.errors():
                answer = await self._ask(self._client, asked, sender, recipient, amount, ask, held)
            match answer:
                case ["run", str(run)]:
                    self._run = run
                    held = ("", "")
                case ["missing", since]:
                    held = await recount(int(since) // 1000)
                case [verdict, _, theirs, since]:
                    return verdict, int(theirs), f"{asked} {since}"

    def _ask(
        self,
        client: Redis,
        run: str,
        sender: int,
        recipient: int,
        amount: int,
        ask: bool,
        held: tuple[int, int] | tuple[str, str],
    ) -> Awaitable[Any]:
        """Calls the script, or puts the call into a pipeline."""
        days = (ACCEPTED_DAYS, REFUSED_DAYS, 2 * ACCEPTED_DAYS)
        return self._count(
            keys=self._keys(run, sender, recipient),
            args=[run, int(ask), amount, LIMIT, *(each * DAY for each in days), *held],
            client=client,
        )

    async def _run_gathered(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(GATHER)
                await self._flush()
        finally:
            self._task = None

    async def _flush(self) -> None:
        """Counts what has gathered; what fails gathers again."""
        gathered, self._gathered = self._gathered, {}
        left = list(gathered.items())
        for (sender, _), each in left:
            self._quotas.note(sender, each.size)
            each.size = 0
        try:
            while left:
                chunk = left[:CHUNK]
                try:
                    await self._raise(chunk)
                finally:
                    left[:CHUNK] = chunk
        except EngineUnavailable as error:
            _log.warning("counts_not_raised", pairs=len(left), reason=str(error))
        finally:  # also when it is cancelled
            for pair, each in left:
                self._gathered.setdefault(pair, _Gathered(each.recount)).amount += each.amount

    async def _raise(self, gathered: list[tuple[Pair, _Gathered]]) -> None:
        """Counts messages of many pairs in one round trip, and then those by themselves that have to be recounted.

        Takes from `gathered` what is counted. When it fails some of the rest may have been counted as well, and are
        counted again: too high, never too low.
        """
        run = self._run
        with self._server.errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for pair, each in gathered:
                    await self._ask(pipe, run, *pair, each.amount, ask=False, held=("", ""))
                answers = await pipe.execute()
        gathered[:] = [
            entry for entry, answer in zip(gathered, answers, strict=True) if answer[0] in ("run", "missing")
        ]
        while gathered:
            pair, each = gathered[0]
            await self._counted(*pair, each.amount, each.recount, ask=False)
            del gathered[0]
