"""Closing the sockets of those who may no longer speak.

A socket outlives the request that opened it. So all of them are looked at again every few seconds, by the tables as
they are then, for other programs change these as well; and those of one user at once when something is known to
have changed, in this process or in another.
"""

from __future__ import annotations

import structlog

from models.access import Access
from models.account_ports import Evicted
from models.errors import EngineUnavailable
from models.rounds import Rounds

__all__ = ["Evictor"]

_log = structlog.get_logger(__name__)


class Evictor:
    """Looks at the sockets of this process every `interval` seconds."""

    def __init__(self, access: Access, sockets: Evicted, interval: float) -> None:
        self._access = access
        self._sockets = sockets
        self.rounds = Rounds(interval, self._look)

    async def _look(self, users: set[int] | None) -> None:
        identities = [each for each in self._sockets.identities() if users is None or each.user in users]
        if not identities:
            return
        try:
            ended = await self._access.ended(identities)
        except EngineUnavailable as error:
            # Nobody is sent away because the table cannot be read; open sockets chat on.
            _log.warning("sessions_not_checked", count=len(identities), reason=str(error))
            return
        if ended:
            _log.info("sessions_ended", users=sorted({each.user for each in ended}))
            self._sockets.evict(ended)
