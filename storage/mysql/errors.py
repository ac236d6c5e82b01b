"""What MySQL's errors mean: an outage, a refusal that lasts, or a value that its column cannot keep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql
from pymysql.constants import ER

from models.errors import DatabaseRefused, EngineUnavailable, InvalidRequest

__all__ = ["is_duplicate", "is_lost", "mysql_errors", "naming"]

# Errors of the server that go by themselves: it is starting, ending, full or busy, or another transaction was faster.
# The client's own, from 2000 to 2999, are about the connection. All others stay until the operator changes something.
PASSING = frozenset(
    (
        1021,  # disk full
        1037,  # out of memory
        1038,  # out of memory for sorting
        1040,  # too many connections
        1041,  # out of memory
        1043,  # bad handshake
        1047,  # Galera: the node is not ready
        1053,  # the server is shutting down
        1077,
        1079,
        1080,
        1135,  # no thread can be made
        1152,  # the connection was aborted
        1158,  # read and write errors of the network
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

# Texts that a column's character set does not have, or that are too long for it.
UNSUITABLE = {
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD: "holds a character that the user table cannot keep",
    ER.DATA_TOO_LONG: "is longer than the user table can keep",
}
# The same, told of a comparison: MySQL's and MariaDB's codes for a text that cannot be converted.
INCOMPARABLE = frozenset((ER.CANT_AGGREGATE_2COLLATIONS, 1300, 1977, 3854, 3988))

_COLUMN = re.compile(r"column (?:`[^`]*`\.`[^`]*`\.)?[`']([^`']+)[`']")
_VALUES = re.compile(r"(entry|value:?|string:?|near) '.*'", re.DOTALL)


def _code(error: BaseException) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection has ended, and not that the server refuses."""
    return isinstance(error, (OSError, pymysql.InterfaceError)) or _code(error) in LOST


def is_duplicate(error: pymysql.MySQLError) -> bool:
    """Whether an error says that another row has a value that must be unique."""
    return _code(error) == ER.DUP_ENTRY


@contextmanager
def naming(*columns: str) -> Iterator[None]:
    """Raises InvalidRequest when one of these columns cannot keep its value, or the only one be compared with it."""
    try:
        yield
    except pymysql.MySQLError as error:
        code = _code(error)
        column = _COLUMN.search(str(error.args[-1]))
        if code in UNSUITABLE and column is not None and column[1] in columns:
            raise InvalidRequest(column[1], UNSUITABLE[code]) from None
        if code in INCOMPARABLE and len(columns) == 1:
            raise InvalidRequest(columns[0], UNSUITABLE[ER.TRUNCATED_WRONG_VALUE_FOR_FIELD]) from None
        raise


@contextmanager
def mysql_errors() -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except (pymysql.MySQLError, OSError) as error:
        code = _code(error)
        text = _VALUES.sub(r"\1 …", str(error))  # what users have given stays out of logs
        reason = f"{type(error).__name__}: {text}"
        if isinstance(error, (OSError, pymysql.InterfaceError)) or 2000 <= code < 3000 or code in PASSING or not code:
            raise EngineUnavailable("mysql", reason) from error
        raise DatabaseRefused("mysql", reason, str(code)) from error
