"""What can go wrong in a chat, one tree; each error carries its wire code (docs/protocol.md, "Codes").

ChatError
├── Refused             the request cannot be granted
│   ├── InvalidFrame            400    the frame is not valid
│   ├── InvalidRequest          400    an HTTP request is not valid; names the field
│   ├── Unauthenticated         401    it is not known who asks
│   ├── Forbidden               403    it is known who asks, and that they may not
│   │   └── Blocked             403    one of the two has blocked the other
│   ├── UnknownUser             404    no such user, or not an active one
│   ├── NameTaken               409    a user of that name exists
│   ├── TooFast                 429    too many requests; says when the next one has a chance
│   └── LimitReached            50006  the limit rule
│       └── QuotaReached            50006  what one account may do in an hour or a day
└── EngineUnavailable   40001   an engine is down or slow; nothing is promised
    ├── NotSent                 40001  … and it is known that nothing reached the engine
    ├── Overloaded              40001  the server has too much to do, or is about to end; says with what
    └── DatabaseRefused         40001  it answers, and would refuse the same again; HTTP says 500
"""

from __future__ import annotations

__all__ = [
    "Blocked",
    "ChatError",
    "DatabaseRefused",
    "EngineUnavailable",
    "Forbidden",
    "InvalidFrame",
    "InvalidRequest",
    "LimitReached",
    "NameTaken",
    "NotSent",
    "Overloaded",
    "QuotaReached",
    "Refused",
    "TooFast",
    "Unauthenticated",
    "UnknownUser",
]


class ChatError(Exception):
    """The root; `code` is what the wire says."""

    code = 500


class Refused(ChatError):
    """The request cannot be granted, now or ever; nothing was changed."""

    code = 400


class InvalidFrame(Refused):
    """The frame is not valid; the text is "field: reason" ("frame: …" for the whole), and quotes nothing of it."""


class InvalidRequest(Refused):
    """A field of an HTTP request is not valid."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class Unauthenticated(Refused):
    """It is not known who asks; the text says what was wrong, without saying it."""

    code = 401


class Forbidden(Refused):
    """It is known who asks, and that they may not."""

    code = 403


class Blocked(Forbidden):
    """One of the two has blocked the other; the message was not stored."""

    def __init__(self) -> None:
        super().__init__("one of the two has blocked the other")


class TooFast(Refused):
    """Too many requests; `retry_after` (seconds) says when the next one has a chance."""

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
    """The limit rule refuses the message; it was not stored."""

    code = 50006


class QuotaReached(LimitReached):
    """An account has written to too many strangers in an hour, or too much in a day; the message was not stored.

    `retry_after` (seconds) says when there is room again.
    """

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"too many {what}")
        self.retry_after = retry_after


class EngineUnavailable(ChatError):
    """An engine is down or slow. What was asked of it may or may not have happened."""

    code = 40001

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(f"{engine}: {reason}")
        self.engine = engine


class NotSent(EngineUnavailable):
    """No connection to the engine could be had, so nothing of the request reached it."""


class Overloaded(EngineUnavailable):
    """The server has too much to do for this, or is about to end. Nothing was done, and no database is to blame.

    `reason` is a sentence for whoever asked: what is the matter, and what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("server", reason)
        self.reason = reason


class DatabaseRefused(EngineUnavailable):
    """A database answers, and will not do what is asked until its operator changes something.

    A right is missing, or the tables do not fit. `kind` is the database's own code of the error. HTTP answers 500,
    since to try again is no use; the cause is in the log alone.
    """

    def __init__(self, engine: str, reason: str, kind: str) -> None:
        super().__init__(engine, reason)
        self.kind = kind
