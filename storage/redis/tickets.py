"""Tickets: what a client that can set neither header nor cookie puts into the URL of a socket instead of a token.

A ticket is good once, and for half a minute: URLs are logged and kept in many places. Redis holds what it stands for,
under a digest of it, so that whoever reads Redis has no tickets; and sealed, so that whoever writes to it makes none.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable

import msgspec
from msgspec import Struct

from models.errors import Unauthenticated
from models.records import Identity
from storage.mongo.peers import MongoPeers
from storage.redis.client import RedisServer

__all__ = ["RedisTickets"]

LENGTH = 32  # random bytes


class _Ticket(Struct, frozen=True):
    """Whom a ticket makes its bearer, and until when (seconds since the epoch)."""

    identity: Identity
    until: float


class RedisTickets:
    """Tickets below a key prefix, good for `lifetime` seconds; `clock` returns seconds since the epoch."""

    def __init__(
        self,
        server: RedisServer,
        prefix: str,
        peers: MongoPeers,
        *,
        lifetime: float,
        clock: Callable[[], float],
    ) -> None:
        self._server = server
        self._client = server.client
        self._prefix = prefix
        self._peers = peers
        self._lifetime = lifetime
        self._clock = clock

    async def issue(self, identity: Identity) -> str:
        """A ticket that makes its bearer somebody."""
        ticket = secrets.token_urlsafe(LENGTH)
        # The time is held as well: a Redis that is brought back from a dump may have brought used tickets with it.
        content = msgspec.json.encode(_Ticket(identity, self._clock() + self._lifetime))
        sealed = base64.b64encode(self._peers.seal(content)).decode()
        with self._server.errors():
            await self._client.set(self._key(ticket), sealed, px=int(self._lifetime * 1000))
        return ticket

    async def redeem(self, ticket: str) -> Identity:
        """Whom a ticket makes its bearer; it is used up. Raises Unauthenticated."""
        with self._server.errors():
            sealed = await self._client.getdel(self._key(ticket))
        content = None if sealed is None else await self._peers.opened_surely(_bytes_of(sealed))
        if content is None:
            raise Unauthenticated("the ticket was used, or is too old, or never was one")
        found = msgspec.json.decode(content, type=_Ticket)
        if found.until <= self._clock():
            raise Unauthenticated("the ticket is too old")
        return found.identity

    def _key(self, ticket: str) -> str:
        return f"{self._prefix}:ticket:{hashlib.blake2b(ticket.encode(), digest_size=16).hexdigest()}"


def _bytes_of(text: bytes | str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""
