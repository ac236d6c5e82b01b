"""Tickets for the URL of a socket, for clients that can set neither a header nor a cookie.

A ticket is valid once and for half a minute, since URLs are logged and stored in many systems. Redis stores the
identity under a digest of the ticket, so that reading Redis reveals no tickets. The identity is sealed, so that writing
to Redis makes no valid tickets.
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
    """The identity that a ticket gives, and its expiry in seconds since the epoch."""

    identity: Identity
    until: float


class RedisTickets:
    """Tickets in keys with a prefix, valid for `lifetime` seconds. `clock` returns seconds since the epoch."""

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
        """Return a new ticket for an identity."""
        ticket = secrets.token_urlsafe(LENGTH)
        # The expiry is in the content too, since a Redis that is restored from a dump may have used tickets again.
        content = msgspec.json.encode(_Ticket(identity, self._clock() + self._lifetime))
        sealed = base64.b64encode(self._peers.seal(content)).decode()
        with self._server.errors():
            await self._client.set(self._key(ticket), sealed, px=int(self._lifetime * 1000))
        return ticket

    async def redeem(self, ticket: str) -> Identity:
        """Use a ticket up and return its identity. Raises Unauthenticated."""
        with self._server.errors():
            sealed = await self._client.getdel(self._key(ticket))
        content = None if sealed is None else await self._peers.opened_surely(_bytes_of(sealed))
        if content is None:
            raise Unauthenticated("the ticket is invalid, expired or already used")
        found = msgspec.json.decode(content, type=_Ticket)
        if found.until <= self._clock():
            raise Unauthenticated("the ticket has expired")
        return found.identity

    def _key(self, ticket: str) -> str:
        return f"{self._prefix}:ticket:{hashlib.blake2b(ticket.encode(), digest_size=16).hexdigest()}"


def _bytes_of(text: bytes | str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""
