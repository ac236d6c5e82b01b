"""Tests of the server as its operator sees it: starting, killing, restarting and draining."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pymysql
import pytest
import redis
from tornado.ioloop import IOLoop

from config.version import VERSION
from storage.embedded.supervisor import Addresses
from storage.redis.attempts import digest_of
from tests.conftest import StartServer
from tests.support.database import mysql_connection
from tests.support.processes import ROOT, external
from tests.support.sockets import Client, RawSocket, until


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory with a name that is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    yield path
    shutil.rmtree(path)


Greet = Callable[[int, int, int], Awaitable[Client]]


@pytest.fixture
def greeted(io_loop: IOLoop) -> Iterator[Greet]:
    """Open sockets to a server process and read their greeting. They are closed after the test."""
    opened: list[Client] = []

    async def greet(port: int, uid: int, to: int) -> Client:
        client = await Client.open(port, uid, to)
        opened.append(client)
        await client.receive(50002)
        return client

    async def close_all() -> None:
        for client in opened:
            client.close()

    yield greet
    io_loop.run_sync(close_all)


async def history(client: Client, count: int) -> list[str]:
    await client.send(2)
    return [await client.receive(50002) for _ in range(count)]


async def test_the_embedded_default(start_server: StartServer, data_dir: Path, greeted: Greet) -> None:
    """A new data directory has users 1 and 2, a second server on it is refused, and kill -9 loses no message."""
    first = start_server(f"--data-dir={data_dir}")
    port = first.ready()
    second = start_server(f"--data-dir={data_dir}")
    status, errors = second.failed()
    assert (status, f"{data_dir} is in use by another server" in errors) == (1, True)

    one, two = await greeted(port, 1, 2), await greeted(port, 2, 1)
    await two.say("hello", 50004)
    await one.receive(50001)
    acknowledged = 0
    for number in range(50):
        await one.send(1, str(number))
    for _ in range(20):
        await one.receive(50004)
        acknowledged += 1
    first.signal(signal.SIGKILL)
    first.failed()

    third = start_server(f"--data-dir={data_dir}")
    port = third.ready()
    two = await greeted(port, 2, 1)
    await two.send(2)
    newest = int((await history(two, 10))[-1])
    assert newest >= acknowledged - 1
    page = [await two.receive(50002) for _ in range(10)]
    assert [str(n) for n in range(newest - 9, newest + 1)] == page
    assert third.end() == 0


async def test_drain_under_load(
    start_server: StartServer, addresses: Addresses, pair: tuple[int, int], greeted: Greet
) -> None:
    """After SIGTERM sockets get 50003 and 1001, the server exits with 0, and each acknowledged message is stored."""
    server = start_server(*external(addresses))
    port = server.ready()
    one, two = await greeted(port, *pair), await greeted(port, *reversed(pair))
    await two.say("hello", 50004)
    await one.receive(50001)
    told = []

    async def flood() -> None:
        for number in range(100_000):
            await one.send(1, str(number))

    async def listen() -> None:
        while (text := await one.read()) is not None:
            told.append(json.loads(text)["code"])
            if len(told) == 100:
                server.signal(signal.SIGTERM)

    flooding = asyncio.ensure_future(flood())
    await listen()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    assert (one.connection.close_code, told[-1]) == (1001, 50003)
    assert server.failed()[0] == 0

    again = start_server(*external(addresses))
    two = await greeted(again.ready(), *reversed(pair))
    await two.send(3)
    newest = -1
    await two.send(2)
    while newest < told.count(50004) - 1:
        newest = int(await two.receive(50002))
    assert again.end() == 0


async def test_a_second_sigterm_ends_at_once(
    start_server: StartServer, addresses: Addresses, pair: tuple[int, int]
) -> None:
    """A second SIGTERM ends the server without draining."""
    server = start_server(*external(addresses))
    port = server.ready()
    raw = await RawSocket.upgraded(port, *pair)  # never answers the closing
    server.signal(signal.SIGTERM)
    opcode, _ = await raw.frame()
    assert opcode == 1
    server.signal(signal.SIGTERM)
    assert server.failed()[0] == 1
    raw.abort()


def test_an_external_database_gets_no_users(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """The article's two users are not added to external databases."""
    with database.cursor() as cursor:
        cursor.execute("CREATE DATABASE empty CHARACTER SET utf8mb4")
    mysql = addresses.mysql.replace("/tandem?", "/empty?")
    # With another MongoDB database as well, since messages of users that are not in the table are refused.
    server = start_server(*external(addresses._replace(mysql=mysql)), "--mongo-database=empty")
    server.ready()
    assert server.end() == 0
    with mysql_connection(addresses.mysql, "empty") as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT id FROM `user`") == 0
        cursor.execute("DROP DATABASE empty")


