"""For whoever runs the server: is it alive, can it work; and gin-chat-demo's ping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from handlers.base import BaseHandler
from handlers.socket import ChatSocket
from models.errors import EngineUnavailable

__all__ = ["Check", "HealthHandler", "IndexHandler", "PingHandler", "ReadyHandler"]

Check = Callable[[], Awaitable[None]]


class PingHandler(BaseHandler):
    """GET /ping"""

    def get(self) -> None:
        """Answers "SUCCESS", as gin-chat-demo does (the article, section 2.2.3)."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(b'"SUCCESS"')


class IndexHandler(BaseHandler):
    """GET /"""

    def get(self) -> None:
        """Says what this is and where its doors are."""
        paths = {"socket": "/ws?uid=1&toUid=2", "register": "/user/register", "ready": "/readyz"}
        self.answer({"name": "Tandem", **paths})


class HealthHandler(BaseHandler):
    """GET /healthz"""

    def get(self) -> None:
        """Answers while the event loop turns."""
        self.answer({"sockets": ChatSocket.count()})


class ReadyHandler(BaseHandler):
    """GET /readyz"""

    def initialize(self, checks: Mapping[str, Check], timeout: float) -> None:
        """Takes one check for each engine, and the seconds that all of them together may take."""
        self._checks = checks
        self._timeout = timeout

    async def get(self) -> None:
        """200 while every engine answers and the server is not draining, else 503; tells each engine's state."""
        states = await asyncio.gather(*(self._state(check) for check in self._checks.values()))
        engines = dict(zip(self._checks, states, strict=True))
        data = {**engines, "draining": ChatSocket.draining()}
        away = [name for name, state in engines.items() if state != "ok"]
        if ChatSocket.draining():
            away.append("draining")
        if away:
            self.answer(data, 503, "fail", ", ".join(away))
        else:
            self.answer(data)

    async def _state(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                await check()
        except (EngineUnavailable, TimeoutError):
            return "unavailable"
        return "ok"
