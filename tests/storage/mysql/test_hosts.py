"""Tests of several hosts in MySQL's URL, and of servers that are read-only, hang or are away."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest
from pymysql.cursors import Cursor
from structlog.testing import capture_logs
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from models.errors import DatabaseReadOnly, DatabaseRefused, StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mysql.executor import MySQL
from storage.mysql.hosts import AVOID_FOR, LEAVE_EVERY, Hosts
from storage.mysql.url import Host, address_in
from storage.mysql.users import MySQLUsers
from tests.conftest import StartServer
from tests.storage.conftest import MakeMySQL
from tests.support.clocks import ManualClock
from tests.support.mariadb_process import PASSWORD, USER, MariaDB
from tests.support.patience import PATIENCE
from tests.support.processes import external, stop
from tests.support.redis_process import free_port
from tests.support.sockets import until


@contextmanager
def read_only(server: MariaDB) -> Iterator[None]:
    """Make a server read-only."""
    server.run("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        server.run("SET GLOBAL read_only = 0")


@pytest.fixture
def servers(first: MariaDB, second: MariaDB) -> tuple[MariaDB, MariaDB]:
    """Two servers, each with a table of one row."""
    for server in (first, second):
        server.run("CREATE OR REPLACE TABLE tandem.counted (value int)")
        server.run("INSERT INTO tandem.counted VALUES (0)")
    return first, second


def url_of(*ports: int, password: str = PASSWORD) -> str:
    """Return the URL of these ports on this machine."""
    return f"mysql://{USER}:{password}@{','.join(f'localhost:{port}' for port in ports)}/tandem"


def port_in(cursor: Cursor) -> int:
    """Return the port of the cursor's server."""
    cursor.execute("SELECT @@port")
    return int(cursor.fetchone()[0])


def count(cursor: Cursor) -> int:
    """Write, and return the port of the server that was written to."""
    cursor.execute("UPDATE counted SET value = value + 1")
    return port_in(cursor)


def counted(server: MariaDB) -> int:
    """Return how often `count` was committed at a server."""
    with server.admin.cursor() as cursor:
        cursor.execute("SELECT value FROM tandem.counted")
        return int(cursor.fetchone()[0])


def connected(server: MariaDB) -> int:
    """Return how many connections the user has to a server."""
    with server.admin.cursor() as cursor:
        return int(cursor.execute("SELECT 1 FROM information_schema.processlist WHERE user = %s", (USER,)))


def events(logs: list[MutableMapping[str, Any]]) -> list[str]:
    return [line["event"] for line in logs]


