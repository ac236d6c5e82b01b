"""Tests of the data's format and the log's id in MongoDB."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from storage.embedded.supervisor import Addresses
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import MongoMessages, mongo_client
from storage.mongo.meta import VERSION, UnsuitableMongoError, read_log
from tests.support.clocks import Clock

SERVERS = 8

Open = Callable[[], MongoMessages]


@pytest.fixture
def name() -> str:
    """The name of a database that does not exist yet."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def database(io_loop: IOLoop, addresses: Addresses, name: str) -> Iterator[Any]:
    """That database, as another program sees it; it is dropped after the test."""
    client = mongo_client(addresses.mongo, timeout=5)
    yield client[name]
    io_loop.run_sync(lambda: client.drop_database(name))
    client.close()


@pytest.fixture
def open_store(database: Any, name: str, addresses: Addresses, clock: Clock) -> Iterator[Open]:
    """Open the messages as a server does, each time with a client of its own."""
    clients = []

    def open_one() -> MongoMessages:
        clients.append(mongo_client(addresses.mongo, timeout=5))
        return MongoMessages(clients[-1], name, clock=clock, max_batch=10, max_concurrent=1, max_blocks=3)

    yield open_one
    for client in clients:
        client.close()


async def test_the_log_is_made_once(open_store: Open, database: Any) -> None:
    """The log's id is created once and read by the next start, and the document has the format's version."""
    first, second = open_store(), open_store()
    await first.prepare()
    await second.prepare()
    assert first.log == second.log
    assert len(first.log) == 16
    assert await database.meta.find().to_list(None) == [{"_id": "format", "version": VERSION, "log": first.log}]


@pytest.mark.parametrize("attempt", range(3))
async def test_several_servers_start_at_once(open_store: Open, database: Any, attempt: int) -> None:
    """Servers that start at once on an empty database all get the same log and a clustered collection."""
    stores = [open_store() for _ in range(SERVERS)]
    await asyncio.gather(*(store.ping() for store in stores))  # so that all are connected before they start
    await asyncio.gather(*(store.prepare() for store in stores))
    assert len({store.log for store in stores}) == 1
    options = await database.messages.options()
    assert options["clusteredIndex"]["key"] == {"_id": 1}


async def test_several_servers_make_the_log_at_once(database: Any) -> None:
    """Concurrent calls create one document, and each reads it."""
    assert len(set(await asyncio.gather(*(read_log(database.meta, MongoErrors()) for _ in range(SERVERS))))) == 1


@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1"])
async def test_data_of_another_version(open_store: Open, database: Any, version: object) -> None:
    """Data of another version is refused and not changed."""
    await database.meta.insert_one({"_id": "format", "version": version, "log": "0123456789abcdef"})
    with pytest.raises(UnsuitableMongoError, match="format"):
        await open_store().prepare()


@pytest.mark.parametrize("log", [None, "", "tandem:x", 7, "0123456789abcde"])
async def test_a_log_that_is_damaged(database: Any, log: object) -> None:
    """A damaged log id is refused, since names in Redis contain it."""
    await database.meta.insert_one({"_id": "format", "version": VERSION, "log": log})
    with pytest.raises(UnsuitableMongoError, match="log"):
        await read_log(database.meta, MongoErrors())


async def test_a_collection_of_another_kind(open_store: Open, database: Any) -> None:
    """A collection that was restored without its options is refused, since reading it in order would need a sort."""
    await database.create_collection("messages")
    with pytest.raises(UnsuitableMongoError, match="clustered"):
        await open_store().prepare()
