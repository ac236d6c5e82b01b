"""Tickets: what a client that can set neither header nor cookie puts into the URL of a socket instead of a token.

A ticket is good once, and for half a minute: URLs are logged and kept in many places. Redis holds what it stands for,
under a digest of it, so that whoever reads Redis has no tickets.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from models.errors import Unauthenticated
from models.records import Identity
from storage.clients import translated

__all__ = ["RedisTickets"]

LENGTH = 32  # random bytes


class _Ticket(Struct, frozen=True):
    """Whom a ticket makes its bearer, and until when (seconds since the epoch)."""

    identity: Identity
    until: float


class RedisTickets:
    """Tickets below a key prefix, good for `lifetime` seconds; `clock` returns seconds since the epoch."""

    def __init__(self, client: Redis, prefix: str, *, lifetime: float, clock: Callable[[], float]) -> None:
        self._client = client
        self._prefix = prefix
        self._lifetime = lifetime
        self._clock = clock

    async def issue(self, identity: Identity) -> str:
        """A ticket that makes its bearer somebody."""
        ticket = secrets.token_urlsafe(LENGTH)
        # The time is held as well: a Redis that is brought back from a dump may have brought used tickets with it.
        content = msgspec.json.encode(_Ticket(identity, self._clock() + self._lifetime)).decode()
        with translated():
            await self._client.set(self._key(ticket), content, px=int(self._lifetime * 1000))
        return ticket

    async def redeem(self, ticket: str) -> Identity:
        """Whom a ticket makes its bearer; it is used up. Raises Unauthenticated."""
        with translated():
            content = await self._client.getdel(self._key(ticket))
        if content is None:
            raise Unauthenticated("the ticket was used, or is too old, or never was one")
        found = msgspec.json.decode(content, type=_Ticket)
        if found.until <= self._clock():
            raise Unauthenticated("the ticket is too old")
        return found.identity

    def _key(self, ticket: str) -> str:
        return f"{self._prefix}:ticket:{hashlib.blake2b(ticket.encode(), digest_size=16).hexdigest()}"
