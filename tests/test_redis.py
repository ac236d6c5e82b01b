"""Tests of a server on a Redis of the operator's own: one that cannot be used, rights, a password and TLS."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pymysql
import pytest
import redis as driver
from structlog.testing import capture_logs
from tornado.ioloop import IOLoop

from common.tasks import end
from config import Settings
from server import Server, serving
from storage.embedded.supervisor import Addresses
from storage.redis.client import rule_of
from tests.conftest import Ask, Connect, Connect2, StartServer, TokenOf
from tests.support.certificates import Authority
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE
from tests.support.processes import external
from tests.support.redis_process import free_port, redis_process, redis_with_tls
from tests.support.sockets import Client2, RawSocket, until, websocket

People = Callable[[int], list[int]]

PREFIX = "tandem"  # the default of --redis-prefix
RULE = rule_of(PREFIX)
RIGHTS = {part[1:] for part in RULE.split() if part.startswith("+")}
CHECKED = Path("storage/redis/rights.lua").read_text("utf-8")[:20]  # how the script of the check begins
OPERATIONS = Path("docs/operations.md").read_text("utf-8")


class OwnRedis(NamedTuple):
    """A redis-server: its socket, the URL of the user `chat`, and a client that may do everything."""

    path: Path
    url: str
    admin: driver.Redis

    def allow(self, *rules: str) -> None:
        """Give the user exactly these rights."""
        self.admin.execute_command("ACL", "SETUSER", "chat", "reset", "on", ">secret", *rules)


def own(path: Path, url: str = "") -> OwnRedis:
    admin = driver.Redis(unix_socket_path=str(path), decode_responses=True)
    found = OwnRedis(path, url or f"unix://chat:secret@{quote(str(path))}", admin)
    found.allow(*RULE.split())
    return found


@pytest.fixture(params=["unix"])
def own_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OwnRedis]:
    """A redis-server of the test's own, on a unix socket or over TLS with certificates on both sides."""
    if request.param == "unix":
        with redis_process(tmp_path, "own") as path:
            found = own(path)
            yield found
            found.admin.close()
        return
    authority = Authority(tmp_path, "authority")
    certfile, keyfile = authority.issue("tandem")
    options = f"ssl_ca_certs={authority.file}&ssl_certfile={certfile}&ssl_keyfile={keyfile}"
    with redis_with_tls(tmp_path, authority) as (path, port):
        found = own(path, f"rediss://chat:secret@localhost:{port}/0?{options}")
        yield found
        found.admin.close()


# At start


def replica(redis: OwnRedis) -> None:
    redis.admin.replicaof("127.0.0.1", "1")


def writable(redis: OwnRedis) -> None:
    redis.admin.replicaof("NO", "ONE")


def full(redis: OwnRedis) -> None:
    redis.admin.config_set("maxmemory", "1000")


def unlimited(redis: OwnRedis) -> None:
    redis.admin.config_set("maxmemory", "0")


def lonely(redis: OwnRedis) -> None:
    redis.admin.config_set("min-replicas-to-write", "1")


def independent(redis: OwnRedis) -> None:
    redis.admin.config_set("min-replicas-to-write", "0")


def without(*rights: str) -> Callable[[OwnRedis], None]:
    return lambda redis: redis.allow(*(part for part in RULE.split() if part not in rights))


def allowed(redis: OwnRedis) -> None:
    redis.allow(*RULE.split())


UNUSABLE = {
    "a replica": (replica, ["this is a replica", "set --redis to its primary, which is at 127.0.0.1:1"]),
    "full": (full, ["its memory is full", "raise its maxmemory"]),
    "without replicas": (lonely, ["it has too few replicas", "min-replicas-to-write"]),
    "without keys": (without("~tandem:*"), ["missing in its ACL: ~tandem:", "this rule is enough: ~tandem:"]),
    "without commands": (without("+set", "+getdel"), ["(missing in its ACL: +getdel +set); ", " +get +set +getdel "]),
    "without channels": (without("&tandem:*"), ["missing in its ACL: &tandem:", "this rule is enough: ~tandem:"]),
    "without anything": (lambda redis: redis.allow(), ["'info' command", f"this rule is enough: {RULE}"]),
    "another password": (lambda redis: redis.allow("resetpass"), ["it refuses the user or the password"]),
}


def refusal(start_server: StartServer, addresses: Addresses, url: str) -> str:
    """Return the line with which a server refuses to start on this Redis."""
    server = start_server(*external(addresses._replace(redis=url)))
    status, errors = server.failed()
    assert (status, "Traceback" in errors, "secret" in errors) == (1, False, False)
    (line,) = [line for line in errors.splitlines() if "redis" in line]
    return line


