"""Routes for operators: liveness, readiness, the API description, and gin-chat-demo's ping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from handlers.http.base import BaseHandler
from handlers.websocket.handler import ChatSocket
from models.errors import StorageUnavailable

__all__ = ["ApiHandler", "Check", "HealthHandler", "PingHandler", "Readiness", "ReadyHandler"]

Check = Callable[[], Awaitable[None]]


class PingHandler(BaseHandler):
    """GET /ping"""

    guarded = False

    def get(self) -> None:
        """Answer "SUCCESS", as gin-chat-demo does (the article, section 2.2.3)."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(b'"SUCCESS"')

    head = get


class ApiHandler(BaseHandler):
    """GET /openapi.yaml"""

    def initialize(self, api: bytes) -> None:
        """Take the OpenAPI description of all routes."""
        self._api = api

    def get(self) -> None:
        """Answer with the description, docs/openapi.yaml."""
        self.set_header("Content-Type", "application/yaml")  # RFC 9512
        self.finish(self._api)

    head = get


class HealthHandler(BaseHandler):
    """GET /healthz"""

    guarded = False

    def initialize(self, version: str) -> None:
        """Take the server's version."""
        self._version = version

    def get(self) -> None:
        """Answer while the event loop runs."""
        self.answer({"sockets": ChatSocket.hub.count, "version": self._version})

    head = get


class Readiness:
    """Whether the databases can be used. `checks` has a check for each; `timeout` (seconds) limits them together.

    Concurrent requests share one round of checks. `restarting` names the embedded databases that have ended. `why` has
    a reason for each database that answered the last check but cannot be used.
    """

    def __init__(
        self, checks: Mapping[str, Check], timeout: float, restarting: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self._checks = checks
        self._timeout = timeout
        self.restarting = restarting
        self.why: dict[str, str] = {}
        self._asking: asyncio.Task[dict[str, str]] | None = None

    async def databases(self) -> dict[str, str]:
        """Return each database's state, by name."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, str]:
        states = await asyncio.gather(*(self._state(name) for name in self._checks))
        return dict(zip(self._checks, states, strict=True))

    async def _state(self, name: str) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                await self._checks[name]()
        except (StorageUnavailable, TimeoutError) as error:
            self.why[name] = error.summary if isinstance(error, StorageUnavailable) else ""
            return "restarting" if name in self.restarting() else "unavailable"
        self.why.pop(name, None)
        return "ok"


class ReadyHandler(BaseHandler):
    """GET /readyz"""

    guarded = False

    def initialize(self, readiness: Readiness) -> None:
        """Take the collaborators."""
        self._readiness = readiness

    async def get(self) -> None:
        """Answer 200 while all databases can be used and the server does not drain, else 503 with the reasons."""
        databases = await self._readiness.databases()
        data = {**databases, "draining": ChatSocket.hub.draining}
        why = {**self._readiness.why, **self._readiness.restarting()}
        away = [
            f"{name} ({why[name]})" if why.get(name) else name for name, state in databases.items() if state != "ok"
        ]
        if ChatSocket.hub.draining:
            away.append("draining")
        if away:
            self.answer(data, 503, "fail", ", ".join(away))
        else:
            self.answer(data)

    head = get
