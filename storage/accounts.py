"""Accounts: rows of the user table that somebody signs up for, signs in to, and leaves."""

from __future__ import annotations

from collections.abc import Callable

import pymysql
from pymysql.constants import ER
from pymysql.cursors import Cursor

from models.account_ports import Found
from models.errors import NameTaken
from models.records import User
from storage.mysql import MySQL
from storage.passwords import Passwords
from storage.sessions import end_tokens
from storage.users import ACTIVE, SELECT, MySQLUsers, user_of

__all__ = ["MySQLAccounts"]


class MySQLAccounts:
    """The accounts in the user table; `clock` returns seconds since the epoch."""

    def __init__(self, mysql: MySQL, users: MySQLUsers, passwords: Passwords, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mysql = mysql
        self._users = users
        self._passwords = passwords

    async def register(self, user_name: str, nick_name: str, password: bytes) -> User:
        """Adds a user; `password` has 8 to 72 bytes. Raises NameTaken, EngineUnavailable."""

        def taken(cursor: Cursor) -> bool:
            return bool(cursor.execute("SELECT 1 FROM `user` WHERE user_name = %s", (user_name,)))

        if await self._mysql.run(taken):  # spares the hash
            raise NameTaken(user_name)
        digest = await self._passwords.digest(password)

        def insert(cursor: Cursor) -> User:
            try:
                cursor.execute(
                    "INSERT INTO `user` (created_at, updated_at, user_name, nick_name, password_digest, email, "
                    "avatar, phone, status) VALUES (NOW(), NOW(), %s, %s, %s, '', '', '', %s)",
                    (user_name, nick_name, digest, ACTIVE),
                )
            except pymysql.IntegrityError as error:
                if error.args[0] == ER.DUP_ENTRY:
                    raise NameTaken(user_name) from None
                raise
            cursor.execute(SELECT + "u.id = %s", (cursor.lastrowid,))
            return user_of(cursor.fetchone() or ())

        return await self._mysql.run(insert)

    async def find(self, user_name: str) -> Found | None:
        """The active account of that name, and its password digest."""

        def work(cursor: Cursor) -> Found | None:
            cursor.execute(
                "SELECT id, IFNULL(password_digest, '') FROM `user` "
                "WHERE user_name = %s AND deleted_at IS NULL AND status = %s",
                (user_name, ACTIVE),
            )
            row = cursor.fetchone()
            return Found(*row) if row else None

        return await self._mysql.run(work)

    async def digest_of(self, user: int) -> str:
        """The password digest of an active account, "" if it has none."""

        def work(cursor: Cursor) -> str:
            cursor.execute(
                "SELECT IFNULL(password_digest, '') FROM `user` WHERE id = %s AND deleted_at IS NULL AND status = %s",
                (user, ACTIVE),
            )
            (digest,) = cursor.fetchone() or ("",)
            return str(digest)

        return await self._mysql.run(work)

    async def matches(self, password: bytes, digest: str | None) -> bool:
        """Whether a digest is this password's; takes as long for None. Raises EngineUnavailable."""
        return await self._passwords.matches(password, digest)

    @property
    def busy(self) -> bool:
        """Whether so many passwords wait to be checked that no more are taken."""
        return self._passwords.busy

    async def confirm(self, user: int, digest: str) -> User | None:
        """The active account as it is now, if its password digest still is this one."""

        def work(cursor: Cursor) -> User | None:
            cursor.execute(SELECT + "u.id = %s AND BINARY u.password_digest = %s", (user, digest))
            row = cursor.fetchone()
            return user_of(row) if row else None

        return await self._mysql.run(work)

    async def set_password(self, user: int, digest: str, password: bytes) -> str | None:
        """Gives an account whose digest is this one a new password, and ends its tokens; the new digest.

        None, if another change was faster.
        """
        changed = await self._passwords.digest(password)

        def work(cursor: Cursor) -> bool:
            done = cursor.execute(
                "UPDATE `user` SET password_digest = %s, updated_at = NOW() "
                "WHERE id = %s AND BINARY password_digest = %s AND deleted_at IS NULL",
                (changed, user, digest),
            )
            if done:
                end_tokens(cursor, user, self._clock())
            return bool(done)

        done = await self._mysql.run(work)
        self._users.forget(user)
        return changed if done else None

    async def erase(self, user: int, digest: str) -> bool:
        """Deletes an account as gin-chat-demo's ORM does, and what it says about a person; whether it was there.

        The row stays, so that its id and its name are never somebody else's.
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

        done = await self._mysql.run(work)
        self._users.forget(user)
        return done
