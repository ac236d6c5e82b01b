"""Tandem's server, in the order of its life: settings, engines, stores, chat, doors; wait; drain; close.

    python server.py --port=3000

What is opened is closed by the exit stack that stands next to it, in reverse order.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import structlog
import uvloop
from tornado.ioloop import PeriodicCallback
from tornado.netutil import bind_sockets

from config import Settings, SettingsError, load, secrets_of
from config.logs import configure_logging
from config.redaction import Redactor, masked
from handlers.door import Doorkeeper
from handlers.routes import make_app
from handlers.socket import ChatSocket, SocketLimits
from models.chat import Chat
from models.errors import EngineUnavailable
from models.reader import Reader
from storage.clients import redis_client, subscriber_client
from storage.counters import RedisCounters, UnsuitableRedisError
from storage.engines import Addresses, EngineStartError, PrivateEngines
from storage.messages import MongoMessages, UnsuitableMongoError, mongo_client
from storage.router import RedisRouter
from storage.schema import SchemaError
from storage.users import MySQLUsers

__all__ = ["Server", "StartError", "main", "serving"]

SPARE_FILES = 200  # open files for everything but sockets
CLOSE_WITHIN = 2.0  # seconds that peers have to answer the closing of their sockets
CHECK_PONGS_EVERY = 1000  # milliseconds

_log = structlog.get_logger("server")


class StartError(Exception):
    """The server cannot start; the text says why and what to do."""


class Server(NamedTuple):
    """A server that listens: where, and what it is made of."""

    url: str
    port: int
    chat: Chat
    reader: Reader
    stores: Stores


class Stores(NamedTuple):
    """What stands on the engines."""

    messages: MongoMessages
    counters: RedisCounters
    router: RedisRouter
    users: MySQLUsers


def main(argv: Sequence[str]) -> int:
    """Runs the server until it is told to end; the exit status."""
    redact = Redactor([])
    try:
        settings = load(argv)
        redact = Redactor(secrets_of(settings))
        configure_logging(settings.log, redact)
        _allow_open_files(settings.limits.max_connections + settings.limits.max_http_connections)
        for listening in _bind(settings):  # a port that is taken is said before any engine is started
            listening.close()
        with ExitStack() as stack:
            addresses, private = _engines(settings, stack)
            uvloop.run(_run(settings, addresses, private))
    except SettingsError as error:
        print(redact(f"server.py: {error}"), file=sys.stderr)
        return 2
    except (StartError, EngineStartError, SchemaError, UnsuitableMongoError, UnsuitableRedisError) as error:
        print(redact(f"server.py: cannot start: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _allow_open_files(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and connections + SPARE_FILES > hard:
        raise SettingsError(
            f"--max-connections and --max-http-connections: {connections} connections need "
            f"{connections + SPARE_FILES} open files, and this process may have {hard} (ulimit -Hn)"
        )
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, connections + SPARE_FILES), hard))


def _engines(settings: Settings, stack: ExitStack) -> tuple[Addresses, PrivateEngines | None]:
    """The addresses given, or those of private engines that the stack stops."""
    given = Addresses(settings.engines.mongo, settings.engines.redis, settings.engines.mysql)
    if all(given):
        return given, None
    private = PrivateEngines(Path(settings.server.data_dir), settings.timeouts.start_timeout)
    stack.callback(private.stop)
    return private.start(), private


async def _run(settings: Settings, addresses: Addresses, private: PrivateEngines | None) -> None:
    """The server's life on the event loop."""
    ending = _on_signals()
    async with AsyncExitStack() as stack:
        if private is not None:
            stack.callback(asyncio.create_task(private.supervise()).cancel)
        server = await stack.enter_async_context(serving(settings, addresses, article_users=private is not None))
        print(f"Tandem is ready: {server.url}", flush=True)
        await ending.wait()


