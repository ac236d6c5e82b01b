"""Finding the peers that are gone without a word: every socket is looked at, again and again."""

from __future__ import annotations

import asyncio

import structlog

from handlers.websocket.handler import ChatSocket

__all__ = ["keep_checking_pongs"]

BATCH = 200  # users whose sockets are looked at in one turn of the loop: all in one go would keep everybody waiting

_log = structlog.get_logger(__name__)


async def keep_checking_pongs(interval: float) -> None:
    """Looks at every socket of this process about once in `interval` seconds. Never returns."""
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
