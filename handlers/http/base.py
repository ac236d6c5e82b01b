"""The base of all HTTP handlers: the JSON envelope of gin-chat-demo, errors in it, and who the caller is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from math import ceil
from types import TracebackType
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog
from prometheus_client import Counter
from tornado.httputil import HTTPInputError, parse_body_arguments
from tornado.web import HTTPError, RequestHandler

from handlers.http.request_policy import LONGEST_WAIT, RequestPolicy, subject_of
from models.errors import (
    ChatError,
    DatabaseRefused,
    InvalidRequest,
    Overloaded,
    Refused,
    StorageUnavailable,
    TooFast,
)
from models.records import Identity, user_id

__all__ = ["BaseHandler", "NotFoundHandler", "log_request", "status_of"]

COOKIE = "tandem"
GOING_AWAY = "the server is going away"
AGAIN_AFTER = 5  # seconds after which a client may retry if the server has too much to do
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
A_YEAR = 31_536_000  # seconds for which browsers use only TLS, and cache files that never change
LOST_PORT = "Host lacks the page's port: a proxy has to hand on the Host that it was sent (nginx: $http_host)"
METHODS = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE")  # of all routes together

_PORT_OF_HOST = re.compile(r":([0-9]{1,5})$")
_log = structlog.get_logger(__name__)
T = TypeVar("T", bound=str)
_encode = msgspec.json.Encoder().encode


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, HTTPError):
        return error.status_code
    if isinstance(error, DatabaseRefused):
        return 500
    if isinstance(error, StorageUnavailable):
        return 503
    if isinstance(error, Refused):
        return error.code
    return 500


class BaseHandler(RequestHandler):
    """A handler that answers in the envelope {"status", "data", "msg", "error"}."""

    guarded: ClassVar[bool] = True  # routes without private data are open to all
    answers: ClassVar[bool] = True  # the successful answer needs headers for browsers; an upgrade does not
    linked: ClassVar[bool] = False  # links may lead here from other sites
    _under_way = False
    _of_user = False  # the request is counted for a user

    # Before the handler runs

    def set_default_headers(self) -> None:
        """Remove the header that names the server software, and set the headers of every answer."""
        self.clear_header("Server")
        if self.answers:
            self._guard_answer()

    def _guard_answer(self) -> None:
        """Set the security headers of every answer."""
        self._headers.update(HEADERS)
        if self.secure:
            self.set_header("Strict-Transport-Security", f"max-age={A_YEAR}")
        if self.policy.origins:
            self.set_header("Vary", "Origin")
            origin = self.request.headers.get("Origin")
            if origin in self.policy.origins:
                self.set_header("Access-Control-Allow-Origin", origin)
                self.set_header("Access-Control-Allow-Credentials", "true")
                self.set_header("Cross-Origin-Resource-Policy", "cross-origin")

    async def prepare(self) -> None:
        """Refuse callers that are not allowed, and requests after draining began. Delay those of a busy address."""
        self._under_way = True
        in_time = self.policy.begun(self)
        if self.guarded and not in_time:
            raise HTTPError(503, GOING_AWAY)
        await self._wait_for_address()
        refusal = self.policy.refusal(self.request, linked=self.linked) if self.guarded else None
        if refusal is not None:
            raise HTTPError(403, f"{refusal}; see --auth")

    async def _wait_for_address(self) -> None:
        """Wait while the address has sent too many requests that no user was authenticated for.

        Waiting costs nothing, and the next request of the connection is not read meanwhile. Raises TooFast if the wait
        would be too long.
        """
        wait = self.policy.unasked.of(self.address).take(0)
        if wait > LONGEST_WAIT:
            raise TooFast("requests from this address", wait)
        if wait:
            await asyncio.sleep(wait)

    @property
    def path(self) -> str:
        """The path of the request, for log lines."""
        return self.request.path

    def on_finish(self) -> None:
        """End a request. It counts against its address unless it was counted for a user."""
        self.leave()
        if not self._of_user:
            self.policy.unasked.of(self.address).charge(1.0)

    def leave(self) -> None:
        """Stop counting the request among those that draining waits for."""
        if self._under_way:
            self._under_way = False
            self.policy.ended(self)

    def options(self, *args: str, **kwargs: str) -> None:
        """Answer a preflight request of a browser (the Fetch standard, CORS).

        Only pages of trusted origins are allowed.
        """
        if self.request.headers.get("Origin") not in self.policy.origins:
            raise HTTPError(403, "cross-origin requests are not allowed")
        self.set_header("Access-Control-Allow-Methods", ", ".join(METHODS))
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)
        self.finish()

    @property
    def policy(self) -> RequestPolicy:
        """The request policy, one for the application."""
        policy: RequestPolicy = self.settings["policy"]
        return policy

    @property
    def secure(self) -> bool:
        """Whether the request used TLS."""
        return self.policy.secure(self.request)

    @property
    def address(self) -> str:
        """The client's address, as it is counted."""
        return subject_of(self.policy.address(self.request))

    # The request

    async def identify(self, ticket: str | None = None) -> Identity:
        """Authenticate the caller, and count the request for that user. Raises as Access.identify does, and TooFast."""
        uid = self.id_argument("uid") if self.get_query_arguments("uid", strip=False) else None
        identity = await self.policy.access.identify(uid=uid, token=self._token(), ticket=ticket)
        wait = self.policy.requests.of(identity.user).take()
        if wait:
            raise TooFast("requests", wait)
        self._of_user = True
        return identity

    def _token(self) -> str | None:
        """Return the token of the request: from its Authorization header (RFC 6750), else from its cookie."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return token.strip()
        return self.get_cookie(self._cookie) or self.get_cookie(self._bare_cookie)

    @property
    def _cookie(self) -> str:
        """The name of the cookie, with the port of the browser's URL if it has one.

        Browsers keep cookies by host, without the port. With one name, two servers on one host would sign out each
        other's users.
        """
        port = _PORT_OF_HOST.search(self.request.host)
        return f"{self._bare_cookie}-{port[1]}" if port else self._bare_cookie

    @property
    def _bare_cookie(self) -> str:
        """The cookie's name without a port.

        With TLS, no neighbouring site can have set it (RFC 6265bis, section 4.1.3).
        """
        return f"__Host-{COOKIE}" if self.secure else COOKIE

    def keep_token(self, token: str | None, lifetime: float = 0) -> None:
        """Set the cookie with a token for `lifetime` seconds, or delete it."""
        attributes: dict[str, Any] = {"httponly": True, "samesite": "Strict", "secure": self.secure}
        if token:
            self.set_cookie(self._cookie, token, max_age=int(lifetime), **attributes)
        else:
            for name in {self._cookie, self._bare_cookie if self.get_cookie(self._bare_cookie) else self._cookie}:
                self.clear_cookie(name, **attributes)

    def given(self) -> dict[str, Any]:
        """Return the fields of the body, which is a form or a JSON object. Raises InvalidRequest.

        A password in the query is refused: proxies and browsers keep URLs.
        """
        fields = self._body_fields()
        for name in ("password", "new_password"):
            if name not in fields and name in self.request.query_arguments:
                raise InvalidRequest(name, "stands in the query, which proxies log; send it in the body")
        return fields

    def _body_fields(self) -> dict[str, Any]:
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/json":
            try:
                body = msgspec.json.decode(self.request.body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                raise InvalidRequest("body", "is not JSON") from None
            if not isinstance(body, dict):
                raise InvalidRequest("body", "is not a JSON object")
            return body
        fields = {}
        arguments = self.request.body_arguments
        if self.request.method == "DELETE":  # whose body Tornado does not read
            try:
                parse_body_arguments(self.request.headers.get("Content-Type", ""), self.request.body, arguments, {})
            except HTTPInputError:
                raise InvalidRequest("body", "is not a form") from None
        for name, values in arguments.items():
            try:
                fields[name] = values[-1].decode()
            except UnicodeDecodeError:
                raise InvalidRequest(name, "is not UTF-8") from None
        return fields

    def id_argument(self, name: str) -> int:
        """Return a user's id from the query. Raises HTTPError if it is missing, given twice or not an id."""
        values = self.get_query_arguments(name, strip=False)
        if len(values) != 1 or not values[0]:
            raise HTTPError(400, f"{name} is missing" if not any(values) else f"{name} is given twice")
        user = user_id(values[0])
        if user is None:
            raise HTTPError(400, f"{name} is not the id of a user")
        return user

    def choice_argument(self, name: str, choices: Sequence[T]) -> T:
        """Return one of `choices` from the query, the first if it is left out. Raises HTTPError."""
        values = self.get_query_arguments(name)
        for choice in choices:
            if values == [choice] or not values:
                return choice
        raise HTTPError(400, f"{name} is not one of " + ", ".join(choices))

    def int_argument(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """Return a number from the query. Raises HTTPError if it is not one, or out of bounds."""
        text = self.get_query_argument(name, None)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
            raise HTTPError(400, f"{name} is not a number from {least} to {most}")
        return int(text)

    # The response

    def answer(self, data: Any, status: int = 200, msg: str = "ok", error: str = "") -> None:
        """Finish the request with the envelope. `status` is also the HTTP status."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(_encode({"status": status, "data": data, "msg": msg, "error": error}))

    def compute_etag(self) -> None:
        """Set no ETag: answers are not cached."""

    def check_trusted_origin(self, origin: str) -> bool:
        """Return whether a page of another origin may send requests; called by Tornado."""
        return origin in self.policy.origins

    def _check_cross_origin(self, check: Callable[[str], bool]) -> str | None:
        """Check a request that may change something or opens a socket. Return None, or the reason for the refusal."""
        if super()._check_cross_origin(check) is None:
            return None
        refusal = "cross-origin requests are not allowed"
        return f"{refusal}; {LOST_PORT}" if self._lost_port() else refusal

    def _lost_port(self) -> bool:
        """Return whether Origin and Host differ only in a port that a proxy has left out of Host."""
        try:
            origin = urlsplit(self.request.headers.get("Origin", ""))
            return bool(origin.port) and origin.hostname == self.request.host.lower()
        except ValueError:
            return False

    def _origin_matches_host(self, origin: str) -> bool:
        """Compare as Tornado does, but treat an Origin that is not a URL as a mismatch instead of raising."""
        try:
            return super()._origin_matches_host(origin)
        except ValueError:
            return False

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error. A request whose task was cancelled while the server ends gets 503."""
        if "exc_info" not in kwargs and self.policy.given_up:
            if self._headers_written:  # the answer is cut off, so the client must not take it as complete
                self.request.connection.stream.close()  # type: ignore[union-attr]
                self.leave()
                return
            error = HTTPError(503, GOING_AWAY)
            status_code, kwargs["exc_info"] = 503, (HTTPError, error, None)
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write an exception into the envelope. The text of an unexpected exception is only logged."""
        self._guard_answer()
        error = kwargs.get("exc_info", (None, None, None))[1]
        status = status_of(error) if error else status_code
        phrase = HTTPStatus(status).phrase
        if isinstance(error, DatabaseRefused):
            text = phrase
        elif isinstance(error, Overloaded):
            text = error.reason
            self.set_header("Retry-After", str(AGAIN_AFTER))
        elif isinstance(error, StorageUnavailable):
            text = f"{error.database} is unavailable, please retry"
        elif isinstance(error, ChatError):
            text = str(error)
        elif isinstance(error, HTTPError):
            text = error.log_message or phrase
        else:
            text = phrase
        if isinstance(error, TooFast):
            self.set_header("Retry-After", str(ceil(error.retry_after)))
        if status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if status == 405:
            names = [n for n in METHODS if getattr(type(self), n.lower()) is not getattr(RequestHandler, n.lower())]
            self.set_header("Allow", ", ".join(names))
        if status == 426:
            self.set_header("Sec-WebSocket-Version", "13")
        self.answer(None, status, "fail", text)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log an unexpected exception with its traceback, any other with its name."""
        known = isinstance(value, DatabaseRefused) or status_of(value) != 500  # storage logs DatabaseRefused
        if isinstance(value, (HTTPError, ChatError)) and known:
            # The texts of Tornado's own errors quote the request.
            reason = str(value) if isinstance(value, ChatError) else HTTPStatus(status_of(value)).phrase
            _log.debug("refused", path=self.path, status=status_of(value), reason=reason)
        else:
            _log.error("request_failed", path=self.path, exc_info=(typ, value, tb))


class NotFoundHandler(BaseHandler):
    """Answers all paths that have no handler."""

    guarded = False  # there is nothing to protect

    async def prepare(self) -> None:
        """Answer 404."""
        await super().prepare()
        raise HTTPError(404, "no such path")


def log_request(handler: RequestHandler, requests: Counter) -> None:
    """Count an HTTP request, and log it in one line without its query and its body."""
    requests.labels(type(handler).__name__, handler.get_status()).inc()
    _log.debug(
        "request",
        method=handler.request.method,
        path=handler.request.path,
        status=handler.get_status(),
        ms=round(1000 * handler.request.request_time(), 1),
    )
