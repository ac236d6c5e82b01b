"""Open, prepare and close all stores in the three databases together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from config.settings import Settings
from models.accounts.ports import Rule
from models.errors import StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages, mongo_client
from storage.mysql.accounts import MySQLAccounts
from storage.mysql.executor import MySQL
from storage.mysql.sessions import MySQLSessions
from storage.mysql.users import MySQLUsers
from storage.redis.attempts import RedisAttempts
from storage.redis.broker import RedisBroker
from storage.redis.client import RedisServer
from storage.redis.counters import RedisCounters
from storage.redis.quotas import RedisQuotas
from storage.redis.tickets import RedisTickets
from storage.security.passwords import Passwords

__all__ = ["DatabasesUnavailable", "Stores", "UnusableAddressError", "open_stores"]


class UnusableAddressError(Exception):
    """The address of a database is invalid: which database's, and why."""

    def __init__(self, database: str, reason: str) -> None:
        super().__init__(reason)
        self.database = database


class DatabasesUnavailable(Exception):
    """Databases do not answer: which, and why."""

    def __init__(self, away: Sequence[tuple[str, StorageUnavailable]]) -> None:
        super().__init__("; ".join(str(error) for _, error in away))
        self.away = away


class Stores(NamedTuple):
    """The stores, by database."""

    messages: MongoMessages
    redis: RedisServer
    redis_prefix: str  # the prefix of this installation's keys and channels
    counters: RedisCounters
    broker: RedisBroker
    tickets: RedisTickets
    attempts: RedisAttempts
    mysql: MySQL
    users: MySQLUsers
    accounts: MySQLAccounts
    sessions: MySQLSessions


async def open_stores(
    addresses: Addresses,
    settings: Settings,
    stack: AsyncExitStack,
    clock: Callable[[], float],
    *,
    article_users: bool,
) -> Stores:
    """Open the stores and prepare them for use. `stack` closes them.

    `article_users` adds users 1 and 2 to an empty user table. Raises UnusableAddressError, DatabasesUnavailable, and
    the stores' errors for unsuitable databases.
    """
    opened = _opened(addresses, settings, stack, clock)
    await _ready(
        mongo=opened.messages.prepare(),
        redis=opened.redis.prepare(settings.engines.redis_prefix),
        mysql=opened.users.prepare(with_article_users=article_users),
    )
    # Two installations on one Redis, also with different database numbers, must not use each other's keys and channels.
    prefix = f"{settings.engines.redis_prefix}:{opened.messages.log}"
    await _ready(redis=opened.redis.check_rights(prefix))
    # In this order, an account that another process makes meanwhile has an id above the greatest one in messages.
    try:
        await opened.users.require_unused_ids(await opened.messages.directory.greatest_user())
    except StorageUnavailable as error:
        raise DatabasesUnavailable([("mysql" if error.database == "mysql" else "mongo", error)]) from None
    stack.push_async_callback(opened.messages.close)
    stores = _stores(opened, settings, prefix, clock)
    stack.push_async_callback(stores.counters.close)
    return stores


async def _ready(**prepared: Awaitable[None]) -> None:
    """Wait until each database is ready. Raises DatabasesUnavailable, and errors about unsuitable databases."""
    outcomes = await asyncio.gather(*prepared.values(), return_exceptions=True)
    away = []
    for database, outcome in zip(prepared, outcomes, strict=True):
        if isinstance(outcome, StorageUnavailable):
            away.append((database, outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
    if away:
        raise DatabasesUnavailable(away)


class _Opened(NamedTuple):
    """The parts of the stores that exist before the databases were asked for anything."""

    messages: MongoMessages
    redis: RedisServer
    mysql: MySQL
    users: MySQLUsers
    passwords: Passwords


def _opened(addresses: Addresses, settings: Settings, stack: AsyncExitStack, clock: Callable[[], float]) -> _Opened:
    databases, limits, timeouts = settings.engines, settings.limits, settings.timeouts
    timeout = timeouts.engine_timeout
    try:
        mongo = mongo_client(addresses.mongo, timeout)
        stack.callback(mongo.close)
        messages = MongoMessages(
            mongo,
            databases.mongo_database,
            clock=clock,
            max_batch=databases.insert_batch,
            max_concurrent=databases.insert_flights,
            max_blocks=limits.max_blocks,
        )
    except Exception as error:  # noqa: BLE001  # the driver raises several kinds of errors for an invalid URL
        raise UnusableAddressError("mongo", str(error)) from None
    try:
        redis = RedisServer(addresses.redis, timeout, databases.redis_connections)
    except ValueError as error:
        raise UnusableAddressError("redis", str(error)) from None
    stack.push_async_callback(redis.close)
    try:
        mysql = MySQL(
            addresses.mysql, timeout=timeout, threads=databases.mysql_threads, waiting=databases.mysql_waiting
        )
    except ValueError as error:
        raise UnusableAddressError("mysql", str(error)) from None
    stack.push_async_callback(mysql.close)
    passwords = Passwords(databases.password_threads, databases.password_waiting, timeouts.password_timeout)
    stack.push_async_callback(passwords.close)
    users = MySQLUsers(mysql, cache_size=limits.lookup_cache, cache_ttl=timeouts.lookup_ttl)
    return _Opened(messages, redis, mysql, users, passwords)


def _stores(opened: _Opened, settings: Settings, prefix: str, clock: Callable[[], float]) -> Stores:
    messages, redis, mysql, users, passwords = opened
    auth, limits = settings.auth, settings.limits
    quotas = RedisQuotas(redis, prefix, strangers=limits.strangers_per_hour, size=limits.bytes_per_day)
    attempts = {
        Rule.ACCOUNT: auth.sign_ins_per_account,
        Rule.CONFIRMATION: auth.sign_ins_per_account,
        Rule.ADDRESS: auth.sign_ins_per_address,
        Rule.REGISTRATION: auth.registrations_per_address,
    }
    return Stores(
        messages=messages,
        redis=redis,
        redis_prefix=prefix,
        counters=RedisCounters(redis, prefix, quotas),
        broker=RedisBroker(redis, prefix, messages.peers),
        tickets=RedisTickets(redis, prefix, messages.peers, lifetime=auth.ticket_lifetime, clock=clock),
        attempts=RedisAttempts(redis, prefix, attempts),
        mysql=mysql,
        users=users,
        accounts=MySQLAccounts(mysql, users, passwords, messages.directory.greatest_user, clock=clock),
        sessions=MySQLSessions(
            mysql, users, clock=clock, cache_size=limits.lookup_cache, cache_ttl=settings.timeouts.lookup_ttl
        ),
    )
