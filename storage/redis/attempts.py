"""Limits on attempts: sliding windows in Redis, by the `limits` package.

An attempt is counted before its outcome is known. While Redis is unavailable, attempts that are counted fail.
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

__all__ = ["RedisAttempts", "digest_of"]

MINUTES = {Rule.ACCOUNT: 15, Rule.CONFIRMATION: 15, Rule.ADDRESS: 15, Rule.REGISTRATION: 60}


class RedisAttempts:
    """Attempts, counted in keys with a prefix. `most` has the maximum for each rule."""

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
        """Count an attempt. Raises TooFast if there were too many."""
        item, key = self._items[rule], digest_of(subject)
        with self._server.errors():
            if await self._limiter.hit(item, key):
                return
            window = await self._limiter.get_window_stats(item, key)
        raise TooFast(rule.value, max(1.0, window.reset_time - time.time()))

    async def forgive(self, rule: Rule, subject: str) -> None:
        """Reset the count of a subject's attempts."""
        with self._server.errors():
            await self._limiter.clear(self._items[rule], digest_of(subject))


def digest_of(subject: str) -> str:
    """Return a key of fixed length for a subject, which clients choose."""
    return hashlib.blake2b(subject.encode(), digest_size=16).hexdigest()
