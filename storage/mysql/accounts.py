"""Accounts in the user table: registering, signing in, changing the password, deleting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pymysql
from pymysql.cursors import Cursor

from models.accounts.ports import Found
from models.errors import DatabaseRefused, InvalidRequest, NameTaken
from models.records import MAX_ID, User
from storage.mysql.errors import is_duplicate, naming
from storage.mysql.executor import MySQL
from storage.mysql.schema import remedy
from storage.mysql.sessions import end_tokens
from storage.mysql.users import ACTIVE, SELECT, MySQLUsers, user_of
from storage.security.passwords import Passwords

__all__ = ["MySQLAccounts"]


class MySQLAccounts:
    """The accounts in the user table.

    `known` returns the greatest id of a user with stored messages. `clock` returns seconds since the epoch.
    """

    def __init__(
        self,
        mysql: MySQL,
        users: MySQLUsers,
        passwords: Passwords,
        known: Callable[[], Awaitable[int]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._known = known
        self._mysql = mysql
        self._users = users
        self._passwords = passwords

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Add a user. `password` has 8 to 72 bytes.

        Raises NameTaken, InvalidRequest for a value that the table cannot store, and StorageUnavailable. Raises
        DatabaseRefused, without adding the user, if the table assigns an id that stored messages have.
        """

        def taken(cursor: Cursor) -> bool:
            with naming("user_name"):
                return bool(cursor.execute("SELECT 1 FROM `user` WHERE user_name = %s", (user_name,)))

        if await self._mysql.run(taken):  # saves hashing the password
            raise NameTaken(user_name)
        digest = await self._passwords.digest(password)
        known = await self._known()

        def added(cursor: Cursor, lock: str = "") -> User | None:
            cursor.execute(
                SELECT + "u.user_name = %s AND BINARY u.password_digest = %s" + lock,
                (user_name, digest),  # the digest identifies this attempt, since it has a salt of its own
            )
            row = cursor.fetchone()
            return user_of(row) if row else None

        def insert(cursor: Cursor) -> User:
            try:
                with naming("user_name", "nick_name"):
                    cursor.execute(
                        "INSERT INTO `user` (created_at, updated_at, user_name, nick_name, password_digest, email, "
                        "avatar, phone, status) VALUES (NOW(), NOW(), %s, %s, %s, '', '', '', %s)",
                        (user_name, nick_name, digest, ACTIVE),
                    )
            except pymysql.IntegrityError as error:
                if is_duplicate(error) and taken(cursor):  # else it is another column that must be unique
                    raise NameTaken(user_name) from None
                raise
            if 0 < cursor.lastrowid <= known:  # the table may have been restored while the server ran
                raise DatabaseRefused(
                    "mysql", f"`user` gave id {cursor.lastrowid} to a new account, but {remedy(known)}", "id"
                )
            user = added(cursor)
            if user is None:
                raise DatabaseRefused("mysql", "a row that was inserted into `user` has other values there", "row")
            if user.id > MAX_ID:
                raise DatabaseRefused("mysql", f"`user` has assigned all ids up to {MAX_ID}", "id")
            return user

        return await self._mysql.change(insert, lambda cursor: added(cursor, " FOR UPDATE"))

    async def find(self, user_name: str) -> Found | None:
        """Return the active account of that name, with its password digest; None if there is none."""

        def work(cursor: Cursor) -> Found | None:
            try:
                with naming("user_name"):
                    cursor.execute(
                        "SELECT id, IFNULL(password_digest, '') FROM `user` "
                        "WHERE user_name = %s AND deleted_at IS NULL AND status = %s",
                        (user_name, ACTIVE),
                    )
            except InvalidRequest:  # no row can have such a name
                return None
            row = cursor.fetchone()
            return Found(*row) if row else None

        return await self._mysql.run(work)

    async def digest_of(self, user: int) -> str:
        """Return the password digest of an active account, "" if it has none."""

        def work(cursor: Cursor) -> str:
            cursor.execute(
                "SELECT IFNULL(password_digest, '') FROM `user` WHERE id = %s AND deleted_at IS NULL AND status = %s",
                (user, ACTIVE),
            )
            (digest,) = cursor.fetchone() or ("",)
            return str(digest)

        return await self._mysql.run(work)

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Return whether a digest is this password's. It takes as long for None. Raises StorageUnavailable."""
        return await self._passwords.matches(password, digest)

    @property
    def busy(self) -> bool:
        """Whether the queue of passwords is full, so that further ones are refused."""
        return self._passwords.busy

    async def confirm(self, user: int, digest: str) -> User | None:
        """Return the active account as it is now; None if its password digest has changed."""

        def work(cursor: Cursor) -> User | None:
            cursor.execute(SELECT + "u.id = %s AND BINARY u.password_digest = %s", (user, digest))
            row = cursor.fetchone()
            return user_of(row) if row else None

        return await self._mysql.run(work)

    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        """Set the password of an account with this digest, and end its tokens. Return the new digest.

        Returns None if another change was faster.
        """
        changed = await self._passwords.digest(password)

        def work(cursor: Cursor) -> bool:
            rows = cursor.execute(
                "UPDATE `user` SET password_digest = %s, updated_at = NOW() "
                "WHERE id = %s AND BINARY password_digest = %s AND deleted_at IS NULL",
                (changed, user, digest),
            )
            if rows:
                end_tokens(cursor, user, self._clock())
            return bool(rows)

        def done(cursor: Cursor) -> bool | None:
            sql = "SELECT 1 FROM `user` WHERE id = %s AND BINARY password_digest = %s FOR UPDATE"
            return cursor.execute(sql, (user, changed)) > 0 or None

        try:
            was_this_one = await self._mysql.change(work, done)
        finally:
            self._users.forget(user)
        return changed if was_this_one else None

    async def erase(self, user: int, digest: str) -> bool:
        """Delete an account as gin-chat-demo's ORM does, with its personal data. Return whether it existed.

        The row stays, so that no other account gets its id or name.
        """

        def work(cursor: Cursor) -> bool:
            return bool(
                cursor.execute(
                    "UPDATE `user` SET deleted_at = NOW(), updated_at = NOW(), password_digest = '!', nick_name = '', "
                    "email = '', avatar = '', phone = '' "
                    "WHERE id = %s AND BINARY password_digest = %s AND deleted_at IS NULL",
                    (user, digest),
                )
            )

        def done(cursor: Cursor) -> bool | None:
            sql = "SELECT 1 FROM `user` WHERE id = %s AND deleted_at IS NOT NULL FOR UPDATE"
            return cursor.execute(sql, (user,)) > 0 or None

        try:
            return await self._mysql.change(work, done)
        finally:
            self._users.forget(user)
