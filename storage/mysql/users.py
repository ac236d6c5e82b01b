"""Users in gin-chat-demo's MySQL table.

Concurrent lookups share a query, and are cached for a few seconds. The version of a user's tokens is a digest of the
password digest and of how often all tokens were ended. A token is valid as long as it has the current version, so it
becomes invalid whichever program changes the row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pymysql
from cachetools import TTLCache
from pymysql.cursors import Cursor

from common.batching import Batcher
from models.errors import InvalidRequest
from models.records import Profile, User
from storage.mysql.errors import is_duplicate, naming
from storage.mysql.executor import MySQL
from storage.mysql.schema import migrate, require_unused, seed

__all__ = ["ACTIVE", "SELECT", "MySQLUsers", "user_of"]

ACTIVE = "active"  # the status of a usable account in gin-chat-demo
BATCH = 500  # users looked up in one query

# The columns of a user, with the version of its tokens. A condition on `u`, the user table, has to follow.
SELECT = (
    "SELECT u.id, u.user_name, u.nick_name, u.email, u.avatar, u.status, UNIX_TIMESTAMP(u.created_at), "
    "LEFT(SHA2(CONCAT(IFNULL(u.password_digest, ''), ':', IFNULL(a.generation, 0)), 256), 16), a.tokens_since "
    "FROM `user` u LEFT JOIN `tandem_account` a ON a.user_id = u.id "
    "WHERE u.deleted_at IS NULL AND u.status = 'active' AND "  # ACTIVE
)

Row = tuple[int, str | None, str | None, str | None, str | None, str, int | None, str, int | None]


def user_of(row: Row) -> User:
    """Return the user in a row of SELECT."""
    number, user_name, nick_name, email, avatar, status, created, version, since = row
    return User(
        number,
        user_name or "",
        nick_name or "",
        email or "",
        avatar or "",
        status,
        int(created or 0),
        version,
        since or 0,
    )


class MySQLUsers:
    """The user table, with a cache of `cache_size` entries and `cache_ttl` seconds."""

    def __init__(self, mysql: MySQL, *, cache_size: int, cache_ttl: float) -> None:
        self._mysql = mysql
        self._cache: TTLCache[int, User] = TTLCache(cache_size, cache_ttl)
        self._look_up = Batcher(self._fetch, max_batch=BATCH, max_concurrent=mysql.threads)

    async def prepare(self, *, with_article_users: bool) -> None:
        """Update the tables. `with_article_users` adds users 1 and 2 to an empty user table."""

        def work(cursor: Cursor) -> None:  # may be repeated, since each step first checks whether it was done
            migrate(cursor)
            if with_article_users:
                seed(cursor)

        await self._mysql.run(work)

    async def require_unused_ids(self, known: int) -> None:
        """Raise SchemaError if a new account would get an id up to `known`, the greatest in stored messages."""
        await self._mysql.run(lambda cursor: require_unused(cursor, known))

    async def active(self, *ids: int) -> dict[int, User]:
        """Return the active users among `ids`, from the cache or the table."""
        found = {user: known for user in ids if (known := self._cache.get(user)) is not None}
        unknown = [user for user in ids if user not in found]
        if not unknown:
            return found
        async with self._mysql.turn():
            return found | self._remembered(await asyncio.gather(*(self._look_up(user) for user in unknown)))

    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        """Return the active users among `ids`, from the table."""
        found: dict[int, User] = {}
        for start in range(0, len(ids), BATCH):
            chunk = ids[start : start + BATCH]
            for number, user in zip(chunk, await self._fetch(chunk), strict=True):
                if user is None:
                    self.forget(number)
                    continue
                found[number] = user
                if number in self._cache:  # only an older entry has to be replaced
                    self._cache[number] = user
        return found

    def forget(self, user: int) -> None:
        """Drop a user from the cache."""
        self._cache.pop(user, None)

    async def named(self, user_name: str) -> User | None:
        """Return the active user of that name."""

        def work(cursor: Cursor) -> User | None:
            try:
                with naming("user_name"):
                    cursor.execute(SELECT + "u.user_name = %s", (user_name,))
            except InvalidRequest:  # no row can have such a name
                return None
            row = cursor.fetchone()
            return user_of(row) if row else None

        return await self._mysql.run(work)

    async def first(self, count: int) -> list[User]:
        """Return at most `count` active users with the lowest ids, in order, from the table."""

        def work(cursor: Cursor) -> list[User]:
            cursor.execute(SELECT + "u.id > 0 ORDER BY u.id LIMIT %s", (count,))
            return [user_of(row) for row in cursor.fetchall()]

        return await self._mysql.run(work)

    async def change(self, user: int, profile: Profile) -> User | None:
        """Change the fields of a user's profile that are not None. Return the changed user, None if there is none.

        Raises InvalidRequest for a value that the table cannot store.
        """
        changes = {
            "nick_name": profile.nick_name,
            "email": profile.email,
            "avatar": profile.avatar,
        }
        given = {column: value for column, value in changes.items() if value is not None}

        def work(cursor: Cursor) -> None:
            assignments = ", ".join(f"`{column}` = %s" for column in given)
            try:
                with naming(*given):
                    cursor.execute(
                        f"UPDATE `user` SET {assignments}, updated_at = NOW() "  # noqa: S608  # columns are named above
                        "WHERE id = %s AND deleted_at IS NULL",
                        (*given.values(), user),
                    )
            except pymysql.IntegrityError as error:
                if is_duplicate(error):  # the table may have further unique columns
                    raise InvalidRequest(" or ".join(given), "is used by another account") from None
                raise

        if given:
            await self._mysql.change(work)
            self.forget(user)
        return (await self.active_now([user])).get(user)

    def _remembered(self, users: Sequence[User | None]) -> dict[int, User]:
        found = {user.id: user for user in users if user is not None}
        if self._cache.maxsize:
            for number, user in found.items():
                self._cache[number] = user
        return found

    async def _fetch(self, ids: Sequence[int]) -> Sequence[User | None]:
        def work(cursor: Cursor) -> dict[int, User]:
            cursor.execute(SELECT + "u.id IN %s", (tuple(set(ids)),))
            return {row[0]: user_of(row) for row in cursor.fetchall()}

        users = await self._mysql.always(work) if ids else {}
        return [users.get(user) for user in ids]
