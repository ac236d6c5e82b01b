"""How often something was tried: sliding windows in Redis, by the `limits` package.

Counted before it is known whether the attempt is a good one. While Redis is away nothing that is counted can be
tried.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from models.accounts.ports import Rule
from models.errors import TooFast
from storage.redis.client import RedisServer

__all__ = ["RedisAttempts"]

MINUTES = {Rule.ACCOUNT: 15, Rule.CONFIRMATION: 15, Rule.ADDRESS: 15, Rule.REGISTRATION: 60}


class RedisAttempts:
    """Attempts below a key prefix; `most` says how many each rule allows."""

    def __init__(self, server: RedisServer, prefix: str, most: Mapping[Rule, int]) -> None:
        self._server = server
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{prefix}:attempts",
            connection_pool=server.client.connection_pool,  # type: ignore[arg-type]  # limits names only what a URL may hold
        )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._items: dict[Rule, RateLimitItem] = {
            rule: RateLimitItemPerMinute(amount, MINUTES[rule], namespace=rule.name) for rule, amount in most.items()
        }

    async def take(self, rule: Rule, subject: str) -> None:
        """Counts an attempt. Raises TooFast when there were too many."""
        item, key = self._items[rule], _digest(subject)
        with self._server.errors():
            if await self._limiter.hit(item, key):
                return
            window = await self._limiter.get_window_stats(item, key)
        raise TooFast(rule.value, max(1.0, window.reset_time - time.time()))

    async def forgive(self, rule: Rule, subject: str) -> None:
        """Forgets the attempts of a subject."""
        with self._server.errors():
            await self._limiter.clear(self._items[rule], _digest(subject))


def _digest(subject: str) -> str:
    """A key of one length and few characters, whatever a client calls itself."""
    return hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()
