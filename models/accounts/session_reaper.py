"""Closing the sockets whose account or token has ended.

A socket outlives the request that opened it. So all sockets are checked again every few seconds against the tables as
they are then, since other programs change these too. The sockets of one user are checked at once when this process or
another knows of a change.
"""

from __future__ import annotations

import structlog

from common.sweep import Sweep
from models.accounts.authentication import Access
from models.accounts.ports import OpenSockets
from models.errors import StorageUnavailable

__all__ = ["SessionReaper"]

_log = structlog.get_logger(__name__)


class SessionReaper:
    """Check the sockets of this process every `interval` seconds."""

    def __init__(self, access: Access, sockets: OpenSockets, interval: float) -> None:
        self._access = access
        self._sockets = sockets
        # While the tables cannot be read, no socket is closed.
        self.sweep = Sweep(interval, sockets.users, self._look, "sessions_not_checked", StorageUnavailable)

    async def _look(self, users: set[int]) -> None:
        ended = await self._access.ended(self._sockets.identities(users))
        if ended:
            _log.info("sessions_ended", users=sorted({each.user for each in ended}))
            self._sockets.close_sessions(ended)
