"""What all HTTP answers have in common: the JSON envelope of gin-chat-demo, and errors in it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import structlog
from tornado.web import HTTPError, RequestHandler

from models.errors import ChatError, EngineUnavailable, Refused, UnknownUser
from models.ports import Users
from models.records import user_id

__all__ = ["BaseHandler", "NotFoundHandler", "log_request", "status_of"]

_log = structlog.get_logger(__name__)
T = TypeVar("T", bound=str)
_encode = msgspec.json.Encoder().encode


def status_of(error: BaseException | None) -> int:
    """The HTTP status for an error."""
    if isinstance(error, HTTPError):
        return error.status_code
    if isinstance(error, EngineUnavailable):
        return 503
    if isinstance(error, Refused):
        return error.code
    return 500


class BaseHandler(RequestHandler):
    """A handler that answers in the envelope {"status", "data", "msg", "error"}."""

    def id_argument(self, name: str) -> int:
        """The id of a user in the query. Raises HTTPError when it is missing, given twice or not an id."""
        values = self.get_query_arguments(name, strip=False)
        if len(values) != 1 or not values[0]:
            raise HTTPError(400, f"{name} is missing" if not any(values) else f"{name} is given twice")
        user = user_id(values[0])
        if user is None:
            raise HTTPError(400, f"{name} is not the id of a user")
        return user

    def choice_argument(self, name: str, choices: Sequence[T]) -> T:
        """One of `choices` in the query, the first if it is left out. Raises HTTPError."""
        values = self.get_query_arguments(name)
        for choice in choices:
            if values == [choice] or not values:
                return choice
        raise HTTPError(400, f"{name} is not one of " + ", ".join(choices))

    def int_argument(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """A number in the query. Raises HTTPError when it is none, or out of bounds."""
        text = self.get_query_argument(name, None)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
            raise HTTPError(400, f"{name} is not a number from {least} to {most}")
        return int(text)

    async def require_active(self, users: Users, *ids: int) -> None:
        """Raises UnknownUser for the first of these who is not an active user."""
        active = await users.active(*ids)
        for user in ids:
            if user not in active:
                raise UnknownUser(user)

    def answer(self, data: Any, status: int = 200, msg: str = "ok", error: str = "") -> None:
        """Finishes the request with the envelope; `status` is repeated as the HTTP status."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(_encode({"status": status, "data": data, "msg": msg, "error": error}))

    def _origin_matches_host(self, origin: str) -> bool:
        """Tornado's, which raises for an Origin that is no URL; called before anything that could catch it."""
        try:
            return super()._origin_matches_host(origin)
        except ValueError:
            return False

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Turns an exception into the envelope; what a bug says stays in the log."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        status = status_of(error) if error else status_code
        phrase = HTTPStatus(status).phrase
        if isinstance(error, EngineUnavailable):
            text = f"{error.engine} is unavailable, please retry"
        elif isinstance(error, ChatError):
            text = str(error)
        elif isinstance(error, HTTPError):
            text = error.log_message or phrase
        else:
            text = phrase
        self.answer(None, status, "fail", text)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Logs a bug with its traceback, anything else by its name."""
        if isinstance(value, (HTTPError, ChatError)) and status_of(value) != 500:
            _log.debug("refused", path=self.request.path, status=status_of(value), reason=str(value))
        else:
            _log.error("request_failed", path=self.request.path, exc_info=(typ, value, tb))


class NotFoundHandler(BaseHandler):
    """Every path that is nobody's."""

    def prepare(self) -> None:
        """Answers 404."""
        raise HTTPError(404, "no such path")


def log_request(handler: RequestHandler) -> None:
    """Tornado's `log_function`: one line for each HTTP request, without its query and its body."""
    _log.debug(
        "request",
        method=handler.request.method,
        path=handler.request.path,
        status=handler.get_status(),
        ms=round(1000 * handler.request.request_time(), 1),
    )
