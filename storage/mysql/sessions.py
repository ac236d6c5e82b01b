"""Sessions that have ended: tokens that are no longer valid although they have not expired.

A single token is ended by a row of its own, which is deleted after the token has expired. All tokens of a user are
ended by a counter in `tandem_account`, which is part of the tokens' version. Tokens of another back end have no
version; they are not valid if they were issued before `tokens_since`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

from cachetools import TTLCache
from pymysql.cursors import Cursor

from models.errors import StorageUnavailable
from models.records import Identity
from storage.mysql.executor import MySQL
from storage.mysql.users import BATCH, MySQLUsers

__all__ = ["MySQLSessions", "end_tokens"]

SWEPT = 100  # rows of expired tokens that each sign-out deletes
SPARE = 3600  # seconds that a row stays after the token has expired, since clocks differ


def end_tokens(cursor: Cursor, user: int, now: float) -> None:
    """End all tokens of a user that were issued before `now`, in seconds since the epoch."""
    since = math.ceil(now)
    cursor.execute(
        "INSERT INTO `tandem_account` (user_id, generation, tokens_since) VALUES (%s, 1, %s) "
        "ON DUPLICATE KEY UPDATE generation = generation + 1, tokens_since = GREATEST(tokens_since, %s)",
        (user, since, since),
    )


class MySQLSessions:
    """The ended tokens, with a cache for single tokens of `cache_size` entries and `cache_ttl` seconds.

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
        """Return whether a single token was ended, from the cache or the table."""
        known = self._cache.get(session)
        if known is None:
            async with self._mysql.turn():
                known = session in await self.signed_out_now([session])
        return known

    async def signed_out_now(self, sessions: Sequence[bytes]) -> set[bytes]:
        """Return which of these tokens were ended as single ones, from the table."""
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
        """End one token."""
        expires = math.ceil(identity.expires or 0)

        def end(cursor: Cursor) -> None:
            cursor.execute(  # not INSERT IGNORE, which would also ignore values that do not fit
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
        with suppress(StorageUnavailable):  # the next sign-out sweeps instead
            await self._mysql.change(sweep)

    async def sign_out_everywhere(self, user: int) -> None:
        """End all tokens of a user."""
        await self._mysql.change(lambda cursor: end_tokens(cursor, user, self._clock()))
        self._users.forget(user)
