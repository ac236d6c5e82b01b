"""Tests of all stores together: opening, refusing and closing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pymysql
import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from models.accounts.ports import Rule
from models.errors import DatabaseRefused, StorageUnavailable
from models.records import Identity
from storage.embedded.supervisor import Addresses
from storage.mysql.schema import SchemaError
from storage.redis.client import UnsuitableRedisError
from storage.stores import DatabasesUnavailable, Options, UnusableAddressError, open_stores
from tests.conftest import Clock
from tests.storage.conftest import UNAVAILABLE, MakeFresh
from tests.support.patience import PATIENCE
from tests.support.sockets import until


@pytest.fixture
def options(prefix: str, database: pymysql.Connection) -> Options:
    """Options with low limits."""
    return Options(
        engine_timeout=PATIENCE,
        mongo_database="tandem",
        insert_batch=10,
        insert_flights=1,
        max_blocks=3,
        strangers_per_hour=5,
        bytes_per_day=1000,
        redis_prefix=prefix,
        redis_connections=4,
        mysql_threads=2,
        mysql_waiting=10,
        password_threads=1,
        password_timeout=PATIENCE,
        password_waiting=2,
        lookup_cache=10,
        lookup_ttl=1,
        ticket_lifetime=30,
        attempts=dict.fromkeys(Rule, 3),
    )


@pytest.fixture
def stack(io_loop: IOLoop) -> Iterator[AsyncExitStack]:
    """The stack that closes the stores, at the end of the test if not before."""
    stack = AsyncExitStack()
    yield stack
    io_loop.run_sync(stack.aclose)


def own_threads() -> list[str]:
    """Return the threads of MySQL and of passwords."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("mysql", "password"))]


async def test_all_are_ready(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, pair: tuple[int, int]
) -> None:
    """Each store works after opening."""
    stores = await open_stores(addresses, options, stack, clock, article_users=False)
    for ping in (stores.messages.ping(), stores.redis.ping(stores.redis_prefix), stores.mysql.ping()):
        await ping
    assert stores.redis_prefix == f"{options.redis_prefix}:{stores.messages.log}"
    assert await stores.messages.blocks.block(*pair) == 0
    assert await stores.tickets.redeem(await stores.tickets.issue(Identity(pair[0]))) == Identity(pair[0])
    await stores.attempts.take(Rule.ACCOUNT, "somebody")
    assert set(pair) == set(await stores.users.active(*pair))
    assert await stores.accounts.digest_of(pair[0]) == ""
    assert not await stores.sessions.signed_out(bytes(16))


async def test_what_was_opened_is_closed(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, redis: Redis
) -> None:
    """All connections and threads are closed."""
    before = len(await redis.client_list())
    stores = await open_stores(addresses, options, stack, clock, article_users=False)
    assert not await stores.accounts.matches(b"password", None)
    assert len(own_threads()) > 1
    assert len(await redis.client_list()) > before
    await stack.aclose()
    await until(lambda: not own_threads())
    assert len(await redis.client_list()) == before
    with pytest.raises(StorageUnavailable, match="after close"):
        await stores.messages.ping()


@pytest.mark.parametrize("away", [["mongo"], ["redis"], ["mysql"], ["mongo", "redis", "mysql"]])
async def test_databases_unavailable(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, away: list[str]
) -> None:
    """The error names all databases that are unavailable, and what was opened is closed."""
    partly = addresses._replace(**{name: getattr(UNAVAILABLE, name) for name in away})
    with pytest.raises(DatabasesUnavailable) as caught:
        await open_stores(partly, options, stack, clock, article_users=False)
    assert away == [name for name, _ in caught.value.away]
    assert all(str(error) in str(caught.value) for _, error in caught.value.away)
    await stack.aclose()
    await until(lambda: not own_threads())


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("mongo", "http://localhost"),
        ("mongo", "mongodb://"),
        ("mongo", "mongodb://localhost/?replicaSet"),
        ("redis", "mysql://localhost"),
        ("redis", "localhost"),
        ("redis", "redis://localhost:port"),
        ("mysql", "mysql://localhost"),
        ("mysql", "mysql://localhost:port/tandem"),
    ],
)
async def test_an_invalid_address(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, name: str, url: str
) -> None:
    """The error about an invalid address names its database and the reason."""
    with pytest.raises(UnusableAddressError) as caught:
        await open_stores(addresses._replace(**{name: url}), options, stack, clock, article_users=False)
    assert caught.value.database == name
    assert str(caught.value)


async def test_an_unsuitable_database(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, redis: Redis
) -> None:
    """An unsuitable database is refused with its store's error."""
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsuitableRedisError):
            await open_stores(addresses, options, stack, clock, article_users=False)
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_a_user_table_that_is_older_than_the_messages(
    addresses: Addresses, options: Options, stack: AsyncExitStack, clock: Clock, make_fresh: MakeFresh
) -> None:
    """The error about an old user table has its remedy, after which new accounts get ids that no message has."""
    fresh = make_fresh()
    there = addresses._replace(mysql=fresh.url)
    options = options._replace(mongo_database=fresh.name)
    stores = await open_stores(there, options, stack, clock, article_users=True)
    fresh.cursor.execute("CREATE TABLE copy LIKE `user`")
    alice = await stores.accounts.register("alice", "Alice", b"password")
    await stores.messages.reserve(f"1-{alice.id}", 1)

    def restore() -> None:
        fresh.cursor.execute("DROP TABLE `user`")
        fresh.cursor.execute("CREATE TABLE `user` LIKE copy")

    restore()
    with pytest.raises(SchemaError, match=f"would give id {alice.id} ") as caught:
        await open_stores(there, options, stack, clock, article_users=True)
    statement = re.search(r"ALTER TABLE [^;]*", str(caught.value))
    assert statement is not None
    fresh.cursor.execute(statement[0])
    again = await open_stores(there, options, stack, clock, article_users=True)
    assert (await again.accounts.register("mallory", "Mallory", b"password")).id == alice.id + 1
    restore()
    fresh.cursor.execute(f"ALTER TABLE `user` AUTO_INCREMENT = {alice.id}")
    with pytest.raises(DatabaseRefused, match="ALTER TABLE"):
        await again.accounts.register("mallory", "Mallory", b"password")
