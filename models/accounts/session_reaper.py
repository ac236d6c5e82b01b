"""Closing the sockets of those who may no longer speak.

A socket outlives the request that opened it. So all of them are looked at again every few seconds, by the tables as
they are then, for other programs change these as well; and those of one user at once when something is known to
have changed, in this process or in another.
"""

from __future__ import annotations

import structlog

from common.sweep import Sweep
from models.accounts.authentication import Access
from models.accounts.ports import OpenSockets
from models.errors import EngineUnavailable

__all__ = ["SessionReaper"]

_log = structlog.get_logger(__name__)


class SessionReaper:
    """Looks at the sockets of this process every `interval` seconds."""

    def __init__(self, access: Access, sockets: OpenSockets, interval: float) -> None:
        self._access = access
        self._sockets = sockets
        # Nobody is sent away because the tables cannot be read; open sockets chat on.
        self.sweep = Sweep(interval, sockets.users, self._look, "sessions_not_checked", EngineUnavailable)

    async def _look(self, users: set[int]) -> None:
        ended = await self._access.ended(self._sockets.identities(users))
        if ended:
            _log.info("sessions_ended", users=sorted({each.user for each in ended}))
            self._sockets.close_sessions(ended)
