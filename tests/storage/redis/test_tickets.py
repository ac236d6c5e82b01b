"""Tests of tickets in Redis: they are valid once, for a short time, and Redis's data reveals and makes none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from models.errors import StorageUnavailable, Unauthenticated
from models.records import Identity
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import MongoMessages
from storage.mongo.peers import MongoPeers
from storage.redis.client import RedisServer
from storage.redis.tickets import RedisTickets
from tests.support.clocks import Clock

Change = Callable[[str], str]

LIFETIME = 30.0
USER = Identity(7, bytes(range(16)), "version", 1_700_000_000.5, 1_800_000_000.0)


@pytest.fixture
def tickets(redis_server: RedisServer, prefix: str, messages: MongoMessages, clock: Clock) -> RedisTickets:
    """The tickets of a server."""
    return RedisTickets(redis_server, prefix, messages.peers, lifetime=LIFETIME, clock=clock)


@pytest.fixture
def peers(io_loop: IOLoop, mongo: Any) -> MongoPeers:
    """Another server that is registered in the same database."""
    peers = MongoPeers(mongo.servers, MongoErrors())
    io_loop.run_sync(peers.join)
    return peers


async def keys(redis: Redis, prefix: str) -> list[str]:
    return [key async for key in redis.scan_iter(f"{prefix}*")]


@pytest.mark.parametrize("identity", [USER, Identity(7), Identity(2**63 - 1, bytes(16))])
async def test_a_ticket_gives_its_identity(tickets: RedisTickets, identity: Identity) -> None:
    """A ticket gives all fields of its identity."""
    assert await tickets.redeem(await tickets.issue(identity)) == identity


async def test_a_ticket_is_for_one_use(tickets: RedisTickets) -> None:
    """A ticket is valid once, even if it is tried concurrently, and other tickets of the user stay valid."""
    ticket, other = await tickets.issue(USER), await tickets.issue(USER)
    outcomes = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(20)), return_exceptions=True)
    assert outcomes.count(USER) == 1
    assert sum(isinstance(outcome, Unauthenticated) for outcome in outcomes) == 19
    assert await tickets.redeem(other) == USER


async def test_redis_forgets_a_ticket(tickets: RedisTickets, redis: Redis, prefix: str) -> None:
    """A ticket's key is gone after it expired or was used."""
    ticket = await tickets.issue(USER)
    (key,) = await keys(redis, prefix)
    assert 0 < await redis.pttl(key) <= LIFETIME * 1000
    await tickets.redeem(ticket)
    assert not await keys(redis, prefix)


async def test_a_ticket_that_redis_brings_back(tickets: RedisTickets, clock: Clock) -> None:
    """A ticket that Redis restores after its expiry is refused."""
    ticket = await tickets.issue(USER)
    clock.offset = LIFETIME
    with pytest.raises(Unauthenticated, match="has expired"):
        await tickets.redeem(ticket)
    clock.offset = 0
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_redis_holds_no_ticket(tickets: RedisTickets, redis: Redis, prefix: str) -> None:
    """No key or value in Redis contains a ticket, or can be used as one."""
    ticket = await tickets.issue(USER)
    found = await keys(redis, prefix)
    values = [await redis.get(key) for key in found]
    assert len(found) == 1
    for text in (*found, *values):
        assert ticket not in text
        for part in (text, text.rpartition(":")[2]):
            with pytest.raises(Unauthenticated):
                await tickets.redeem(part)
    assert await tickets.redeem(ticket) == USER


@pytest.mark.parametrize(
    "change", [str.lower, lambda ticket: ticket[:-1], lambda ticket: f"{ticket}=", lambda ticket: f" {ticket}"]
)
async def test_a_ticket_is_good_as_it_is_spelt(tickets: RedisTickets, change: Change) -> None:
    """A ticket in another spelling is refused, and that does not use it up."""
    ticket = await tickets.issue(USER)
    with pytest.raises(Unauthenticated):
        await tickets.redeem(change(ticket))
    assert await tickets.redeem(ticket) == USER


@pytest.mark.parametrize("ticket", ["", "*", "nobody's", "字\0", "../x", "{0}", "x" * 100_000, "\r\nFLUSHALL\r\n"])
async def test_an_invalid_ticket(tickets: RedisTickets, ticket: str) -> None:
    """An invalid ticket is refused."""
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_tickets_below_another_prefix(
    tickets: RedisTickets, redis_server: RedisServer, prefix: str, peers: MongoPeers, clock: Clock
) -> None:
    """Tickets of another prefix are refused."""
    ticket = await tickets.issue(USER)
    with pytest.raises(Unauthenticated):
        await RedisTickets(redis_server, f"{prefix}x", peers, lifetime=LIFETIME, clock=clock).redeem(ticket)


async def test_a_ticket_of_another_process(
    tickets: RedisTickets, redis_server: RedisServer, prefix: str, peers: MongoPeers, mongo: Any, clock: Clock
) -> None:
    """A ticket of another process is valid if that process is registered in the same database."""
    for issuer, good in ((peers, True), (MongoPeers(mongo.servers, MongoErrors()), False)):
        others = RedisTickets(redis_server, prefix, issuer, lifetime=LIFETIME, clock=clock)
        ticket = await others.issue(USER)
        if good:
            assert await tickets.redeem(ticket) == USER
        else:
            with pytest.raises(Unauthenticated):
                await tickets.redeem(ticket)


@pytest.mark.parametrize("forge", [lambda sealed: sealed[:-4] + "AAAA", lambda _: "", lambda _: "{}", lambda _: "é"])
async def test_a_ticket_that_was_written_into_redis(
    tickets: RedisTickets, redis: Redis, prefix: str, forge: Change
) -> None:
    """A ticket that another program writes into Redis is refused."""
    ticket = await tickets.issue(USER)
    (key,) = await keys(redis, prefix)
    await redis.set(key, forge(await redis.get(key)))
    with pytest.raises(Unauthenticated):
        await tickets.redeem(ticket)


async def test_redis_away(redis_away: RedisServer, prefix: str, peers: MongoPeers, clock: Clock) -> None:
    """Every call raises StorageUnavailable while Redis is unavailable."""
    tickets = RedisTickets(redis_away, prefix, peers, lifetime=LIFETIME, clock=clock)
    for call in (tickets.issue(USER), tickets.redeem("ticket")):
        with pytest.raises(StorageUnavailable):
            await call
