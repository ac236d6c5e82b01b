"""Tests of the user table: it is created if absent, and gin-chat-demo's own is kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from pymysql.cursors import Cursor

from storage.embedded.supervisor import Addresses
from storage.mysql.schema import SchemaError, migrate, next_id, require_unused, seed
from tests.support.database import mysql_connection

numbers = itertools.count()

# The table as gin-chat-demo's gorm creates it.
GIN_CHAT_DEMO = """CREATE TABLE `user` (`id` int unsigned AUTO_INCREMENT, `created_at` DATETIME NULL,
`updated_at` DATETIME NULL, `deleted_at` DATETIME NULL, `user_name` varchar(255), `password_digest` varchar(255),
`email` varchar(255), `avatar` varchar(1000), `phone` varchar(255), `status` varchar(255), PRIMARY KEY (`id`))
DEFAULT CHARSET=utf8mb4"""


@pytest.fixture
def cursor(addresses: Addresses) -> Iterator[Cursor]:
    """A cursor in the test's own database."""
    name = f"schema{next(numbers)}"
    with mysql_connection(addresses.mysql, database=None) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {name}")
        yield cursor
        cursor.execute(f"DROP DATABASE {name}")


def columns(cursor: Cursor) -> list[str]:
    cursor.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND table_name = 'user' ORDER BY ordinal_position"
    )
    return [name for (name,) in cursor.fetchall()]


def test_an_absent_table_is_made(cursor: Cursor) -> None:
    """An absent table is created with gin-chat-demo's columns and the nick name, and a second run changes nothing."""
    for _ in range(2):
        migrate(cursor)
        assert columns(cursor) == [
            "id", "created_at", "updated_at", "deleted_at", "user_name", "password_digest", "email", "avatar",
            "phone", "status", "nick_name",
        ]  # fmt: skip


def test_an_existing_table_is_used_as_it_is(cursor: Cursor) -> None:
    """An existing table keeps its rows and gets what it lacks."""
    cursor.execute(GIN_CHAT_DEMO)
    cursor.execute("INSERT INTO `user` (user_name, password_digest, status) VALUES ('olduser', '$2a$12$x', 'active')")
    migrate(cursor)
    cursor.execute("SELECT id, user_name, password_digest, nick_name, status FROM `user`")
    assert cursor.fetchall() == ((1, "olduser", "$2a$12$x", None, "active"),)
    assert columns(cursor)[-1] == "nick_name"


def test_rows_that_share_a_name_are_named(cursor: Cursor) -> None:
    """Rows with the same name are not changed, and the error names them and the remedy."""
    cursor.execute(GIN_CHAT_DEMO)
    cursor.execute("INSERT INTO `user` (user_name) VALUES ('twice'), ('once1'), ('TWICE'), (NULL), (NULL)")
    with pytest.raises(SchemaError, match=r"(?i)'twice' \(ids 1, 3\)"):
        migrate(cursor)
    cursor.execute("DELETE FROM `user` WHERE id = 3")
    migrate(cursor)


def test_a_unique_index_of_another_name_will_do(cursor: Cursor) -> None:
    """A unique index is accepted whatever its name is."""
    cursor.execute(GIN_CHAT_DEMO)
    cursor.execute("CREATE UNIQUE INDEX mine ON `user` (user_name)")
    migrate(cursor)
    cursor.execute(
        "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() AND table_name = 'user'"
    )
    assert cursor.fetchone() == (2,)


def test_the_articles_users(cursor: Cursor) -> None:
    """Users 1 and 2 are added to an empty table only, with a digest that no password matches."""
    migrate(cursor)
    seed(cursor)
    seed(cursor)
    cursor.execute("SELECT id, status, password_digest FROM `user` ORDER BY id")
    assert cursor.fetchall() == ((1, "active", "!"), (2, "active", "!"))
    cursor.execute("DELETE FROM `user` WHERE id = 1")
    seed(cursor)
    cursor.execute("SELECT id FROM `user`")
    assert cursor.fetchall() == ((2,),)


