"""Tests of the servers on one database and their seals."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Binary
from tornado.ioloop import IOLoop

from models.errors import StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import mongo_client
from storage.mongo.peers import FRESH, MongoPeers, Stranger
from tests.storage.conftest import UNAVAILABLE

BODY = b"what is said"


@pytest.fixture
def servers(mongo: Any) -> Any:
    """The collection of servers."""
    return mongo.servers


@pytest.fixture
def copied(io_loop: IOLoop, addresses: Addresses) -> Iterator[Callable[[Any], Any]]:
    """Copy the collection into another database, as restoring a backup does."""
    client = mongo_client(addresses.mongo, timeout=5)
    name = f"test-{secrets.token_hex(6)}"

    async def copy(servers: Any) -> Any:
        await client[name].servers.insert_many(await servers.find().to_list(None))
        return client[name].servers

    yield copy
    io_loop.run_sync(lambda: client.drop_database(name))
    client.close()


async def joined(servers: Any) -> MongoPeers:
    peers = MongoPeers(servers, MongoErrors())
    await peers.join()
    return peers


async def test_what_a_peer_has_sealed(servers: Any) -> None:
    """Sealed data of a peer is opened after one lookup, and changed data is refused."""
    one, other = await joined(servers), await joined(servers)
    sealed = one.seal(BODY)
    with pytest.raises(Stranger) as caught:
        other.opened(sealed)
    assert await other.meet(caught.value.server)
    assert other.opened(sealed) == BODY
    for changed in (sealed + b"!", sealed[:-1], sealed[:16] + other.seal(BODY)[16:], sealed[:20], sealed[:16], b""):
        assert other.opened(changed) is None
    assert one.opened(sealed) == BODY


async def test_a_server_that_has_not_joined(servers: Any) -> None:
    """Data of an unregistered server is refused, without repeated lookups."""
    peers, foreign = await joined(servers), MongoPeers(servers, MongoErrors())
    assert await peers.opened_surely(foreign.seal(BODY)) is None
    assert peers.opened(foreign.seal(BODY)) is None


async def test_a_copy_of_the_database(servers: Any, copied: Callable[[Any], Any]) -> None:
    """Servers on a copy of the database are unknown to those on the original."""
    original = await joined(servers)
    staging = await joined(await copied(servers))
    assert await original.opened_surely(staging.seal(BODY)) is None


async def test_a_server_that_was_not_seen_lately(servers: Any) -> None:
    """A server that was not renewed recently is not trusted, and is again after a renewal."""
    peers, old = await joined(servers), await joined(servers)
    long_ago = datetime.now(UTC) - timedelta(seconds=FRESH + 60)
    await servers.update_one({"_id": Binary(old.id)}, {"$set": {"seen": long_ago}})
    assert not await peers.meet(old.id)
    await old.renew()
    assert await peers.meet(old.id)


async def test_a_server_that_was_removed(servers: Any) -> None:
    """A server whose document was removed registers again with the same key."""
    peers, old = await joined(servers), await joined(servers)
    await servers.delete_one({"_id": Binary(old.id)})
    await old.renew()
    assert await peers.opened_surely(old.seal(BODY)) == BODY


async def test_many_servers(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of servers is limited, and a peer that was dropped from it is looked up again."""
    monkeypatch.setattr("storage.mongo.peers.MOST", 3)
    peers, *others = [await joined(servers) for _ in range(4)]
    for other in others:
        assert await peers.meet(other.id)
    for dropped in others[:2]:
        with pytest.raises(Stranger):
            peers.opened(dropped.seal(BODY))
    assert peers.opened(others[2].seal(BODY)) == BODY
    assert await peers.opened_surely(others[0].seal(BODY)) == BODY
    assert peers.opened(peers.seal(BODY)) == BODY


async def test_mongodb_away() -> None:
    """A server cannot be looked up while MongoDB is unavailable."""
    client = mongo_client(UNAVAILABLE.mongo, timeout=0.2)
    peers = MongoPeers(client.tandem.servers, MongoErrors())
    with pytest.raises(StorageUnavailable):
        await peers.join()
    with pytest.raises(StorageUnavailable):
        await peers.opened_surely(MongoPeers(client.tandem.servers, MongoErrors()).seal(BODY))
    client.close()
