"""The user table: create it if it is absent, or add what Tandem needs to gin-chat-demo's table.

The numbered files in `storage/mysql/sql/` are applied in order, each if its change is missing. That is looked up in the
database and not recorded elsewhere, since the table may belong to another program.
"""

from __future__ import annotations

import re
from pathlib import Path

from pymysql.cursors import Cursor

__all__ = ["SchemaError", "migrate", "next_id", "remedy", "require_unused", "seed"]

WIDE = (
    "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = '{table}' "
    "AND column_name = 'user_id' AND data_type = 'bigint'"
)

# Each file, and a query that finds a row if its change was made.
STEPS = (
    (
        "001_user.sql",
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'user'",
    ),
    (
        "002_nick_name.sql",
        "SELECT 1 FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'user' AND column_name = 'nick_name'",
    ),
    (
        "003_user_name.sql",
        "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'user' "
        "GROUP BY index_name HAVING MIN(non_unique) = 0 AND GROUP_CONCAT(column_name) = 'user_name'",
    ),
    (
        "004_account.sql",
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'tandem_account'",
    ),
    (
        "005_signed_out.sql",
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'tandem_signed_out'",
    ),
    ("006_account_wide.sql", WIDE.format(table="tandem_account")),
    ("007_signed_out_wide.sql", WIDE.format(table="tandem_signed_out")),
)
LOCK_WAIT = 10  # seconds to wait for another process that migrates at the same time
SHOWN = 10  # names that the error about duplicates shows


class SchemaError(Exception):
    """The user table cannot be used as it is. The text says what to change."""


def migrate(cursor: Cursor) -> None:
    """Update the tables of the cursor's database. Raises SchemaError."""
    cursor.execute("SELECT GET_LOCK(CONCAT('tandem:', DATABASE()), %s)", (LOCK_WAIT,))
    if cursor.fetchone() != (1,):
        raise SchemaError("another process has been changing the user table for too long")
    try:
        for file, present in STEPS:
            cursor.execute(present)
            if cursor.fetchone():
                continue
            if file == "003_user_name.sql":
                _require_distinct_names(cursor)
            cursor.execute((Path(__file__).parent / "sql" / file).read_text("utf-8"))
    finally:
        cursor.execute("SELECT RELEASE_LOCK(CONCAT('tandem:', DATABASE()))")


def seed(cursor: Cursor) -> None:
    """Add the article's two users, with ids 1 and 2, to an empty table. No password matches their digest."""
    cursor.execute("SELECT 1 FROM `user` LIMIT 1")
    if not cursor.fetchone():
        cursor.executemany(
            "INSERT INTO `user` (id, created_at, updated_at, user_name, nick_name, password_digest, status) "
            "VALUES (%s, NOW(), NOW(), %s, %s, '!', 'active')",
            [(1, "user1", "user1"), (2, "user2", "user2")],
        )


def next_id(cursor: Cursor) -> int | None:
    """Return the id that the `user` table gives to the next row; None if it does not assign ids."""
    cursor.execute("SHOW CREATE TABLE `user`")  # information_schema may be a day old
    _, table = cursor.fetchone() or ("", "")
    table = re.sub(r"'(?:[^'\\]|''|\\.)*'", "''", table)  # comments may contain anything
    if not re.search(r"^ *`id` .*\bAUTO_INCREMENT\b", table, re.MULTILINE | re.IGNORECASE):
        return None
    given = re.search(r"^\) .*?\bAUTO_INCREMENT=([0-9]+)", table, re.MULTILINE)
    return int(given[1]) if given else 1


def remedy(known: int) -> str:
    """Return the problem and its remedy for a table that assigns ids up to `known`, the greatest in stored messages."""
    return (
        f"messages of users up to id {known} are stored: the table was restored from a copy that is older than these "
        "messages, and a new account could read them. Restore a newer copy, or run: "
        f"ALTER TABLE `user` AUTO_INCREMENT = {known + 1}; see docs/operations.md"
    )


def require_unused(cursor: Cursor, known: int) -> None:
    """Raise SchemaError if the next row would get an id up to `known`, the greatest in stored messages."""
    following = next_id(cursor)
    if following is not None and following <= known:
        raise SchemaError(f"the user table would give id {following} to the next account, but {remedy(known)}")


def _require_distinct_names(cursor: Cursor) -> None:
    cursor.execute(
        "SELECT user_name, GROUP_CONCAT(id ORDER BY id SEPARATOR ', ') FROM `user` "
        "WHERE user_name IS NOT NULL GROUP BY user_name HAVING COUNT(*) > 1 LIMIT %s",
        (SHOWN,),
    )
    shared = cursor.fetchall()
    if shared:
        rows = "; ".join(f"{name!r} (ids {ids})" for name, ids in shared)
        raise SchemaError(
            f"user.user_name must be unique, and these rows share a name: {rows}. "
            "Rename or remove all but one row of each name, and start again."
        )
