"""Tests of ping, health and readiness."""

from __future__ import annotations

import asyncio
import json

import pytest

from config.version import VERSION
from handlers.http.health import Readiness
from handlers.websocket.handler import ChatSocket
from models.errors import DatabaseRefused, StorageUnavailable
from server import Server
from tests.conftest import Ask, Connect
from tests.support.patience import PATIENCE
from tests.support.sockets import RawSocket


async def get(port: int, path: str) -> tuple[int, bytes]:
    raw = await RawSocket.open(port)
    answer = await raw.request(path)
    raw.abort()
    return answer


async def test_ping(http_server: Server) -> None:
    """The answer is gin-chat-demo's, byte for byte."""
    assert await get(http_server.port, "/ping") == (200, b'"SUCCESS"')


async def test_health_counts_sockets(http_server: Server, connect: Connect, pair: tuple[int, int]) -> None:
    """The answer has the number of sockets."""
    await connect(*pair)
    status, body = await get(http_server.port, "/healthz")
    assert (status, json.loads(body)["data"]) == (200, {"sockets": 1, "version": VERSION})


async def test_ready(http_server: Server) -> None:
    """The server is ready if every database answers."""
    status, body = await get(http_server.port, "/readyz")
    expected = {"mongodb": "ok", "redis": "ok", "mysql": "ok", "draining": False}
    assert (200, expected) == (status, json.loads(body)["data"])


async def test_not_ready_while_draining(http_server: Server) -> None:
    """A draining server is not ready, so that a load balancer uses others."""
    ChatSocket.hub.start_draining()
    status, body = await get(http_server.port, "/readyz")
    assert (status, json.loads(body)["data"]["draining"], json.loads(body)["error"]) == (503, True, "draining")


async def test_concurrent_requests() -> None:
    """Concurrent requests check the databases once."""
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    readiness = Readiness({"database": check}, timeout=PATIENCE)
    assert await asyncio.gather(*(readiness.databases() for _ in range(50))) == [{"database": "ok"}] * 50
    assert asked == 1
    await readiness.databases()
    assert asked == 2


async def test_a_database_that_is_started_again() -> None:
    """A database that is being restarted is distinguished from one that is down; one that is back is ready."""

    async def away() -> None:
        raise StorageUnavailable("redis", "away")

    async def here() -> None:
        return

    readiness = Readiness({"mongodb": here, "redis": away, "mysql": away}, 5, lambda: {"redis": "x", "mongodb": "x"})
    assert await readiness.databases() == {"mongodb": "ok", "redis": "restarting", "mysql": "unavailable"}


async def test_a_database_that_answers_and_refuses() -> None:
    """There is a reason for a database that answers but cannot be used, for as long as that lasts."""
    trouble: list[Exception] = [DatabaseRefused("redis", "x", "OOM", "its memory is full"), TimeoutError()]

    async def check() -> None:
        if trouble:
            raise trouble.pop(0)

    readiness = Readiness({"redis": check}, timeout=PATIENCE)
    found = [((await readiness.databases())["redis"], readiness.why.get("redis")) for _ in range(3)]
    assert found == [("unavailable", "its memory is full"), ("unavailable", ""), ("ok", None)]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/ping", "/openapi.yaml"])
async def test_the_headers_alone(path: str, ask: Ask) -> None:
    """HEAD is answered as GET, without the body (RFC 9110, section 9.3.2)."""
    whole, header = await ask("GET", path), await ask("HEAD", path)
    assert (whole.status, header.status, header.body) == (200, 200, b"")
    assert whole.headers["Content-Length"] == header.headers["Content-Length"]
    assert whole.headers["Content-Type"] == header.headers["Content-Type"]
