"""The server's HTTP interface, and its errors.

ClientError
+-- Unreachable     no answer, or none at the moment: a retry may help
+-- Refused         the server refuses, and says why
    +-- SessionOver     it refuses everything until the user signs in again
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
ANSWER_WITHIN = 15.0  # seconds; after that a request has failed, and a connection is dead
LONGEST_REASON = 300  # characters of a server's error that are shown
LONGEST_WAIT = 3600.0  # seconds that a server may make a client wait, at most
NO_SENSE = "the server's answer makes no sense"
MAX_CONTENT = 8192  # characters of a message, unless the server says otherwise


T = TypeVar("T")


class ClientError(Exception):
    """The root of the client's errors."""


class Unreachable(ClientError):
    """There is no answer, or none at the moment. The text says what happened."""


class Refused(ClientError):
    """The server refuses. `code` is an HTTP status; `retry_after` is in seconds, 0 if the server does not say."""

    def __init__(self, code: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.code = code
        self.retry_after = retry_after


class SessionOver(Refused):
    """The token is no longer valid, or the account is gone."""


class Peer(NamedTuple):
    """A user, as other users see one."""

    id: int
    name: str
    nick: str

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Peer:
        """Return the user in a checked answer, which has the nickname under one of two names."""
        return cls(shown["id"], shown["user_name"], shown.get("nickname") or shown.get("nick_name") or "")

    def __str__(self) -> str:
        return self.name or f"user {self.id}"


class Session(NamedTuple):
    """What the server says before signing in: whether it believes `uid`, and some users.

    `log` is the id of the installation, empty if the server does not say it.
    """

    believes: bool
    users: list[Peer]
    max_content: int
    log: str = ""


class Server:
    """A server at a URL like https://chat.example. `ca_file` has certificates to trust instead of the usual ones.

    Each request raises Unreachable or Refused. The caller is the user that signed in, or that was believed, last. Until
    then it is the one of `uid` or `token`.
    """

    def __init__(self, url: str, *, ca_file: str | None = None, uid: int = 0, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._ca_file = ca_file
        self._http = AsyncHTTPClient(force_instance=True)
        self.log = ""  # the id of the installation, once it is known
        self._uid = uid
        self._token = token

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Authentication

    async def session(self) -> Session:
        """Return how the server authenticates callers."""
        try:
            answer = await self.get("/session", session_in)
        except Refused as error:
            if error.code == 404:  # an older server, which requires a password
                return Session(False, [], MAX_CONTENT)
            raise
        users = [Peer.of(user) for user in answer["users"]]
        self.log = answer.get("log", "")
        return Session(answer["auth"] != "token", users, answer["max_content"], self.log)

    async def sign_in(self, name: str, password: str) -> Peer:
        """Sign in and return the user. From now on requests have the token."""
        answer = await self.post("/user/login", {"user_name": name, "password": password})
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):  # a header has it
            raise Unreachable(NO_SENSE)
        try:
            user = Peer.of(user_in(answer.get("user")))
        except Senseless:
            raise Unreachable(NO_SENSE) from None
        self._token = token
        return user

    async def register(self, name: str, nick: str, password: str) -> None:
        """Create an account."""
        await self.post("/user/register", {"user_name": name, "nick_name": nick, "password": password})

    async def believed(self, name: str, session: Session) -> Peer | None:
        """Return the user of that name if the server believes `uid`, None if there is none.

        From now on requests have its `uid`.
        """
        user = next((each for each in session.users if each.name == name), None)
        if user is None and session.users:
            self._uid = session.users[0].id  # the search needs a `uid`
            user = await self.named(name)
        self._uid = user.id if user else 0
        return user

    async def named(self, name: str) -> Peer | None:
        """Return the user of exactly that name."""
        try:
            return Peer.of(await self.get("/users", user_in, user_name=name))
        except Refused as error:
            if error.code in (400, 404) and not isinstance(error, SessionOver):
                return None
            raise

    # Requests

    async def get(self, path: str, checked: Callable[[Any], T], **query: Any) -> T:
        """Return the `data` of an answer, checked by `checked`."""
        try:
            return checked(await self._data(self._request(path, query)))
        except Senseless:
            raise Unreachable(NO_SENSE) from None

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the `data` of the answer to a JSON body."""
        request = self._request(path, {})
        request.method, request.body = "POST", json.dumps(body).encode()
        request.headers["Content-Type"] = "application/json"
        return await self._data(request)

    def socket_request(self) -> HTTPRequest:
        """Return the request that opens an inbox socket of protocol v2."""
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
    """Return the error for an exception of the HTTP client."""
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
