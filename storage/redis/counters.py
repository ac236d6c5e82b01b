"""The limit rule's counters in Redis.

The key `<prefix>:{<bucket>}:<run id>:<a>-><b>` counts the messages that a sent to b. The bucket puts both directions of
a pair into one slot of a Redis Cluster. The run id changes with each start of Redis, so counts from an old dump are
never read. After a flush the marker `since` is missing. In both cases a missing count is rebuilt once, from messages
that MongoDB had before the marker's time; later ones were counted. A count that has expired stays expired.

Messages of open conversations, which the rule does not refuse, are counted after they are stored: within a second if
few conversations are active, and within five if many are. A crash can lose these counts. Both users keep the count that
opened the conversation.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import structlog
from redis.asyncio import Redis

from common.write_behind import WriteBehind
from models.chat.ports import Admission, Recount
from models.chat.stranger_limit import ACCEPTED_DAYS, DAY, LIMIT, REFUSED_DAYS
from models.errors import ChatError, LimitReached, StorageUnavailable
from storage.redis.client import RedisServer
from storage.redis.quotas import RedisQuotas

__all__ = ["RedisCounters"]

BUCKETS = 64
GATHER = 1.0  # seconds between two rounds in which gathered messages of open conversations are counted
ROUNDS = 5  # rounds within which each pair is counted
LEAST = 200  # pairs in a round, if there are so many
CHUNK = 20  # pairs counted in one round trip; more would delay messages
MESSAGE = 200  # bytes that a message counts besides its content, since empty messages also take space
MAX_GATHERED = 100_000  # pairs; further messages of open conversations are not counted, which the rule does not need

Pair = tuple[int, int]  # sender and recipient

_log = structlog.get_logger(__name__)
_source = Path(__file__).parent


class _Gathered:
    """Messages of one pair that are not counted yet: how many, and how many bytes. `recount` recounts the pair."""

    __slots__ = ("amount", "recount", "size")

    def __init__(self, recount: Recount, amount: int = 0, size: int = 0) -> None:
        self.amount = amount
        self.size = size
        self.recount = recount

    def plus(self, later: _Gathered) -> _Gathered:
        return _Gathered(self.recount, self.amount + later.amount, self.size + later.size)


class RedisCounters:
    """The counters of all pairs, in keys with a prefix, and `quotas` of accounts."""

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
        self._gathered: WriteBehind[Pair, _Gathered] = WriteBehind(
            self._raise,
            _Gathered.plus,
            interval=GATHER,
            rounds=ROUNDS,
            least=LEAST,
            max_batch=CHUNK,
            max_keys=MAX_GATHERED,
            outage=StorageUnavailable,
            on_outage=lambda count, error: _log.warning("counts_not_raised", pairs=count, reason=str(error)),
        )

    async def close(self) -> None:
        """Write the gathered counts, in one attempt."""
        await self._gathered.close()
        await self._quotas.close()

    async def admit(self, sender: int, recipient: int, recount: Recount) -> Admission:
        """Decide on one message and count it. Raises LimitReached, QuotaReached, StorageUnavailable."""
        self._quotas.require_bytes_left(sender)
        verdict, theirs, epoch = await self._counted(sender, recipient, 1, recount, ask=True)
        if verdict == "refused":
            raise LimitReached
        admission = Admission(sender, recipient, epoch, theirs)
        if not theirs:
            try:
                await self._quotas.take_stranger(sender, recipient)
            except ChatError:
                with suppress(StorageUnavailable):  # the count may be too high, but never too low
                    await self.give_back(admission)
                raise
        return admission

    def weigh(self, sender: int, content: str) -> None:
        """Count the bytes of a message that was admitted and is stored, with the next gathered counts."""
        self._quotas.note(sender, MESSAGE + len(content.encode()))

    async def give_back(self, admission: Admission) -> None:
        """Give back the count of a message that is known not to be stored."""
        run, since = admission.epoch.split()
        keys = self._keys(run, admission.sender, admission.recipient)
        # If the answer is lost, this is not repeated: the count may be too high, but never too low.
        with self._server.errors():
            await self._give_back(keys=keys[:2], args=[run, since])

    def gather(self, sender: int, recipient: int, recount: Recount, content: str) -> None:
        """Count a message that the rule cannot refuse, soon, together with others."""
        size = MESSAGE + (len(content) if content.isascii() else len(content.encode()))
        gathered = self._gathered.pending((sender, recipient))
        if gathered is None:
            self._gathered.add((sender, recipient), _Gathered(recount, 1, size))
        else:  # for nearly each message, so it has to be fast
            gathered.amount += 1
            gathered.size += size

    def _keys(self, run: str, sender: int, recipient: int) -> list[str]:
        low, high = sorted((sender, recipient))
        base = f"{self._prefix}:{{{crc32(f'{low}-{high}'.encode()) % BUCKETS}}}:{run}:"
        mine, theirs = f"{sender}->{recipient}", f"{recipient}->{sender}"
        return [base + name for name in ("since", mine, theirs, f"{mine}:seen", f"{theirs}:seen")]

    async def _counted(
        self, sender: int, recipient: int, amount: int, recount: Recount, *, ask: bool
    ) -> tuple[str, int, str]:
        """Run the script until it has decided. Return the verdict, the peer's count, and its epoch."""
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
        """Call the script, or add the call to a pipeline."""
        days = (ACCEPTED_DAYS, REFUSED_DAYS, 2 * ACCEPTED_DAYS)
        return self._count(
            keys=self._keys(run, sender, recipient),
            args=[run, int(ask), amount, LIMIT, *(each * DAY for each in days), *held],
            client=client,
        )

    async def _raise(self, gathered: dict[Pair, _Gathered]) -> None:
        """Count messages of many pairs in one round trip, then one by one those that have to be recounted.

        If it fails, some of what is left in `gathered` may have been counted and is counted again: counts may be too
        high, but never too low.
        """
        for (sender, _), each in gathered.items():
            self._quotas.note(sender, each.size)
            each.size = 0
        run = self._run
        pairs = tuple(gathered)
        with self._server.errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for pair, each in gathered.items():
                    await self._ask(pipe, run, *pair, each.amount, ask=False, held=("", ""))
                answers = await pipe.execute()
        for pair, answer in zip(pairs, answers, strict=True):
            if answer[0] not in ("run", "missing"):
                del gathered[pair]
        for pair, each in tuple(gathered.items()):
            await self._counted(*pair, each.amount, each.recount, ask=False)
            del gathered[pair]
