"""Fixtures for all tests: real databases once for the session, a real server and real sockets for each test.

The databases are embedded ones in a temporary directory, so that any number of runs can be in progress. Each test
uses user ids of its own, and with them its own conversations.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pymysql
import pytest
from bson.codec_options import CodecOptions
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern
from redis.asyncio import Redis
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.ioloop import IOLoop

from config import Settings, load
from handlers.websocket.handler import ChatSocket
from server import Server, serving
from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from storage.mongo.messages import MongoMessages, mongo_client
from storage.mysql.schema import migrate, seed
from storage.redis.client import RedisServer
from storage.redis.counters import RedisCounters
from storage.redis.quotas import RedisQuotas
from tests.support.clocks import Clock
from tests.support.database import make_users, mysql_connection, redis_client
from tests.support.patience import PATIENCE, PATIENT, TEST_TIME
from tests.support.processes import FRAMES, TOKEN_SECRET, ServerProcess, embedded_databases
from tests.support.sockets import Answer, Client, Client2, until

Ask = Callable[..., Awaitable[Answer]]

# On a busy machine any example may take long.
hypothesis_settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("busy")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives a run temporary directories that no other run on this machine removes, as pytest's numbered ones are."""
    if config.option.basetemp is None:  # a worker is told its own
        directory = tempfile.TemporaryDirectory(prefix="tandem-test-")
        config.add_cleanup(directory.cleanup)
        config.option.basetemp = str(Path(directory.name) / "pytest")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ends a run that is told to end after the test that runs; told again, at once; with all that it started."""

    def stop(number: int, frame: FrameType | None) -> None:
        if session.shouldstop:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt
        session.shouldstop = "told to end"

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedDatabases]:
    """Start the three databases."""
    with embedded_databases() as private:
        yield private


@pytest.fixture(scope="session")
def addresses(embedded: EmbeddedDatabases) -> Addresses:
    """Return the addresses of the session's databases."""
    return embedded.addresses


@pytest.fixture(scope="session")
def database(addresses: Addresses) -> Iterator[pymysql.Connection]:
    """A connection to the user table, which has been set up."""
    with mysql_connection(addresses.mysql) as connection, connection.cursor() as cursor:
        migrate(cursor)
        seed(cursor)
        yield connection


@pytest.fixture
def people(database: pymysql.Connection) -> Callable[[int], list[int]]:
    """Makes users and returns their ids."""

    return lambda count: make_users(database, count)


@pytest.fixture
def pair(people: Callable[[int], list[int]]) -> tuple[int, int]:
    """Two users who have never talked."""
    one, other = people(2)
    return one, other


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """An event loop for the test; nothing it started outlives it. Stands in for pytest-tornado's deprecated way."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    io_loop = IOLoop.current()
    yield io_loop
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    io_loop.close(all_fds=True)


@pytest.fixture
def flags() -> list[str]:
    """The server's flags; a test module overrides it for servers of another kind."""
    return []


@pytest.fixture
def settings(flags: list[str]) -> Settings:
    """The server's settings, on a free port; no limit on signing up or in, and a user is soon offline."""
    usual = ["--registrations-per-address=1000000", "--sign-ins-per-address=1000000", "--offline-after=0.2"]
    return load(
        ["--port=0", f"--frames={FRAMES}", f"--token-secret={TOKEN_SECRET}", *PATIENT, *usual, *flags], environ={}
    )


@pytest.fixture
def clock() -> Clock:
    """The server's clock."""
    return Clock()


@pytest.fixture
def http_server(
    io_loop: IOLoop, settings: Settings, addresses: Addresses, database: pymysql.Connection, clock: Clock
) -> Iterator[Server]:
    """Start a server on the session's databases. It replaces pytest-tornado's, since this one composes itself."""
    stack = AsyncExitStack()
    server = io_loop.run_sync(
        lambda: stack.enter_async_context(serving(settings, addresses, article_users=False, clock=clock))
    )
    yield server
    io_loop.run_sync(stack.aclose)


@pytest.fixture
def http_port(http_server: Server) -> int:
    """The server's port."""
    return http_server.port


@pytest.fixture
def base_url(http_server: Server) -> str:
    """The server's address without the last slash."""
    return http_server.url.rstrip("/")


TokenOf = Callable[[int], Awaitable[str]]


@pytest.fixture
def token_of(http_server: Server) -> TokenOf:
    """Issues tokens without a password."""

    async def issue(user: int) -> str:
        return http_server.access.issue((await http_server.stores.users.active_now([user]))[user])

    return issue


