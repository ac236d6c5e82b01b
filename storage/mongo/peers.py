"""The servers on one MongoDB database, and the seals by which they trust each other's data in Redis.

Other installations and programs may write to the same Redis. So a server seals the data that it writes there for other
servers, with a key that is only in MongoDB. The collection `servers` has one document for each running server:

    _id     the server's id, 16 random bytes
    key     the key of its seals, 16 random bytes
    seen    when it was last renewed, by MongoDB's clock

A seal is valid only if its server was renewed recently. A copy of the database, restored beside the original, has
other servers, which the original does not know.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Any

import structlog
from bson import Binary
from cachetools import TTLCache

from common.tasks import every
from models.errors import StorageUnavailable
from storage.mongo.errors import MongoErrors

__all__ = ["MongoPeers", "Stranger"]

RENEW = 60.0  # seconds between two renewals of a server's document
FRESH = 300  # seconds for which a document is valid; longer than the election of a primary
KEPT = 86_400  # seconds after which MongoDB removes the document of a server that has ended
SIZE = 16  # bytes of an id, of a key and of a seal
MOST = 1000  # servers in the cache
REFUSED_FOR = 5.0  # seconds for which an unknown server is not looked up again

_log = structlog.get_logger(__name__)


class Stranger(Exception):
    """Data was sealed by a server that was not looked up yet; `server` is its id."""

    def __init__(self, server: bytes) -> None:
        super().__init__(server.hex())
        self.server = server


class MongoPeers:
    """This server and its peers, in motor's collection `servers`."""

    def __init__(self, servers: Any, errors: MongoErrors) -> None:
        self._servers = servers
        self._errors = errors
        self.id = secrets.token_bytes(SIZE)
        self._key = secrets.token_bytes(SIZE)
        self._keys = {self.id: self._key}
        self._refused: TTLCache[bytes, bool] = TTLCache(MOST, REFUSED_FOR)

    async def join(self) -> None:
        """Register this server. Raises StorageUnavailable."""
        with self._errors():
            await self._servers.create_index("seen", expireAfterSeconds=KEPT, name="seen")
        await self.renew()

    async def run(self) -> None:
        """Renew this server's document, until cancelled."""
        await every(RENEW, self._try_to_renew)

    async def _try_to_renew(self) -> None:
        try:
            await self.renew()
        except StorageUnavailable as error:
            _log.debug("server_not_renewed", reason=str(error))  # FRESH is long enough for another attempt

    async def renew(self) -> None:
        """Write this server's document with the time of now. Raises StorageUnavailable."""
        with self._errors():
            await self._servers.update_one(
                {"_id": Binary(self.id)},
                {"$set": {"key": Binary(self._key)}, "$currentDate": {"seen": True}},
                upsert=True,
            )

    def seal(self, body: bytes) -> bytes:
        """Return `body` with this server's id and seal, which peers can verify."""
        return self.id + _seal(body, self._key) + body

    def opened(self, data: bytes) -> bytes | None:
        """Return the body of data that a peer has sealed; None if the seal is invalid. Raises Stranger."""
        server, seal, body = data[:SIZE], data[SIZE : 2 * SIZE], data[2 * SIZE :]
        key = self._keys.get(server)
        if key is None:
            if len(seal) < SIZE or server in self._refused:
                return None
            raise Stranger(server)
        return body if hmac.compare_digest(seal, _seal(body, key)) else None

    async def meet(self, server: bytes) -> bool:
        """Look up a server. Return whether it is a peer. Raises StorageUnavailable."""
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
        """Do the same as `opened`, after looking up the server if needed. Raises StorageUnavailable."""
        try:
            return self.opened(data)
        except Stranger as stranger:
            return self.opened(data) if await self.meet(stranger.server) else None


def _seal(body: bytes, key: bytes) -> bytes:
    return blake2b(body, key=key, digest_size=SIZE).digest()
