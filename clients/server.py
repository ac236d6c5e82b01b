"""The server as a client asks it over HTTP, and what can go wrong with it.

ClientError
+-- Unreachable     no answer, or none at the moment: the same may help later
+-- Refused         the server said no, and why
    +-- SessionOver     to everything, until somebody signs in again
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse

from clients.wire import Senseless, data_in, session_in, user_in

__all__ = ["ClientError", "Peer", "Refused", "Server", "Session", "SessionOver", "Unreachable", "error_of"]

CONNECT_WITHIN = 10.0  # seconds
ANSWER_WITHIN = 15.0  # seconds; then a request counts as failed, and a connection as dead
LONGEST_REASON = 300  # characters of what a server says is wrong
LONGEST_WAIT = 3600.0  # seconds that a server may have a client wait
NO_SENSE = "the server's answer makes no sense"
MAX_CONTENT = 8192  # characters of a message, unless the server says something else


T = TypeVar("T")


class ClientError(Exception):
    """The root of what this client raises."""


class Unreachable(ClientError):
    """No answer, or none at the moment; the text says what happened."""


class Refused(ClientError):
    """The server said no; `code` is an HTTP status, `retry_after` in seconds, 0 if it said nothing of it."""

    def __init__(self, code: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.code = code
        self.retry_after = retry_after


class SessionOver(Refused):
    """The token is no longer good, or the account is gone."""


class Peer(NamedTuple):
    """A user, as others see it."""

    id: int
    name: str
    nick: str

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Peer:
        """From an answer that has been checked, which has the nickname under one of two names."""
        return cls(shown["id"], shown["user_name"], shown.get("nickname") or shown.get("nick_name") or "")

    def __str__(self) -> str:
        return self.name or f"user {self.id}"


class Session(NamedTuple):
    """What the server says before anybody signs in: whether it believes who somebody claims to be, and some users.

    `log` is the id of the installation, empty if the server does not say it.
    """

    believes: bool
    users: list[Peer]
    max_content: int
    log: str = ""


class Server:
    """A server at a URL like https://chat.example. `ca_file` has certificates to trust besides the usual ones.

    Each request raises Unreachable or Refused. Who asks is whoever signed in or was believed last.
    """

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._ca_file = ca_file
        self._http = AsyncHTTPClient(force_instance=True)
        self.log = ""  # of the installation, once it has said
        self._uid = 0
        self._token = ""

    def close(self) -> None:
        """Lets go of the connections."""
        self._http.close()

    # Who asks

    async def session(self) -> Session:
        """How the server knows who asks."""
        try:
            answer = await self.get("/session", session_in)
        except Refused as error:
            if error.code == 404:  # a server that does not say asks for a password
                return Session(False, [], MAX_CONTENT)
            raise
        users = [Peer.of(user) for user in answer["users"]]
        self.log = answer.get("log", "")
        return Session(answer["auth"] != "token", users, answer["max_content"], self.log)

    async def sign_in(self, name: str, password: str) -> Peer:
        """Signs in; the user. From now on the token says who asks."""
        answer = await self.post("/user/login", {"user_name": name, "password": password})
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):  # it becomes part of a header
            raise Unreachable(NO_SENSE)
        try:
            user = Peer.of(user_in(answer.get("user")))
        except Senseless:
            raise Unreachable(NO_SENSE) from None
        self._token = token
        return user

    async def register(self, name: str, nick: str, password: str) -> None:
        """Makes an account."""
        await self.post("/user/register", {"user_name": name, "nick_name": nick, "password": password})

    async def believed(self, name: str, session: Session) -> Peer | None:
        """The user of that name where the server believes; None if there is none. From now on it is who asks."""
        user = next((each for each in session.users if each.name == name), None)
        if user is None and session.users:
            self._uid = session.users[0].id  # to ask at all
            user = await self.named(name)
        self._uid = user.id if user else 0
        return user

    async def named(self, name: str) -> Peer | None:
        """The user of exactly that name."""
        try:
            return Peer.of(await self.get("/users", user_in, user_name=name))
        except Refused as error:
            if error.code in (400, 404) and not isinstance(error, SessionOver):
                return None
            raise

    # Requests

    async def get(self, path: str, checked: Callable[[Any], T], **query: Any) -> T:
        """The `data` of an answer, as `checked` returns it."""
        try:
            return checked(await self._data(self._request(path, query)))
        except Senseless:
            raise Unreachable(NO_SENSE) from None

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The `data` of an answer to a JSON body."""
        request = self._request(path, {})
        request.method, request.body = "POST", json.dumps(body).encode()
        request.headers["Content-Type"] = "application/json"
        return await self._data(request)

    def socket_request(self) -> HTTPRequest:
        """What opens an inbox socket of dialect 2."""
        request = self._request("/ws", {"v": 2, "lang": "en"})
        request.url = "ws" + request.url.removeprefix("http")
        return request

    def _request(self, path: str, query: dict[str, Any]) -> HTTPRequest:
        if self._uid:
            query["uid"] = self._uid
        return HTTPRequest(
            self.url + path + ("?" + urlencode(query) if query else ""),
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
            connect_timeout=CONNECT_WITHIN,
            request_timeout=ANSWER_WITHIN,
            follow_redirects=False,
            ca_certs=self._ca_file,
        )

    async def _data(self, request: HTTPRequest) -> Any:
        try:
            return data_in((await self._http.fetch(request)).body)
        except (OSError, HTTPClientError, Senseless, ValueError) as error:
            raise error_of(error, self.url) from None


def error_of(error: BaseException, url: str) -> ClientError:
    """What went wrong, from what the HTTP client raised."""
    if not isinstance(error, HTTPClientError):
        if not isinstance(error, OSError):
            return Unreachable(f"what answers at {url} is not a Tandem server")
        return Unreachable(f"{urlsplit(url).netloc}: {str(error) or 'no answer'}")
    if error.response is None or error.code == 599:
        return Unreachable(f"{urlsplit(url).netloc}: {error.message}")
    reason = _reason(error.response) or error.message or "refused"
    if error.code >= 500:
        return Unreachable(reason)
    kind = SessionOver if error.code == 401 else Refused
    return kind(error.code, reason, _seconds(error.response.headers.get("Retry-After", "")))


def _reason(response: HTTPResponse) -> str:
    try:
        return str(json.loads(response.body)["error"])[:LONGEST_REASON]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _seconds(text: str) -> float:
    return min(float(text[:20]), LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0