@pytest.fixture
def ask(io_loop: IOLoop, http_server: Server) -> Iterator[Ask]:
    """Asks the server over HTTP."""
    client = AsyncHTTPClient(force_instance=True, max_body_size=2**30)

    async def request(method: str, path: str, *, token: str = "", body: Any = None, **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            names["Authorization"] = f"Bearer {token}"
        if body is not None:
            names.setdefault("Content-Type", "application/json")
        answer = await client.fetch(
            HTTPRequest(
                http_server.url.rstrip("/") + path,
                method,
                names,
                body=None if body is None else body if isinstance(body, str) else json.dumps(body),
                allow_nonstandard_methods=True,
                validate_cert=False,
                follow_redirects=False,
                request_timeout=2 * PATIENCE,  # passwords are checked with the lowest priority
            ),
            raise_error=False,
        )
        return Answer(answer.code, answer.headers, answer.body or b"")

    yield request
    client.close()


@pytest.fixture
def messages(io_loop: IOLoop, addresses: Addresses, clock: Clock) -> Iterator[MongoMessages]:
    """The stored messages, without a server."""
    client = mongo_client(addresses.mongo, timeout=PATIENCE)
    store = MongoMessages(client, "tandem", clock=clock, max_batch=100, max_concurrent=4, max_blocks=3)
    io_loop.run_sync(store.prepare)
    yield store
    io_loop.run_sync(store.close)
    client.close()


@pytest.fixture
def mongo(io_loop: IOLoop, addresses: Addresses) -> Iterator[Any]:
    """The database of the messages, for what a test stores or reads past the server."""
    client = mongo_client(addresses.mongo, timeout=PATIENCE)
    yield client.get_database(
        "tandem",
        codec_options=CodecOptions(tz_aware=True),
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern("majority", j=True),
    )
    client.close()


@pytest.fixture
def redis(io_loop: IOLoop, addresses: Addresses) -> Iterator[Redis]:
    """A client of Redis, for what a test stores or reads past the server."""
    client = redis_client(addresses.redis)
    yield client
    io_loop.run_sync(client.aclose)


@pytest.fixture
def counters(io_loop: IOLoop, addresses: Addresses) -> Iterator[RedisCounters]:
    """The limit counters, without a server."""
    redis = RedisServer(addresses.redis, timeout=PATIENCE, connections=8)
    store = RedisCounters(redis, "tandem", RedisQuotas(redis, "tandem", strangers=0, size=0))
    yield store
    io_loop.run_sync(store.close)
    io_loop.run_sync(redis.close)


StartServer = Callable[..., ServerProcess]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers in processes of their own, as ServerProcess does; none outlives the test."""
    servers: list[ServerProcess] = []

    def start(*flags: str, **options: Any) -> ServerProcess:
        servers.append(ServerProcess(*flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


Connect = Callable[..., Awaitable[Client]]
Connect2 = Callable[..., Awaitable[Client2]]


@pytest.fixture
def opened(io_loop: IOLoop, http_server: Server) -> Iterator[list[Client | Client2]]:
    """The sockets of the test; closed after it, and waited for until the registry is empty."""
    clients: list[Client | Client2] = []
    yield clients

    async def close_all() -> None:
        for client in clients:
            client.close()
        await until(lambda: ChatSocket.hub.count == 0)

    io_loop.run_sync(close_all)


@pytest.fixture
def connect(http_server: Server, opened: list[Client | Client2]) -> Connect:
    """Opens sockets of protocol v1, past their greeting."""

    async def open_socket(uid: int, to: int, **query: Any) -> Client:
        client = await Client.open(http_server.port, uid, to, **query)
        opened.append(client)
        await client.receive(50002)
        return client

    return open_socket


@pytest.fixture
def connect2(http_server: Server, opened: list[Client | Client2]) -> Connect2:
    """Opens sockets of protocol v2, past their greeting."""

    async def open_socket(uid: int, to: int | None = None, **query: Any) -> Client2:
        client = await Client2.open(http_server.port, uid, to, **query)
        opened.append(client)
        # Who came online is looked up behind the greeting, and would be told in the middle of what the test does.
        await until(lambda: http_server.chat.presence.idle)
        return client

    return open_socket


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs coroutine tests on the event loop without a mark on each; one that is marked with a timeout ends by that."""
    for item in items:
        if asyncio.iscoroutinefunction(getattr(item, "function", None)):
            marked = item.get_closest_marker("timeout")
            seconds = marked.args[0] if marked else TEST_TIME
            item.add_marker(pytest.mark.gen_test(timeout=seconds), append=False)
