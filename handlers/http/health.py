"""For whoever runs the server: is it alive, can it work; and gin-chat-demo's ping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from handlers.http.base import BaseHandler
from handlers.websocket.handler import ChatSocket
from models.errors import EngineUnavailable

__all__ = ["ApiHandler", "Check", "HealthHandler", "PingHandler", "Readiness", "ReadyHandler"]

Check = Callable[[], Awaitable[None]]


class PingHandler(BaseHandler):
    """GET /ping"""

    guarded = False

    def get(self) -> None:
        """Answers "SUCCESS", as gin-chat-demo does (the article, section 2.2.3)."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(b'"SUCCESS"')

    head = get


class ApiHandler(BaseHandler):
    """GET /openapi.yaml"""

    def initialize(self, api: bytes) -> None:
        """Takes the description of all that is here, in OpenAPI's format."""
        self._api = api

    def get(self) -> None:
        """The description; docs/openapi.yaml."""
        self.set_header("Content-Type", "application/yaml")  # RFC 9512
        self.finish(self._api)

    head = get


class HealthHandler(BaseHandler):
    """GET /healthz"""

    guarded = False

    def initialize(self, version: str) -> None:
        """Takes the server's version."""
        self._version = version

    def get(self) -> None:
        """Answers while the event loop turns."""
        self.answer({"sockets": ChatSocket.count(), "version": self._version})

    head = get


class Readiness:
    """Whether the engines answer; `checks` has one for each, `timeout` is what all of them may take (seconds).

    However many ask at a time, the engines are asked once. `restarting` tells of private engines that have ended.
    """

    def __init__(
        self, checks: Mapping[str, Check], timeout: float, restarting: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self._checks = checks
        self._timeout = timeout
        self.restarting = restarting
        self._asking: asyncio.Task[dict[str, str]] | None = None

    async def engines(self) -> dict[str, str]:
        """Each engine's state, by name."""
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
        except (EngineUnavailable, TimeoutError):
            return "restarting" if name in self.restarting() else "unavailable"
        return "ok"


class ReadyHandler(BaseHandler):
    """GET /readyz"""

    guarded = False

    def initialize(self, readiness: Readiness) -> None:
        """Takes the collaborators."""
        self._readiness = readiness

    async def get(self) -> None:
        """200 while every engine answers and the server is not draining, else 503; tells each engine's state."""
        engines = await self._readiness.engines()
        data = {**engines, "draining": ChatSocket.draining()}
        why = self._readiness.restarting()
        away = [
            f"{name} ({why[name]})" if state == "restarting" and name in why else name
            for name, state in engines.items()
            if state != "ok"
        ]
        if ChatSocket.draining():
            away.append("draining")
        if away:
            self.answer(data, 503, "fail", ", ".join(away))
        else:
            self.answer(data)

    head = get