@pytest.mark.parametrize("name", ["mongo", "redis", "mysql"])
def test_an_unavailable_database_at_start(start_server: StartServer, name: str, addresses: Addresses) -> None:
    """The error about a database that is unavailable at start names it and its address without the password."""
    urls = addresses._asdict() | {
        name: {
            "mongo": "mongodb://user:secret@127.0.0.1:9/?replicaSet=rs0",
            "redis": "redis://:secret@127.0.0.1:9/0",
            "mysql": "mysql://user:secret@127.0.0.1:9/tandem",
        }[name]
    }
    server = start_server(*external(Addresses(**urls)), "--engine-timeout=1")
    status, errors = server.failed()
    assert status == 1
    assert "cannot start" in errors
    assert "127.0.0.1:9" in errors
    assert {"mongo": "mongodb", "redis": "redis", "mysql": "mysql"}[name] in errors
    assert "secret" not in errors
    assert "Traceback" not in errors


def test_a_port_in_use(start_server: StartServer, data_dir: Path) -> None:
    """The error about a port in use names the port and the flag, before a database is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, errors = start_server(f"--data-dir={data_dir}/data", f"--port={port}").failed()
    assert status == 1
    assert f"port {port}" in errors
    assert "--port" in errors
    assert not (data_dir / "data").exists()


@pytest.mark.parametrize("flag", ["--port=x", "--nonsense", "--mongo=mongodb://x"])
def test_flags_that_cannot_be_used(flag: str) -> None:
    """Invalid flags give status 2 and one line."""
    done = subprocess.run([sys.executable, "server.py", flag], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("name", "url"), [("--mongo", "mongodb://"), ("--redis", "http://x"), ("--mysql", "mysql://x")]
)
def test_invalid_urls(start_server: StartServer, name: str, url: str, addresses: Addresses) -> None:
    """An invalid URL gives status 2 and names the flag."""
    urls = addresses._asdict() | {name.removeprefix("--"): url}
    status, errors = start_server(*external(Addresses(**urls))).failed()
    assert (status, f"server.py: {name}: " in errors) == (2, True)


def test_few_open_files(start_server: StartServer, addresses: Addresses, database: pymysql.Connection) -> None:
    """With few open files the server lowers its default limits and logs it; configured limits are not lowered."""
    limited = ("bash", "-c", 'ulimit -n 1000 && exec "$@"', "limited")
    server = start_server(*external(addresses), wrapper=limited)
    server.ready()
    server.signal(signal.SIGTERM)
    status, errors = server.failed()
    assert (status, "fewer_connections" in errors) == (0, True)
    status, errors = start_server("--max-connections=5000", wrapper=limited).failed()
    assert (status, "--max-connections and" in errors, "Traceback" in errors) == (2, True, False)


async def test_all_processes_are_told_to_end_at_once(start_server: StartServer, data_dir: Path) -> None:
    """If the databases get SIGTERM together with the server, none is restarted, and the status is 0."""
    # Calls to databases that have ended take no longer than this.
    server = start_server(f"--data-dir={data_dir}", "--engine-timeout=3", "--answer-timeout=5")
    server.ready()
    raw = await RawSocket.upgraded(server.port, 1, 2)  # never answers the closing, which is waited for
    children = psutil.Process(server.process.pid).children()
    assert len(children) == 3
    for child in children:
        child.terminate()
    server.signal(signal.SIGTERM)
    status, errors = server.failed()
    assert (status, "engine_died" in errors, "engine_restarted" in errors) == (0, False, False)
    raw.abort()


async def test_a_database_that_keeps_ending(start_server: StartServer, data_dir: Path) -> None:
    """The readiness check says that a database is restarting, how often it has ended, and when it starts again."""
    server = start_server(f"--data-dir={data_dir}")
    port = server.ready()
    (redis_server,) = [p for p in psutil.Process(server.process.pid).children() if "redis" in p.name()]
    (data_dir / "redis/appendonlydir/appendonly.aof.manifest").write_text("nonsense\n")
    redis_server.kill()
    raw = await RawSocket.open(port)

    async def told() -> bool:
        status, body = await raw.request("/readyz")
        if status == 200:
            return False
        answer = json.loads(body)
        assert answer["data"]["mongodb"] == "ok"
        ended = re.search(r"redis \(has ended (\d+) times in a row", answer["error"])
        return answer["data"]["redis"] == "restarting" and ended is not None and int(ended[1]) >= 2

    while not await told():
        await asyncio.sleep(0.05)
    raw.abort()
    assert server.end() == 0


async def test_every_address(start_server: StartServer, addresses: Addresses, database: pymysql.Connection) -> None:
    """`::` accepts connections by IPv4 too, and an address may have brackets."""
    port = start_server(*external(addresses), "--address=::").ready()
    for host in ("127.0.0.1", "::1"):
        raw = await RawSocket.open(port, host=host)
        assert await raw.request("/ping") == (200, b'"SUCCESS"')
        raw.abort()
    bracketed = start_server(*external(addresses), "--address=[::1]")
    bracketed.ready()
    assert "http://[::1]:" in bracketed.line
    assert "only from this machine" in bracketed.line


def test_the_first_line_of_the_log(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """The first line of the log has the version."""
    server = start_server(*external(addresses))
    server.ready()
    server.signal(signal.SIGTERM)
    first = server.failed()[1].splitlines()[0]
    assert ("starting" in first, f"version={VERSION}" in first) == (True, True)


MODES = {
    "loopback": (["--address=127.0.0.1"], "uid is trusted, but only from this machine: --auth is not given"),
    "beyond": (["--address=0.0.0.0"], "tokens are required: --auth is not given"),
    "beyond, by name": (["--address=", "--address=::"], "tokens are required: --auth is not given"),
    "token": (["--auth=token"], "tokens are required: --auth=token"),
    "open": (["--auth=open", "--address=0.0.0.0"], "uid is trusted from everywhere: --auth=open"),
}


@pytest.mark.parametrize(("given", "said"), MODES.values(), ids=MODES)
def test_the_ready_line_has_the_mode_of_authentication(
    given: list[str], said: str, start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """The ready line has the mode of authentication and its reason."""
    server = start_server(*external(addresses), *given)
    server.ready()
    assert said in server.line
    assert server.end() == 0


async def test_the_key_of_tokens(start_server: StartServer, data_dir: Path, addresses: Addresses) -> None:
    """The token key is created once, for its owner only, also with external databases; tokens outlive a restart."""
    flags = [flag for flag in external(addresses) if "secret" not in flag] + [f"--data-dir={data_dir}/new"]
    start_server(*flags).ready()
    path = data_dir / "new" / "token-keys.json"
    kept = path.read_bytes()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    start_server(*flags).ready()
    assert path.read_bytes() == kept


@pytest.mark.parametrize("kind", ["generated", "given", "TLS"])
def test_a_key_that_another_user_may_have_written(
    kind: str, start_server: StartServer, data_dir: Path, addresses: Addresses, database: pymysql.Connection
) -> None:
    """In a directory that others can write to, no key is used or created."""
    data_dir.chmod(0o777)
    keys = data_dir / "token-keys.json"
    flags = [flag for flag in external(addresses) if "secret" not in flag]
    if kind == "generated":
        flags.append(f"--data-dir={data_dir}")
    else:
        secret = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY"
        keys.write_text(json.dumps({"keys": [{"kty": "oct", "k": secret}]}))
        keys.chmod(0o600)
        flags += [f"--token-keys={keys}"] if kind == "given" else external(addresses)[:1]
        flags += [f"--certfile={keys}", f"--keyfile={keys}"] if kind == "TLS" else []
    status, errors = start_server(*flags).failed()
    line = errors.splitlines()[-1]
    assert (status, f"{keys}: others can write to {data_dir}" in line, "chmod go-w" in line) == (1, True, True)
    assert keys.exists() == (kind != "generated")


UNUSABLE = {
    "half of TLS": (["--certfile=/nowhere"], 2, "--certfile and --keyfile"),
    "no certificate": (["--certfile=/nowhere", "--keyfile=/nowhere"], 1, "/nowhere"),
    "a network that is none": (["--trusted-proxies=10.0.0.1/8"], 2, "--trusted-proxies"),
    "an origin that is none": (["--trusted-origins=https://x/path"], 2, "--trusted-origins"),
    "a short secret": (["--token-secret=short"], 1, "--token-secret"),
    "no keys": (["--token-keys=/nowhere"], 1, "/nowhere"),
}


@pytest.mark.parametrize(("given", "status", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_tls_files_and_keys_that_cannot_be_used(
    given: list[str],
    status: int,
    said: str,
    start_server: StartServer,
    addresses: Addresses,
    database: pymysql.Connection,
) -> None:
    """The server does not start with unusable certificates or keys, and the error names them and the reason."""
    got, errors = start_server(*external(addresses), *given).failed()
    assert (got, said in errors, "Traceback" in errors) == (status, True, False)
    assert "short" not in errors.replace("too short", "")


async def test_sign_ins_under_way_when_told_to_end(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """Sign-ins in progress at SIGTERM are answered, and nothing is logged as a bug."""
    server = start_server(*external(addresses), "--drain-timeout=14")
    port = server.ready()
    raws = [await RawSocket.open(port) for _ in range(3)]
    body, headers = "user_name=latecomer&password=x", {"Content-Type": "application/x-www-form-urlencoded"}
    asked = [
        asyncio.ensure_future(raw.request("/user/login", method="POST", body=body, headers=headers)) for raw in raws
    ]
    with redis.Redis.from_url(addresses.redis) as attempts:
        counts = f"*ACCOUNT/{digest_of('name latecomer')}*"
        await until(lambda: [int(attempts.get(key)) for key in attempts.scan_iter(counts)] == [3])
    await asked[0]  # the others are queued for the one thread
    server.signal(signal.SIGTERM)
    assert [(await each)[0] for each in asked] == [401] * 3
    status, errors = server.failed()
    assert (status, "error" in errors) == (0, False)
    for raw in raws:
        raw.abort()


async def test_what_is_under_way_for_too_long_when_told_to_end(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """Requests that take too long at SIGTERM are answered with 503, whether a password was being hashed or queued."""
    server = start_server(*external(addresses), "--drain-timeout=0.01")
    port = server.ready()
    raws = [await RawSocket.open(port) for _ in range(8)]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    asked = [
        asyncio.ensure_future(
            raw.request(path, method="POST", body=f"user_name=waits{n}&nick_name=ab&password=12345678", headers=headers)
        )
        for n, raw in enumerate(raws)
        for path in ("/user/login" if n % 2 else "/user/register",)
    ]
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    server.signal(signal.SIGTERM)
    answers = [await each for each in asked]
    assert {status for status, _ in answers} <= {200, 401, 503}
    assert 503 in {status for status, _ in answers}
    assert all(b"the server is going away" in body for status, body in answers if status == 503)
    status, errors = server.failed()
    assert (status, "error" in errors, "request_failed" in errors) == (0, False, False)
    for raw in raws:
        raw.abort()


async def test_metrics_on_a_port_of_their_own(
    start_server: StartServer, addresses: Addresses, database: pymysql.Connection
) -> None:
    """The metrics port needs no token and serves nothing else, and /metrics is not on the main port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics_port = free.getsockname()[1]
    port = start_server(*external(addresses), f"--metrics-port={metrics_port}").ready()
    for at, path, status in ((port, "/metrics", 404), (metrics_port, "/metrics", 200), (metrics_port, "/user/me", 404)):
        raw = await RawSocket.open(at)
        got, body = await raw.request(path, headers={"Host": "127.0.0.1"})
        assert (got, b"tandem_sockets" in body) == (status, status == 200)
        raw.abort()
