"""Signing out: the tokens that are no longer good although their time is not over.

One token is ended by a row of its own, which goes when the token's time is over anyhow; all of a user's by a counter
in the user's row of `tandem_account`, which the version of tokens follows from. Tokens that another back end issues
have no version: those from before `tokens_since` are not good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from cachetools import TTLCache
from pymysql.cursors import Cursor

from models.errors import EngineUnavailable
from models.records import Identity
from storage.mysql.executor import MySQL
from storage.mysql.users import BATCH, MySQLUsers

__all__ = ["MySQLSessions", "end_tokens"]

SWEPT = 100  # rows of tokens whose time is over that go with each sign-out
SPARE = 3600  # seconds that a row stays beyond that, for clocks that differ


def end_tokens(cursor: Cursor, user: int, now: float) -> None:
    """Ends all tokens of a user that were issued before `now`, in seconds since the epoch."""
    since = math.ceil(now)
    cursor.execute(
        "INSERT INTO `tandem_account` (user_id, generation, tokens_since) VALUES (%s, 1, %s) "
        "ON DUPLICATE KEY UPDATE generation = generation + 1, tokens_since = GREATEST(tokens_since, %s)",
        (user, since, since),
    )


class MySQLSessions:
    """The ended tokens; `cache_size` and `cache_ttl` (seconds) bound what is remembered of single ones.

    `clock` returns seconds since the epoch.
    """

    def __init__(
        self, mysql: MySQL, users: MySQLUsers, *, clock: Callable[[], float], cache_size: int, cache_ttl: float
    ) -> None:
        self._mysql = mysql
        self._users = users
        self._clock = clock
        self._cache: TTLCache[bytes, bool] = TTLCache(cache_size, cache_ttl)

    async def signed_out(self, session: bytes) -> bool:
        """Whether a token was ended by itself, from what is remembered or from the table."""
        known = self._cache.get(session)
        if known is None:
            async with self._mysql.turn():
                known = session in await self.signed_out_now([session])
        return known

    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        """Which of these tokens were ended by themselves, from the table."""
        ended: set[bytes] = set()

        def work(cursor: Cursor) -> set[bytes]:
            cursor.execute("SELECT session FROM `tandem_signed_out` WHERE session IN %s", (tuple(chunk),))
            return {bytes(session) for (session,) in cursor.fetchall()}

        for start in range(0, len(sessions), BATCH):
            chunk = sessions[start : start + BATCH]
            ended |= await self._mysql.always(work)
        if self._cache.maxsize:
            for session in sessions:
                self._cache[session] = session in ended
        return ended

    async def sign_out(self, identity: Identity) -> None:
        """Ends one token."""
        expires = math.ceil(identity.expires or 0)

        def end(cursor: Cursor) -> None:
            cursor.execute(  # INSERT IGNORE would pass over what does not fit as well
                "INSERT INTO `tandem_signed_out` (session, user_id, expires) VALUES (%s, %s, %s) "
                "ON DUPLICATE KEY UPDATE user_id = user_id",
                (identity.session, identity.user, expires),
            )

        def sweep(cursor: Cursor) -> None:
            cursor.execute(
                "DELETE FROM `tandem_signed_out` WHERE expires < %s LIMIT %s", (int(self._clock()) - SPARE, SWEPT)
            )

        await self._mysql.change(end)
        self._cache.pop(identity.session, None)
        with suppress(EngineUnavailable):  # the next one does it
            await self._mysql.change(sweep)

    async def sign_out_everywhere(self, user: int) -> None:
        """Ends all tokens of a user."""
        await self._mysql.change(lambda cursor: end_tokens(cursor, user, self._clock()))
        self._users.forget(user)
