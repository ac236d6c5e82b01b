"""The servers on one MongoDB, and how each knows what the others have written into Redis.

Redis may be another installation's as well, or be written to by others. So what a server puts there for another one is
sealed with a key that only MongoDB has: the collection `servers` holds one document for each server that runs,

    _id     the server's id, 16 random bytes
    key     16 random bytes, with which it seals
    seen    when it last said that it runs, by MongoDB's clock

A seal is believed only of a server that has been seen lately. A copy of the database, restored beside the original,
has servers of its own, and the original does not know them.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from hashlib import blake2b
from typing import Any

import structlog
from bson import Binary
from cachetools import TTLCache

from models.errors import EngineUnavailable
from storage.mongo.errors import MongoErrors

__all__ = ["MongoPeers", "Stranger"]

RENEW = 60.0  # seconds between two times that a server says that it runs
FRESH = 300  # seconds for which it is believed; longer than a primary takes to be elected
KEPT = 86_400  # seconds after which MongoDB removes what a server that has ended left
SIZE = 16  # bytes of an id, of a key and of a seal
MOST = 1000  # servers that are remembered
REFUSED_FOR = 5.0  # seconds for which a server that is not known is not looked up again

_log = structlog.get_logger(__name__)


class Stranger(Exception):
    """Sealed by a server of which nothing is known yet: its id."""

    def __init__(self, server: bytes) -> None:
        super().__init__(server.hex())
        self.server = server


class MongoPeers:
    """This server and its peers, in a collection that motor provides."""

    def __init__(self, servers: Any, errors: MongoErrors) -> None:
        self._servers = servers
        self._errors = errors
        self.id = secrets.token_bytes(SIZE)
        self._key = secrets.token_bytes(SIZE)
        self._keys = {self.id: self._key}
        self._refused: TTLCache[bytes, bool] = TTLCache(MOST, REFUSED_FOR)

    async def join(self) -> None:
        """Become known. Raises EngineUnavailable."""
        with self._errors():
            await self._servers.create_index("seen", expireAfterSeconds=KEPT, name="seen")
        await self._renew()

    async def run(self) -> None:
        """Stay known. Never returns."""
        while True:
            await asyncio.sleep(RENEW)
            try:
                await self._renew()
            except EngineUnavailable as error:
                _log.debug("server_not_renewed", reason=str(error))  # FRESH is long enough for the next time

    async def _renew(self) -> None:
        with self._errors():
            await self._servers.update_one(
                {"_id": Binary(self.id)},
                {"$set": {"key": Binary(self._key)}, "$currentDate": {"seen": True}},
                upsert=True,
            )

    def seal(self, body: bytes) -> bytes:
        """What the peers will believe to be this server's."""
        return self.id + _seal(body, self._key) + body

    def opened(self, data: bytes) -> bytes | None:
        """The body of what a peer has sealed; None if the seal is none. Raises Stranger."""
        server, seal, body = data[:SIZE], data[SIZE : 2 * SIZE], data[2 * SIZE :]
        key = self._keys.get(server)
        if key is None:
            if len(seal) < SIZE or server in self._refused:
                return None
            raise Stranger(server)
        return body if hmac.compare_digest(seal, _seal(body, key)) else None

    async def meet(self, server: bytes) -> bool:
        """Look a server up; whether it is a peer. Raises EngineUnavailable."""
        age = {"$dateDiff": {"startDate": "$seen", "endDate": "$$NOW", "unit": "second"}}
        query = {"_id": Binary(server), "$expr": {"$lte": [age, FRESH]}}
        with self._errors():
            found = await self._servers.find_one(query, {"key": 1})
        if found is None:
            self._refused[server] = True
            return False
        if len(self._keys) >= MOST:
            self._keys = {self.id: self._key}
        self._keys[server] = bytes(found["key"])
        return True

    async def opened_surely(self, data: bytes) -> bytes | None:
        """The same as `opened`, after looking the server up if need be. Raises EngineUnavailable."""
        try:
            return self.opened(data)
        except Stranger as stranger:
            return self.opened(data) if await self.meet(stranger.server) else None


def _seal(body: bytes, key: bytes) -> bytes:
    return blake2b(body, key=key, digest_size=SIZE).digest()
