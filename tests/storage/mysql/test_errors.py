"""Tests of MySQL's errors: temporary ones, permanent ones, and errors about users' values."""

from __future__ import annotations

import re

import pymysql
import pytest

from models.errors import DatabaseReadOnly, DatabaseRefused, InvalidRequest, StorageUnavailable
from storage.mysql.errors import is_duplicate, is_lost, is_misdirected, mysql_errors, naming
from tests.storage.conftest import MakeFresh

PASSING = {
    "gone away": pymysql.OperationalError(2006, "MySQL server has gone away"),
    "cannot connect": pymysql.OperationalError(2003, "Can't connect to MySQL server"),
    "connection closed": pymysql.InterfaceError(0, ""),
    "deadlock": pymysql.OperationalError(1213, "Deadlock found"),
    "too many connections": pymysql.OperationalError(1040, "Too many connections"),
    "Galera": pymysql.OperationalError(1047, "WSREP has not yet prepared node"),
    "killed": pymysql.OperationalError(1927, "Connection was killed"),
    "refused": ConnectionRefusedError(111, "Connection refused"),
}
LASTING = {
    "no right": pymysql.OperationalError(1142, "UPDATE command denied"),
    "no default": pymysql.OperationalError(1364, "Field 'x' doesn't have a default value"),
    "out of range": pymysql.DataError(1264, "Out of range value for column 'user_id' at row 1"),
    "no table": pymysql.ProgrammingError(1146, "Table doesn't exist"),
    "wrong password": pymysql.OperationalError(1045, "Access denied"),
    "another option": pymysql.OperationalError(1290, "The server is running with the --skip-grant-tables option"),
    "trigger": pymysql.OperationalError(1644, "not today"),
}
READ_ONLY = {
    "MariaDB": pymysql.OperationalError(1290, "The MariaDB server is running with the --read-only option"),
    "MySQL": pymysql.OperationalError(1290, "The MySQL server is running with the --super-read-only option"),
    "InnoDB": pymysql.OperationalError(1036, "Table 'user' is read only"),
    "a transaction": pymysql.OperationalError(1792, "Cannot execute statement in a READ ONLY transaction"),
    "a mode": pymysql.OperationalError(1836, "Running in read-only mode"),
}


@pytest.mark.parametrize("error", PASSING.values(), ids=PASSING)
def test_temporary_errors_are_outages(error: Exception) -> None:
    """A temporary error is raised as StorageUnavailable."""
    with pytest.raises(StorageUnavailable) as caught, mysql_errors():
        raise error
    assert type(caught.value) is StorageUnavailable
    assert str(error.args[-1]) in str(caught.value)


@pytest.mark.parametrize("error", READ_ONLY.values(), ids=READ_ONLY)
def test_a_server_that_takes_no_writes(error: Exception) -> None:
    """A server that is read-only is distinguished from one that is away."""
    with pytest.raises(DatabaseReadOnly, match=re.escape(error.args[1])), mysql_errors():
        raise error


def test_what_another_server_may_do() -> None:
    """Only a server that is read-only or not ready is left for another one."""
    left = {name for name, error in {**PASSING, **READ_ONLY, **LASTING}.items() if is_misdirected(error)}
    assert left == {"Galera", *READ_ONLY}


@pytest.mark.parametrize("error", LASTING.values(), ids=LASTING)
def test_permanent_errors_are_refusals(error: Exception) -> None:
    """A permanent error is raised as DatabaseRefused, with the database's code and text."""
    with pytest.raises(DatabaseRefused) as caught, mysql_errors():
        raise error
    assert caught.value.kind == str(error.args[0])
    assert error.args[1] in str(caught.value)


def test_values_of_users_are_not_shown() -> None:
    """Users' values are removed from errors, since errors are logged."""
    for code, text in (
        (1062, "Duplicate entry 'secret' for key 'email'"),
        (1064, "You have an error in your SQL syntax near 'secret' at line 1"),
        (1366, "Incorrect string value: 'secret' for column `a`.`b`.`c` at row 1"),
    ):
        with pytest.raises(DatabaseRefused) as caught, mysql_errors():
            raise pymysql.OperationalError(code, text)
        assert "secret" not in str(caught.value)


def test_other_errors_are_not_changed() -> None:
    """Errors that are not the driver's are not changed."""
    with pytest.raises(InvalidRequest), mysql_errors():
        raise InvalidRequest("field", "x")


def test_a_lost_connection() -> None:
    """`is_lost` is true for a connection that has ended on either side, and false for a refusal of the server."""
    assert all(is_lost(PASSING[name]) for name in ("gone away", "connection closed", "killed", "refused"))
    assert not any(is_lost(error) for error in (PASSING["deadlock"], *LASTING.values()))


@pytest.mark.parametrize(
    ("charset", "text"),
    [("utf8mb3", "fox🦊fox"), ("latin1", "fox🦊fox"), ("latin1", "北京的狐狸"), ("ascii", "Zoë-Zoë")],
)
def test_a_text_that_a_column_cannot_keep(charset: str, text: str, make_fresh: MakeFresh) -> None:
    """An error names the column that cannot store a text; a comparison with that text is no error, or the same one."""
    *_, cursor = make_fresh(charset)
    cursor.execute("CREATE TABLE t (name varchar(255), other varchar(255))")
    with pytest.raises(InvalidRequest, match=r"^name: holds a character"), naming("name", "other"):
        cursor.execute("INSERT INTO t (other, name) VALUES ('x', %s)", (text,))
    with pytest.raises(pymysql.MySQLError), naming("other"):
        cursor.execute("INSERT INTO t (other, name) VALUES ('x', %s)", (text,))
    try:
        with naming("name"):
            assert not cursor.execute("SELECT 1 FROM t WHERE name = %s", (text,))
    except InvalidRequest:
        pass


def test_a_text_that_is_too_long(make_fresh: MakeFresh) -> None:
    """An error names the column for which a text is too long."""
    *_, cursor = make_fresh()
    cursor.execute("CREATE TABLE t (name varchar(5) UNIQUE)")
    with pytest.raises(InvalidRequest, match=r"^name: is longer"), naming("name"):
        cursor.execute("INSERT INTO t (name) VALUES ('longer')")
    cursor.execute("INSERT INTO t (name) VALUES ('short')")
    with pytest.raises(pymysql.IntegrityError) as caught, naming("name"):
        cursor.execute("INSERT INTO t (name) VALUES ('SHORT')")
    assert is_duplicate(caught.value)


@pytest.mark.parametrize("code", [1267, 1977, 3854, 3988])
def test_a_text_that_cannot_be_compared(code: int) -> None:
    """A text that cannot be compared is reported for its column, if only one column comes into question."""
    with pytest.raises(InvalidRequest, match=r"^name:"), naming("name"):
        raise pymysql.OperationalError(code, "Conversion from collation utf8mb4 into latin1 impossible for parameter")
    with pytest.raises(pymysql.OperationalError), naming("name", "other"):
        raise pymysql.OperationalError(code, "Conversion from collation utf8mb4 into latin1 impossible for parameter")
