"""MySQL's errors: outages, servers that take no writes, permanent refusals, and values that do not fit a column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from pymysql.constants import ER

from models.errors import DatabaseReadOnly, DatabaseRefused, InvalidRequest, StorageUnavailable

__all__ = [
    "NOT_READY",
    "READ_ONLY_MODE",
    "code_of",
    "is_duplicate",
    "is_lost",
    "is_misdirected",
    "is_read_only",
    "mysql_errors",
    "naming",
]

READ_ONLY_MODE = 1836
NOT_READY = 1047  # Galera: the node is not ready

# Temporary errors of the server: it is starting, ending, full or busy, or another transaction was faster. The client's
# own errors, from 2000 to 2999, are about the connection. All others stay until the operator changes something.
PASSING = frozenset(
    (
        1021,  # disk full
        1037,  # out of memory
        1038,  # out of memory for sorting
        1040,  # too many connections
        1041,  # out of memory
        1043,  # bad handshake
        NOT_READY,
        1053,  # the server is shutting down
        1077,
        1079,
        1080,
        1135,  # no thread can be created
        1152,  # the connection was aborted
        1158,  # network read and write errors
        1159,
        1160,
        1161,
        1180,  # error at COMMIT
        1184,
        1203,  # too many connections of this user
        1205,  # waited too long for a lock
        1213,  # deadlock
        1226,  # a limit of this user
        1317,  # the query was interrupted
        1927,  # the connection was killed
        1969,  # the query took too long
        3024,
        3100,  # group replication
        3101,
        3169,  # the session was killed
        4031,  # the server closed an idle connection
    )
)
LOST = frozenset((1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2055, 3169, 4031))
PREVENTED = 1290  # an option of the server prevents the statement
# The server, its tables or its transactions are read-only: it is a replica, or a failover is in progress.
READ_ONLY = frozenset((1036, 1792, READ_ONLY_MODE, 1874))

# Texts with characters that the column's character set lacks, and texts that are too long for the column.
UNSUITABLE = {
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD: "holds a character that the user table cannot store",
    ER.DATA_TOO_LONG: "is longer than the user table can store",
}
# The first of these in a comparison: MySQL's and MariaDB's codes for a text that cannot be converted.
INCOMPARABLE = frozenset((ER.CANT_AGGREGATE_2COLLATIONS, 1300, 1977, 3854, 3988))

_COLUMN = re.compile(r"column (?:`[^`]*`\.`[^`]*`\.)?[`']([^`']+)[`']")
_VALUES = re.compile(r"(entry|value:?|string:?|near) '.*'", re.DOTALL)


def code_of(error: BaseException) -> int:
    """Return the code of the driver's error, 0 for one without a code."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that the connection was lost, rather than that the server refused."""
    return isinstance(error, (OSError, pymysql.InterfaceError)) or code_of(error) in LOST


def is_read_only(error: BaseException) -> bool:
    """Return whether an error means that the server takes no writes."""
    code = code_of(error)
    return code in READ_ONLY or (code == PREVENTED and "read-only" in str(error.args[-1]).replace("_", "-"))


def is_misdirected(error: BaseException) -> bool:
    """Return whether an error means that another server of the same database may do what this one refuses."""
    return is_read_only(error) or code_of(error) == NOT_READY


def is_duplicate(error: pymysql.MySQLError) -> bool:
    """Return whether an error means that another row already has a value that must be unique."""
    return code_of(error) == ER.DUP_ENTRY


@contextmanager
def naming(*columns: str) -> Iterator[None]:
    """Raise InvalidRequest if one of these columns cannot store its value, or a single one be compared with it."""
    try:
        yield
    except pymysql.MySQLError as error:
        code = code_of(error)
        column = _COLUMN.search(str(error.args[-1]))
        if code in UNSUITABLE and column is not None and column[1] in columns:
            raise InvalidRequest(column[1], UNSUITABLE[code]) from None
        if code in INCOMPARABLE and len(columns) == 1:
            raise InvalidRequest(columns[0], UNSUITABLE[ER.TRUNCATED_WRONG_VALUE_FOR_FIELD]) from None
        raise


@contextmanager
def mysql_errors() -> Iterator[None]:
    """Turn the driver's errors into StorageUnavailable, DatabaseReadOnly and DatabaseRefused."""
    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        code = code_of(error)
        text = _VALUES.sub(r"\1 …", str(error))  # users' values stay out of the log
        reason = f"{type(error).__name__}: {text}"
        if is_read_only(error):
            raise DatabaseReadOnly("mysql", reason) from error
        if isinstance(error, (OSError, pymysql.InterfaceError)) or 2000 <= code < 3000 or code in PASSING or not code:
            raise StorageUnavailable("mysql", reason) from error
        raise DatabaseRefused("mysql", reason, str(code)) from error