@pytest.mark.parametrize(("spoil", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_redis_that_cannot_be_used(
    start_server: StartServer,
    addresses: Addresses,
    database: pymysql.Connection,
    own_redis: OwnRedis,
    spoil: Callable[[OwnRedis], None],
    said: list[str],
) -> None:
    """The server does not start, and one line says which Redis, without the password, what is wrong and what to do."""
    spoil(own_redis)
    line = refusal(start_server, addresses, own_redis.url)
    assert line.startswith(f"server.py: cannot start: redis at unix://chat:***@{quote(str(own_redis.path))}: ")
    for part in said:
        assert part in line


def test_a_node_of_a_cluster(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection, tmp_path: Path
) -> None:
    """The server does not start on a node of a cluster."""
    ports = ("--port", str(free_port()), "--cluster-port", str(free_port()))
    with redis_process(tmp_path, "node", "--cluster-enabled", "yes", "--bind", "127.0.0.1", *ports) as path:
        node = own(path)
        line = refusal(start_server, addresses, node.url)
        node.admin.close()
    assert "this is a node of a Redis Cluster, which is not supported; use a single primary" in line


# While it runs


@pytest.fixture
def flags() -> list[str]:
    return ["--strangers-per-hour=1", "--sign-ins-per-account=2"]


@pytest.fixture
def http_server(
    io_loop: IOLoop,
    settings: Settings,
    addresses: Addresses,
    database: pymysql.Connection,
    clock: Clock,
    own_redis: OwnRedis,
) -> Iterator[Server]:
    """A server on the test's own Redis."""
    stack, there = AsyncExitStack(), addresses._replace(redis=own_redis.url)
    server = io_loop.run_sync(
        lambda: stack.enter_async_context(serving(settings, there, article_users=False, clock=clock))
    )
    yield server
    io_loop.run_sync(stack.aclose)


LATER = {
    "a replica": (replica, writable, "it is a replica and refuses writes", ("read_only_began", "read_only_ended"), 503),
    "without replicas": (
        lonely, independent, "it has too few replicas and refuses writes", ("read_only_began", "read_only_ended"), 503,
    ),
    "full": (full, unlimited, "its memory is full", ("database_refused", "refusal_ended"), 500),
    "without commands": (
        without("+set"), allowed, "its user lacks rights", ("database_refused", "refusal_ended"), 500,
    ),
    "without channels": (
        without("&tandem:*"), allowed, "its user lacks rights", ("database_refused", "refusal_ended"), 200,
    ),
    "without subscriptions": (
        without("+subscribe"), allowed, "its user lacks rights", ("database_refused", "refusal_ended"), 200,
    ),
}  # fmt: skip


async def ready(port: int) -> tuple[int, str, str]:
    """Return the status of `/readyz`, what it says of Redis, and its error."""
    raw = await RawSocket.open(port)
    status, body = await raw.request("/readyz")
    raw.abort()
    answer = json.loads(body)
    assert (answer["data"]["mongodb"], answer["data"]["mysql"]) == ("ok", "ok")
    return status, answer["data"]["redis"], answer["error"]


async def becomes(port: int, expected: tuple[int, str, str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await ready(port) != expected:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("spoil", "repair", "why", "events", "registering"), LATER.values(), ids=LATER)
async def test_a_redis_that_cannot_be_used_any_more(
    http_server: Server,
    own_redis: OwnRedis,
    connect: Connect,
    ask: Ask,
    people: People,
    spoil: Callable[[OwnRedis], None],
    repair: Callable[[OwnRedis], None],
    why: str,
    events: tuple[str, str],
    registering: int,
) -> None:
    """`/readyz` names Redis and why, the log has it once and its end once, and the server recovers by itself.

    Meanwhile open conversations go on, and what needs Redis is answered as docs/design.md says.
    """
    one, two, stranger, other = people(4)
    friends = await connect(one, two), await connect(two, one)
    for sender, recipient in (friends, friends[::-1], friends):
        await sender.say("hello", 50004)
        await recipient.receive(50001)
    unknown = await connect(stranger, other)
    port = http_server.port
    await becomes(port, (200, "ok", ""))

    async def register(name: str) -> int:
        account = {"user_name": f"{name}{one}", "nick_name": name, "password": "password"}
        return (await ask("POST", "/user/register", body=account)).status

    with capture_logs() as logs:
        spoil(own_redis)
        if "+subscribe" not in own_redis.admin.acl_getuser("chat")["commands"]:  # the subscription itself goes on
            own_redis.admin.client_kill_filter(_type="pubsub")
        await becomes(port, (503, "unavailable", f"redis ({why})"))
        for _ in range(3):
            assert (await ready(port))[0] == 503
        for sender, recipient in (friends, friends[::-1]):
            await sender.say("still here", 50004)
            await recipient.receive(50001, "still here")
        await unknown.say("hello?", 50005 if registering == 200 else 40001)
        assert await register("during") == registering
        repair(own_redis)
        await becomes(port, (200, "ok", ""))
        await unknown.say("hello again", 50005)
        assert await register("after") == 200
        await until(lambda: http_server.stores.broker.single_process)
    assert tuple(line["event"] for line in logs if line.get("database") == "redis") == events
    assert "request_failed" not in {line["event"] for line in logs}


# Rights


class Seen:
    """The commands that clients or their scripts have sent, as ACL rules name them, without the check of all rights."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._checking = False

    def line(self, line: str) -> None:
        """Take one line of MONITOR."""
        found = re.match(r'\+\S+ \[\d+ (\S+)\] "([^"]+)"(?: "([^"]*)")?(?: "([^"]{0,20}))?', line)
        if found is None:
            return
        source, name, first, second = found[1], found[2].lower(), (found[3] or "").lower(), found[4] or ""
        if source != "lua":
            self._checking = (name == "evalsha" and first == self._check) or second == CHECKED
        if self._checking:
            return
        self.names.add(f"{name}|{first}" if name in ("script", "pubsub") else name)

    _check = driver.Redis().register_script(Path("storage/redis/rights.lua").read_text("utf-8")).sha


@asynccontextmanager
async def monitored(redis: OwnRedis) -> AsyncIterator[Seen]:
    """Watch which commands Redis gets."""
    seen = Seen()
    reader, writer = await asyncio.open_unix_connection(str(redis.path), limit=2**24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"

    async def watch() -> None:
        while line := await reader.readline():
            seen.line(line.decode())

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        await end(watching)
        writer.close()
        await writer.wait_closed()


def test_the_documented_rights() -> None:
    """docs/operations.md has exactly the rule that the server names."""
    assert f"ACL SETUSER chat on >secret {RULE}" in " ".join(OPERATIONS.split())


@pytest.mark.parametrize("own_redis", ["unix", "tls"], indirect=True)
async def test_the_rights_that_are_enough(
    http_server: Server,
    own_redis: OwnRedis,
    start_server: StartServer,
    addresses: Addresses,
    flags: list[str],
    connect: Connect,
    connect2: Connect2,
    ask: Ask,
    token_of: TokenOf,
    people: People,
) -> None:
    """With the documented rights all works that needs Redis, nothing is denied, and each right is used."""
    one, two, stranger, another, *_ = users = people(5)
    async with monitored(own_redis) as seen:
        other = start_server(*flags, *external(addresses._replace(redis=own_redis.url)))
        other.ready()
        await until(lambda: not http_server.stores.broker.single_process)
        # Messages, also between processes; the limit rule; the quota of strangers, whose refusal gives a count back.
        here, there = await connect2(one, two), await Client2.open(other.port, two, one)
        for sender, recipient in ((here, there), (there, here)) * 2:
            await sender.say("hello", 50004)
            while (await recipient.read())["code"] != 50001:
                pass
        unknown = await connect(stranger, another)
        for code in (50005, 50005, 50005, 50006):
            await unknown.say("hello?", code)
        await (await connect(stranger, users[-1])).say("hello?", 50006)
        # Accounts: registering, signing in, limits on attempts, tickets.
        account = {"user_name": f"owner{one}", "nick_name": "own", "password": "password"}
        assert (await ask("POST", "/user/register", body=account)).status == 200
        assert (await ask("POST", "/user/login", body=account)).status == 200
        wrong = account | {"password": "wrong"}
        assert [(await ask("POST", "/user/login", body=wrong)).status for _ in range(3)] == [401, 401, 429]
        for key in own_redis.admin.scan_iter(f"{PREFIX}:*:attempts:*"):
            own_redis.admin.pexpire(key, 60_000)  # as after some minutes: the window becomes the previous one
        assert (await ask("POST", "/user/login", body=account)).status in (200, 429)
        ticket = (await ask("POST", "/ws/ticket", token=await token_of(one))).data["ticket"]
        (await websocket(http_server.port, f"/ws?v=2&ticket={ticket}")).close()
        for client in (here, there, unknown):
            client.close()
        await becomes(http_server.port, (200, "ok", ""))
        try:
            await until(lambda: seen.names >= RIGHTS)
        except TimeoutError:
            assert RIGHTS - seen.names == set()
        assert other.end() == 0
    assert own_redis.admin.acl_log() == []
