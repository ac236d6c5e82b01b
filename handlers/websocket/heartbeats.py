"""Find clients that are gone without closing: check every socket periodically."""

from __future__ import annotations

import asyncio

import structlog

from handlers.websocket.handler import ChatSocket

__all__ = ["keep_checking_pongs"]

BATCH = 200  # users whose sockets are checked in one turn of the loop, so that others are served in between

_log = structlog.get_logger(__name__)


async def keep_checking_pongs(interval: float) -> None:
    """Check every socket of this process about once in `interval` seconds. Never returns."""
    time = asyncio.get_running_loop().time
    while True:
        users = tuple(ChatSocket.hub.users())
        pause = interval / (len(users) // BATCH + 1)
        for start in range(0, len(users) or 1, BATCH):
            try:
                ChatSocket.hub.check_peers(time(), users[start : start + BATCH])
            except Exception:  # noqa: BLE001  # a bug must not end the heartbeats
                _log.exception("pongs_not_checked")
            await asyncio.sleep(pause)
