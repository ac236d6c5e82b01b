"""Tests of all stores together: opening, refusing and closing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec
import pymysql
import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from config.settings import Engines, Limits, Settings, Timeouts
from models.accounts.ports import Rule
from models.errors import DatabaseRefused, StorageUnavailable
from models.records import Identity
from storage.embedded.supervisor import Addresses
from storage.mysql.schema import SchemaError
from storage.redis.client import UnsuitableRedisError
from storage.stores import DatabasesUnavailable, UnusableAddressError, open_stores
from tests.storage.conftest import UNAVAILABLE, MakeFresh
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE
from tests.support.sockets import until


@pytest.fixture
def settings(prefix: str, database: pymysql.Connection) -> Settings:
    """Settings with a prefix of the test's own and low limits."""
    return Settings(
        engines=Engines(
            insert_batch=10,
            redis_prefix=prefix,
            redis_connections=4,
            mysql_threads=2,
            mysql_waiting=10,
            password_waiting=2,
        ),
        limits=Limits(max_blocks=3, strangers_per_hour=5, bytes_per_day=1000, lookup_cache=10),
        timeouts=Timeouts(engine_timeout=PATIENCE, password_timeout=PATIENCE, lookup_ttl=1),
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
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, pair: tuple[int, int]
) -> None:
    """Each store works after opening."""
    stores = await open_stores(addresses, settings, stack, clock, article_users=False)
    for ping in (stores.messages.ping(), stores.redis.ping(stores.redis_prefix), stores.mysql.ping()):
        await ping
    assert stores.redis_prefix == f"{settings.engines.redis_prefix}:{stores.messages.log}"
    assert await stores.messages.blocks.block(*pair) == 0
    assert await stores.tickets.redeem(await stores.tickets.issue(Identity(pair[0]))) == Identity(pair[0])
    await stores.attempts.take(Rule.ACCOUNT, "somebody")
    assert set(pair) == set(await stores.users.active(*pair))
    assert await stores.accounts.digest_of(pair[0]) == ""
    assert not await stores.sessions.signed_out(bytes(16))


async def test_what_was_opened_is_closed(
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, redis: Redis
) -> None:
    """All connections and threads are closed."""
    before = len(await redis.client_list())
    stores = await open_stores(addresses, settings, stack, clock, article_users=False)
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
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, away: list[str]
) -> None:
    """The error names all databases that are unavailable, and what was opened is closed."""
    partly = addresses._replace(**{name: getattr(UNAVAILABLE, name) for name in away})
    with pytest.raises(DatabasesUnavailable) as caught:
        await open_stores(partly, settings, stack, clock, article_users=False)
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
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, name: str, url: str
) -> None:
    """The error about an invalid address names its database and the reason."""
    with pytest.raises(UnusableAddressError) as caught:
        await open_stores(addresses._replace(**{name: url}), settings, stack, clock, article_users=False)
    assert caught.value.database == name
    assert str(caught.value)


async def test_an_unsuitable_database(
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, redis: Redis
) -> None:
    """An unsuitable database is refused with its store's error."""
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnsuitableRedisError):
            await open_stores(addresses, settings, stack, clock, article_users=False)
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")


async def test_a_user_table_that_is_older_than_the_messages(
    addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Clock, make_fresh: MakeFresh
) -> None:
    """The error about an old user table has its remedy, after which new accounts get ids that no message has."""
    fresh = make_fresh()
    there = addresses._replace(mysql=fresh.url)
    named = msgspec.structs.replace(settings.engines, mongo_database=fresh.name)
    settings = msgspec.structs.replace(settings, engines=named)
    stores = await open_stores(there, settings, stack, clock, article_users=True)
    fresh.cursor.execute("CREATE TABLE copy LIKE `user`")
    alice = await stores.accounts.register("alice", "Alice", b"password")
    await stores.messages.reserve(f"1-{alice.id}", 1)

    def restore() -> None:
        fresh.cursor.execute("DROP TABLE `user`")
        fresh.cursor.execute("CREATE TABLE `user` LIKE copy")

    restore()
    with pytest.raises(SchemaError, match=f"would give id {alice.id} ") as caught:
        await open_stores(there, settings, stack, clock, article_users=True)
    statement = re.search(r"ALTER TABLE [^;]*", str(caught.value))
    assert statement is not None
    fresh.cursor.execute(statement[0])
    again = await open_stores(there, settings, stack, clock, article_users=True)
    assert (await again.accounts.register("mallory", "Mallory", b"password")).id == alice.id + 1
    restore()
    fresh.cursor.execute(f"ALTER TABLE `user` AUTO_INCREMENT = {alice.id}")
    with pytest.raises(DatabaseRefused, match="ALTER TABLE"):
        await again.accounts.register("mallory", "Mallory", b"password")