@asynccontextmanager
async def serving(
    settings: Settings, addresses: Addresses, *, article_users: bool, clock: Callable[[], float] = time.time
) -> AsyncIterator[Server]:
    """A server that listens and answers, on engines that are there; drained when the context ends.

    `article_users` puts the article's two users into an empty user table; `clock` returns seconds since the
    epoch. Raises StartError, SettingsError, and the errors of engines that cannot be used.
    """
    limits, timeouts = settings.limits, settings.timeouts
    async with AsyncExitStack() as stack:
        stores = await _stores(settings, addresses, stack, clock, article_users=article_users)
        chat = Chat(
            stores.messages,
            stores.messages.directory,
            stores.counters,
            ChatSocket,
            stores.router,
            clock=clock,
            new_key=lambda: _new_key(clock()),
        )
        reader = Reader(chat, stores.messages, stores.messages.directory, timeouts.answer_timeout)
        await stores.router.start(chat)
        stack.push_async_callback(stores.router.close)
        stack.push_async_callback(chat.close)
        app = make_app(
            chat,
            reader,
            stores.users,
            SocketLimits(
                max_connections=limits.max_connections,
                window=limits.window,
                max_frame=limits.max_frame,
                max_content=limits.max_content,
                malformed_frames=limits.malformed_frames,
                write_buffer=limits.write_buffer,
                ping_interval=timeouts.ping_interval,
                ping_timeout=timeouts.ping_timeout,
                answer_timeout=timeouts.answer_timeout,
            ),
            {"mongodb": stores.messages.ping, "redis": stores.counters.ping, "mysql": stores.users.ping},
        )
        http = Doorkeeper(
            app,
            max_connections=limits.max_http_connections,
            idle_connection_timeout=timeouts.handshake_timeout,
            body_timeout=timeouts.handshake_timeout,
            max_body_size=limits.max_body,
            max_header_size=limits.max_header,
            max_buffer_size=2 * max(limits.max_body, limits.max_header, limits.max_frame),
        )
        stack.push_async_callback(http.close_all_connections)
        stack.callback(http.stop)
        listening = _bind(settings)
        http.add_sockets(listening)
        pings = PeriodicCallback(lambda: ChatSocket.check_pongs(asyncio.get_running_loop().time()), CHECK_PONGS_EVERY)
        pings.start()
        stack.callback(pings.stop)
        stack.callback(asyncio.create_task(chat.sweep(timeouts.sweep_interval)).cancel)

        ChatSocket.start()
        host, port = listening[0].getsockname()[:2]
        yield Server(f"http://{f'[{host}]' if ':' in host else host}:{port}/", port, chat, reader, stores)

        _log.info("draining", sockets=ChatSocket.count())
        ChatSocket.start_draining()
        await chat.drain(timeouts.drain_timeout)
        await ChatSocket.close_all(CLOSE_WITHIN)


async def _stores(
    settings: Settings,
    addresses: Addresses,
    stack: AsyncExitStack,
    clock: Callable[[], float],
    *,
    article_users: bool,
) -> Stores:
    """The stores, each ready for use. Raises StartError naming every engine that is away."""
    engines, timeout = settings.engines, settings.timeouts.engine_timeout
    try:
        mongo = mongo_client(addresses.mongo, timeout)
        stack.callback(mongo.close)
        messages = MongoMessages(
            mongo,
            engines.mongo_database,
            clock=clock,
            max_batch=engines.insert_batch,
            max_flights=engines.insert_flights,
        )
    except Exception as error:  # noqa: BLE001  # the driver raises several kinds for a URL that is none
        raise SettingsError(f"--mongo: {error}") from None
    try:
        redis = redis_client(addresses.redis, timeout, engines.redis_connections)
    except ValueError as error:
        raise SettingsError(f"--redis: {error}") from None
    stack.push_async_callback(redis.aclose)
    subscriber = subscriber_client(addresses.redis, timeout)
    stack.push_async_callback(subscriber.aclose)
    counters = RedisCounters(redis, engines.redis_prefix)
    router = RedisRouter(redis, subscriber, engines.redis_prefix)
    try:
        users = MySQLUsers(
            addresses.mysql,
            timeout=timeout,
            threads=engines.mysql_threads,
            password_threads=engines.password_threads,
            waiting=engines.mysql_waiting,
            cache_size=settings.limits.lookup_cache,
            cache_ttl=settings.timeouts.lookup_ttl,
        )
    except ValueError as error:
        raise SettingsError(f"--mysql: {error}") from None
    stack.push_async_callback(users.close)

    prepared: Mapping[str, Awaitable[None]] = {
        addresses.mongo: messages.prepare(),
        addresses.redis: counters.prepare(),
        addresses.mysql: users.prepare(with_article_users=article_users),
    }
    outcomes = await asyncio.gather(*prepared.values(), return_exceptions=True)
    away = []
    for url, outcome in zip(prepared, outcomes, strict=True):
        if isinstance(outcome, EngineUnavailable):
            away.append(f"{outcome.engine} at {masked(url)}: {outcome}")
        elif isinstance(outcome, BaseException):
            raise outcome
    if away:
        raise StartError("; ".join(away))
    stack.push_async_callback(messages.close)
    stack.push_async_callback(counters.close)
    return Stores(messages, counters, router, users)


def _bind(settings: Settings) -> list[socket.socket]:
    address, port = settings.server.address, settings.server.port
    try:
        return bind_sockets(port, address)
    except OSError as error:
        raise StartError(
            f"cannot listen on {address}, port {port}: {error.strerror}; see --address and --port"
        ) from None


def _on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; the second signal ends the process at once."""
    ending = asyncio.Event()

    def on_signal() -> None:
        if ending.is_set():
            os._exit(1)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return ending


def _new_key(now: float) -> bytes:
    """A message's key: six bytes of time, so that the index over keys grows at its end, then chance."""
    return int(now * 1000).to_bytes(6, "big") + secrets.token_bytes(10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
