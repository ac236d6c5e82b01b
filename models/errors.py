"""The errors of a chat, as one tree. Each carries its wire code (docs/protocol.md, "Codes").

ChatError
├── Refused             the request cannot be granted
│   ├── InvalidFrame            400    the frame is not valid
│   ├── InvalidRequest          400    an HTTP request is not valid; names the field
│   ├── Unauthenticated         401    the caller is not authenticated
│   ├── Forbidden               403    the caller is authenticated, but not allowed
│   │   └── Blocked             403    one of the two users has blocked the other
│   ├── UnknownUser             404    no such user, or not an active one
│   ├── NameTaken               409    a user of that name exists
│   ├── TooFast                 429    too many requests; says when to retry
│   └── LimitReached            50006  the limit rule refuses
│       └── QuotaReached            50006  the quota of an account for an hour or a day is used up
└── StorageUnavailable  40001   a database is down or slow; the outcome is unknown
    ├── NotSent                 40001  nothing reached the database
    ├── Overloaded              40001  the server has too much to do, or is about to end
    ├── DatabaseReadOnly        40001  the database answers, but takes no writes for the moment
    └── DatabaseRefused         40001  the database would refuse the same again; HTTP says 500
"""

from __future__ import annotations

__all__ = [
    "Blocked",
    "ChatError",
    "DatabaseReadOnly",
    "DatabaseRefused",
    "Forbidden",
    "InvalidFrame",
    "InvalidRequest",
    "LimitReached",
    "NameTaken",
    "NotSent",
    "Overloaded",
    "QuotaReached",
    "Refused",
    "StorageUnavailable",
    "TooFast",
    "Unauthenticated",
    "UnknownUser",
]


class ChatError(Exception):
    """The root of the tree. `code` is the wire code."""

    code = 500


class Refused(ChatError):
    """The request cannot be granted. Nothing was changed."""

    code = 400


class InvalidFrame(Refused):
    """The frame is not valid. The text is "field: reason" ("frame: …" for the whole frame), and quotes no value."""


class InvalidRequest(Refused):
    """A field of an HTTP request is not valid."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class Unauthenticated(Refused):
    """The caller is not authenticated. The text says what was wrong with the credentials, and quotes none of them."""

    code = 401


class Forbidden(Refused):
    """The caller is authenticated, but not allowed to do this."""

    code = 403


class Blocked(Forbidden):
    """One of the two users has blocked the other. The message was not stored."""

    def __init__(self) -> None:
        super().__init__("one of the two has blocked the other")


class TooFast(Refused):
    """There were too many requests. `retry_after` (seconds) says when to retry."""

    code = 429

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"too many {what}")
        self.retry_after = retry_after


class UnknownUser(Refused):
    """The user does not exist or is not active."""

    code = 404

    def __init__(self, user: int) -> None:
        super().__init__(f"no such user: {user}")
        self.user = user


class NameTaken(Refused):
    """A user of that name exists."""

    code = 409

    def __init__(self, user_name: str) -> None:
        super().__init__(f"user_name: taken: {user_name}")


class LimitReached(Refused):
    """The limit rule refuses the message. It was not stored."""

    code = 50006


class QuotaReached(LimitReached):
    """An account has written to too many strangers in an hour, or too much in a day. The message was not stored.

    `retry_after` (seconds) says when the quota allows more.
    """

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"too many {what}")
        self.retry_after = retry_after


class StorageUnavailable(ChatError):
    """A database is down or slow. The operation may have been done or not.

    `summary` says why in words that every caller may read, without names and addresses. It is empty if all that is
    known is that the database is unavailable.
    """

    code = 40001

    def __init__(self, database: str, reason: str, summary: str = "") -> None:
        super().__init__(f"{database}: {reason}")
        self.database = database
        self.summary = summary


class NotSent(StorageUnavailable):
    """There was no connection to the database, so nothing of the request reached it."""


class Overloaded(StorageUnavailable):
    """The server has too much to do, or is about to end. Nothing was done, and no database is the cause.

    `reason` is a sentence for the caller: what is wrong, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("server", reason)
        self.reason = reason


class DatabaseReadOnly(StorageUnavailable):
    """A database answers reads, but takes no writes, as during a failover. Nothing was changed."""

    def __init__(self, database: str, reason: str, summary: str = "it takes no writes") -> None:
        super().__init__(database, reason, summary)


class DatabaseRefused(StorageUnavailable):
    """A database answers, but refuses the operation until its operator changes something.

    A right is missing, or the tables do not fit. `kind` is the database's own code of the error. HTTP answers 500,
    since a retry is of no use. Only the log has the cause.
    """

    def __init__(self, database: str, reason: str, kind: str, summary: str = "it refuses what the server asks") -> None:
        super().__init__(database, reason, summary)
        self.kind = kind
