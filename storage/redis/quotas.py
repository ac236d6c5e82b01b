"""Quotas of an account: how many strangers it writes to in an hour, and how many bytes it has stored in a day.

The limit rule limits messages to one stranger; this limits the number of strangers. For each account Redis has a set of
the hour's strangers and the number of the day's bytes. Each expires an hour or a day after its first entry. Bytes are
gathered for a moment and counted after the messages are stored. If Redis loses them, counting starts again at zero.
While it is unavailable, no message to a stranger passes anyway.
"""

from __future__ import annotations

import asyncio
from operator import add
from pathlib import Path

import structlog

from common.write_behind import WriteBehind
from models.errors import QuotaReached, StorageUnavailable
from storage.redis.client import RedisServer

__all__ = ["RedisQuotas"]

HOUR, DAY = 3600, 86_400  # seconds
GATHER = 1.0  # seconds for which bytes are gathered
CHUNK = 100  # accounts counted in one round trip
MAX_GATHERED = 100_000  # accounts; bytes of further ones are not counted

_log = structlog.get_logger(__name__)
_source = Path(__file__).parent


class RedisQuotas:
    """The quotas of all accounts, in keys with a prefix. A quota of 0 is unlimited.

    `strangers` is how many users who have never answered an account may write to in an hour. `size` is how many bytes
    of messages it may have stored in a day. `spent` maps accounts without bytes left to the loop time when they get
    new ones.
    """

    def __init__(self, server: RedisServer, prefix: str, *, strangers: int, size: int) -> None:
        self._server = server
        self._client = client = server.client
        self._prefix = prefix
        self._strangers = strangers
        self._size = size
        self._stranger = client.register_script((_source / "stranger.lua").read_text("utf-8"))
        self._add_bytes = client.register_script((_source / "add.lua").read_text("utf-8"))
        self.spent: dict[int, float] = {}
        self._gathered: WriteBehind[int, int] = WriteBehind(  # bytes by account
            self._count,
            add,
            interval=GATHER,
            max_batch=CHUNK,
            max_keys=MAX_GATHERED,
            outage=StorageUnavailable,
            on_outage=lambda count, error: _log.debug("bytes_not_counted", accounts=count, reason=str(error)),
        )

    async def close(self) -> None:
        """Count the gathered bytes, in one attempt."""
        await self._gathered.close()

    async def take_stranger(self, sender: int, recipient: int) -> None:
        """Count a stranger that `sender` writes to. Raises QuotaReached for one too many, StorageUnavailable."""
        if not self._strangers:
            return
        key = f"{self._prefix}:strangers:{sender}"
        with self._server.errors():
            left: int = await self._stranger(keys=[key], args=[recipient, self._strangers, HOUR])
        if left >= 0:
            raise QuotaReached("users who have never answered", left / 1000)

    def require_bytes_left(self, sender: int) -> None:
        """Raise QuotaReached while an account has no bytes left."""
        until = self.spent.get(sender)
        if until is None:
            return
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            raise QuotaReached("bytes", left)
        del self.spent[sender]

    def note(self, sender: int, size: int) -> None:
        """Count bytes that `sender` had stored, within GATHER seconds."""
        if self._size:
            self._gathered.add(sender, size)

    async def _count(self, sizes: dict[int, int]) -> None:
        """Add to the bytes of many accounts in one round trip."""
        with self._server.errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for sender, size in sizes.items():
                    await self._add_bytes(keys=[f"{self._prefix}:bytes:{sender}"], args=[size, DAY], client=pipe)
                answers = await pipe.execute()
        now = asyncio.get_running_loop().time()
        for sender, (total, left) in zip(sizes, answers, strict=True):
            if int(total) > self._size:
                self.spent[sender] = now + int(left) / 1000