def user_ids(cursor: Cursor) -> dict[str, str]:
    cursor.execute(
        "SELECT table_name, column_type FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND column_name = 'user_id'"
    )
    return dict(cursor.fetchall())


def test_columns_of_ids_are_as_wide_as_ids(cursor: Cursor) -> None:
    """Columns for ids have 64 bits, in new tables and in existing ones, which keep their rows."""
    wide = {"tandem_account": "bigint(20) unsigned", "tandem_signed_out": "bigint(20) unsigned"}
    migrate(cursor)
    assert user_ids(cursor) == wide
    for table in wide:
        cursor.execute(f"ALTER TABLE `{table}` MODIFY user_id int unsigned NOT NULL")
    cursor.execute("INSERT INTO tandem_account (user_id, generation) VALUES (7, 3)")
    cursor.execute("INSERT INTO tandem_signed_out VALUES ('0123456789abcdef', 7, 1)")
    migrate(cursor)
    assert user_ids(cursor) == wide
    cursor.execute("SELECT user_id, generation FROM tandem_account")
    assert cursor.fetchall() == ((7, 3),)
    cursor.execute("INSERT INTO `user` (id) VALUES (9223372036854775807)")


def test_an_existing_column_of_ids_is_its_owners(cursor: Cursor) -> None:
    """The id column of an existing user table is not changed, since other programs may refer to it."""
    cursor.execute(GIN_CHAT_DEMO)
    migrate(cursor)
    cursor.execute("SHOW COLUMNS FROM `user` LIKE 'id'")
    assert cursor.fetchone()[1] == "int(10) unsigned"


@pytest.mark.parametrize("table", ["", GIN_CHAT_DEMO])
def test_the_next_id(table: str, cursor: Cursor) -> None:
    """The next id has to be greater than all ids in stored messages, and a removed row's id is not reused."""
    if table:
        cursor.execute(table)
    migrate(cursor)
    assert next_id(cursor) == 1
    require_unused(cursor, 0)
    seed(cursor)
    cursor.execute("INSERT INTO `user` (user_name) VALUES ('AUTO_INCREMENT=99')")
    cursor.execute("DELETE FROM `user` WHERE id = 3")
    assert next_id(cursor) == 4
    require_unused(cursor, 3)
    with pytest.raises(SchemaError, match=r"would give id 4 .* up to id 4 .* ALTER TABLE `user` AUTO_INCREMENT = 5;"):
        require_unused(cursor, 4)
    cursor.execute("ALTER TABLE `user` AUTO_INCREMENT = 5")
    require_unused(cursor, 4)


def test_ids_that_the_table_does_not_assign(cursor: Cursor) -> None:
    """A table that does not assign ids is accepted; another program assigns them."""
    cursor.execute(GIN_CHAT_DEMO.replace("AUTO_INCREMENT", "NOT NULL COMMENT 'AUTO_INCREMENT=7'"))
    migrate(cursor)
    cursor.execute("ALTER TABLE `user` COMMENT = 'AUTO_INCREMENT=7'")
    assert next_id(cursor) is None
    require_unused(cursor, 2**63 - 1)


def test_one_process_at_a_time(cursor: Cursor, addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start together migrate one after the other."""
    monkeypatch.setattr("storage.mysql.schema.LOCK_WAIT", 0)
    cursor.execute("SELECT DATABASE()")
    (name,) = cursor.fetchone()
    with mysql_connection(addresses.mysql, database=name) as other, other.cursor() as second:
        second.execute("SELECT GET_LOCK(CONCAT('tandem:', DATABASE()), 0)")
        with pytest.raises(SchemaError, match="another process"):
            migrate(cursor)
        # A closed connection releases its lock a moment later.
        second.execute("SELECT RELEASE_LOCK(CONCAT('tandem:', DATABASE()))")
    migrate(cursor)
