"""MongoDB's errors: outages, requests that never left this process, and permanent refusals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    CursorNotFound,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from models.errors import DatabaseRefused, NotSent, StorageUnavailable
from storage.outages import Outages

__all__ = ["MongoErrors", "refusal"]

# The server's codes for temporary errors: a primary is being elected, a member ends or is slow, the disk is full for a
# while, or another operation was faster (src/mongo/base/error_codes.yml). All others stay until an operator acts.
PASSING = frozenset(
    (
        *(
            6,
            7,
            24,
            43,
            46,
            50,
            63,
            64,
            84,
            89,
            90,
            91,
            100,
            112,
            133,
            134,
            136,
            150,
            175,
            189,
            202,
            237,
            239,
            246,
            262,
        ),
        *(279, 290, 314, 317, 327, 358, 365, 384, 391, 9001, 10107, 11000, 11600, 11601, 11602, 13388, 13435, 13436),
        14031,
    )
)
LABELS = ("RetryableWriteError", "TransientTransactionError")


class MongoErrors:
    """Translate the driver's errors and log outages. All calls of one client use the same object."""

    def __init__(self) -> None:
        self._outages = Outages("mongodb", time.monotonic)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Watch one call. Raises StorageUnavailable, NotSent, DatabaseRefused."""
        with self._outages.watch(), _mongo_errors():
            yield


@contextmanager
def _mongo_errors() -> Iterator[None]:
    """Turn the driver's errors into StorageUnavailable, NotSent and DatabaseRefused."""
    try:
        yield
    except (ServerSelectionTimeoutError, WaitQueueTimeoutError) as error:
        raise NotSent("mongodb", f"{type(error).__name__}: {str(error).partition(',')[0]}") from error
    except PyMongoError as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ConfigurationError):
            raise DatabaseRefused("mongodb", reason, "Configuration") from error
        if not isinstance(error, OperationFailure) or isinstance(error, CursorNotFound | WriteConcernError):
            raise StorageUnavailable("mongodb", reason) from error
        if isinstance(error, BulkWriteError):
            raise _of_many(error, reason) from error
        if error.code is None or any(error.has_error_label(label) for label in LABELS):
            raise StorageUnavailable("mongodb", reason) from error
        raise refusal(error.code, reason, error.details) from error


def _of_many(error: BulkWriteError, reason: str) -> StorageUnavailable:
    """Return the error for a bulk write: that of its first failed write."""
    failures = error.details.get("writeErrors", [])
    return refusal(failures[0]["code"], reason) if failures else StorageUnavailable("mongodb", reason)


def refusal(code: int, reason: str, details: Any = None) -> StorageUnavailable:
    """Return the error for one of the server's codes."""
    if code in PASSING:
        return StorageUnavailable("mongodb", reason)
    return DatabaseRefused("mongodb", reason, str((details or {}).get("codeName", code)))