async def test_the_first_host_is_used(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """The hosts are tried in the URL's order, so nothing is logged if the first one is used."""
    with capture_logs() as logs:
        for one, other in (servers, servers[::-1]):
            mysql = make_mysql(url_of(one.port, other.port), timeout=PATIENCE)
            assert await mysql.run(port_in) == one.port
    assert logs == []


async def test_a_first_host_that_is_away(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """If the first host is away, the second is used for reads and changes, which is logged once with the reason."""
    away, server = free_port(), servers[1]
    mysql = make_mysql(url_of(away, server.port), timeout=PATIENCE, threads=4)
    with capture_logs() as logs:
        assert set(await asyncio.gather(*(mysql.run(port_in) for _ in range(20)))) == {server.port}
        assert await mysql.change(count) == server.port
        await mysql.ping()
    assert events(logs) == ["mysql_host_changed"]
    assert logs[0]["host"] == f"localhost:{server.port}"
    assert f"localhost:{away}: " in logs[0]["reason"]


async def test_a_first_host_that_is_read_only(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """If the first host is read-only, the second is used, for reads too."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE)
    with read_only(first), capture_logs() as logs:
        assert await mysql.run(port_in) == second.port
        assert await mysql.change(count) == second.port
        await until(lambda: not connected(first))  # the connection that found that out is closed
    assert events(logs) == ["mysql_host_changed"]
    assert "the server is read-only: read_only" in logs[0]["reason"]


async def test_a_server_that_becomes_read_only(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """A change that a server refuses as read-only is made at the next host, and all threads go there."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE, threads=3)
    await asyncio.gather(*(mysql.run(port_in) for _ in range(30)))
    with capture_logs() as logs, read_only(first):
        assert await mysql.change(count) == second.port
        assert set(await asyncio.gather(*(mysql.run(port_in) for _ in range(30)))) == {second.port}
    assert (counted(first), counted(second)) == (0, 1)
    assert events(logs) == ["mysql_host_changed"]
    assert f"localhost:{first.port}: (1290, " in logs[0]["reason"]


async def test_a_check_also_finds_a_server_that_has_become_read_only(
    servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL
) -> None:
    """`ping` goes to the next host, so that a failover is found without a change."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE, threads=1)
    await mysql.ping()
    with read_only(first):
        await mysql.ping()
        assert await mysql.run(port_in) == second.port


async def test_no_host_takes_writes(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """If all hosts are read-only, reads go on, changes and checks fail, and the log has one line until that ends."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE)
    with capture_logs() as logs:
        with read_only(first), read_only(second):
            for _ in range(3):
                assert await mysql.run(port_in) in (first.port, second.port)
                with pytest.raises(DatabaseReadOnly, match="read-only"):
                    await mysql.change(count)
                with pytest.raises(DatabaseReadOnly, match="read-only"):
                    await mysql.ping()
        await mysql.change(count)
        await mysql.ping()
    assert [event for event in events(logs) if event != "mysql_host_changed"] == ["read_only_began", "read_only_ended"]
    assert counted(first) + counted(second) == 1


async def test_a_single_host_that_is_read_only(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """A single host is connected to again, since its name may lead to another server now."""
    mysql = make_mysql(url_of(servers[1].port), timeout=PATIENCE, threads=1)

    def connection_id(cursor: Cursor) -> int:
        cursor.execute("SELECT CONNECTION_ID()")
        return int(cursor.fetchone()[0])

    before = await mysql.run(connection_id)
    with read_only(servers[1]), pytest.raises(DatabaseReadOnly):
        await mysql.change(count)
    assert await mysql.run(connection_id) != before
    assert await mysql.change(count) == servers[1].port


async def test_a_commit_that_is_refused(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """A change that is refused at its commit was not made, and is not repeated."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE)
    tried = 0

    def work(cursor: Cursor) -> None:
        nonlocal tried
        tried += 1
        count(cursor)
        first.run("SET GLOBAL read_only = 1")

    try:
        with pytest.raises(DatabaseReadOnly):
            await mysql.change(work)
    finally:
        first.run("SET GLOBAL read_only = 0")
    assert (tried, counted(first), counted(second)) == (1, 0, 0)
    assert await mysql.run(port_in) == second.port


@pytest.mark.parametrize("call", [MySQL.run, MySQL.change])
async def test_a_node_that_is_not_ready(
    call: Callable[..., object], servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL
) -> None:
    """A node of a Galera cluster that is not ready is left for another one, by reads too."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=PATIENCE)

    def work(cursor: Cursor) -> int:
        port = port_in(cursor)
        if port == first.port:
            cursor.execute("SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1047, MESSAGE_TEXT = 'WSREP'")
        return port

    assert await call(mysql, work) == second.port


async def test_a_server_that_hangs(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """Reads go on at the second host when the first one answers nothing any more."""
    first, second = servers
    mysql = make_mysql(url_of(first.port, second.port), timeout=1, threads=1)
    await mysql.ping()
    stop(first.process.pid)
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    port = await mysql.run(port_in)
                except StorageUnavailable:
                    continue
                break
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert port == second.port


async def test_no_host_can_be_used(servers: tuple[MariaDB, MariaDB], make_mysql: MakeMySQL) -> None:
    """The error names each host with its reason. It is permanent only if each host would refuse again."""
    away, port = free_port(), servers[1].port
    for kind, ports in ((StorageUnavailable, (away, port)), (DatabaseRefused, (servers[0].port, port))):
        with pytest.raises(StorageUnavailable) as caught:
            await make_mysql(url_of(*ports, password="wrong-word"), timeout=PATIENCE).ping()
        assert type(caught.value) is kind
        assert all(f"localhost:{each}: " in str(caught.value) for each in ports)
        assert "Access denied" in str(caught.value)
        assert "wrong-word" not in str(caught.value)


def test_a_host_that_was_away_is_tried_last_for_a_while(servers: tuple[MariaDB, MariaDB]) -> None:
    """A host that could not be used does not delay each connection, and is tried first again later."""
    clock, ports = ManualClock(), [server.port for server in servers]
    hosts = Hosts(address_in(url_of(*ports), PATIENCE), clock)
    assert hosts.connect().server.port == ports[0]
    hosts.avoid(Host("localhost", ports[0]), "timed out")
    assert hosts.connect().server.port == ports[1]
    clock.now = AVOID_FOR
    assert hosts.connect().server.port == ports[0]


def test_the_reasons_for_another_host(servers: tuple[MariaDB, MariaDB]) -> None:
    """The log names the hosts that are not used at the moment, each with its last reason."""
    one, other = (Host("localhost", server.port) for server in servers)
    hosts = Hosts(address_in(url_of(one.port, other.port), PATIENCE), ManualClock())
    with capture_logs() as logs:
        for host, reason in ((one, "timed out"), (other, "read-only")):
            hosts.avoid(host, reason)
            hosts.connect()
    assert [(line["host"], line["reason"]) for line in logs] == [
        (str(other), f"{one}: timed out"),
        (str(one), f"{other}: read-only"),
    ]


def test_connections_are_replaced_once_in_a_while(servers: tuple[MariaDB, MariaDB]) -> None:
    """A server that refuses is left by all connections that were made before, and not again at once."""
    clock = ManualClock()
    hosts = Hosts(address_in(url_of(servers[0].port), PATIENCE), clock)
    first, second = hosts.connect(), hosts.connect()
    assert hosts.leave(first, "read-only")
    assert not hosts.is_current(second)
    assert hosts.leave(second, "read-only")  # another connection is made before the next attempt
    third = hosts.connect()
    assert not hosts.leave(third, "read-only")
    assert hosts.is_current(third)
    clock.now = LEAVE_EVERY
    assert hosts.leave(third, "read-only")


async def test_a_server_whose_mysql_is_read_only(
    second: MariaDB,
    make_mysql: MakeMySQL,
    start_server: StartServer,
    addresses: Addresses,
    database: pymysql.Connection,
) -> None:
    """While MySQL is read-only, users are found, registering gets 503, and the server is not ready."""
    url = second.url()
    await MySQLUsers(make_mysql(url, timeout=PATIENCE), cache_size=0, cache_ttl=1).prepare(with_article_users=True)
    # Other tests store messages of users with large ids, which a new user table would give out again.
    name = f"--mongo-database=hosts_{secrets.token_hex(4)}"
    port = start_server(*external(addresses._replace(mysql=url)), name).ready()

    async def ask(path: str, method: str = "GET", **fields: str) -> tuple[int, dict[str, Any]]:
        body = json.dumps(fields) if fields else None
        request = HTTPRequest(
            f"http://localhost:{port}{path}",
            method,
            {"Content-Type": "application/json"},
            body,
            request_timeout=PATIENCE,
        )
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        return answer.code, json.loads(answer.body)

    async def register(name: str) -> tuple[int, dict[str, Any]]:
        return await ask("/user/register", "POST", user_name=name, nick_name="Alice", password="password")

    with read_only(second):
        status, answer = await ask("/readyz")
        assert (status, answer["error"]) == (503, "mysql (it takes no writes)")
        status, answer = await register("alice1")
        assert (status, answer["error"]) == (503, "mysql is unavailable, please retry")
        assert (await ask("/session?uid=1"))[0] == 200
    assert (await register("alice1"))[0] == 200
    assert (await ask("/readyz"))[0] == 200
