"""Requests made from the API's description, checks of the answers, and users whose data must stay private."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response, checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from models.records import user_id
from tests.support.patience import PATIENCE
from tests.support.processes import ROOT
from tests.support.sockets import Client2

__all__ = [
    "CHECKS",
    "DESCRIPTION",
    "ENDS_TOKENS",
    "NO_LIMITS",
    "SLOW",
    "UNGUESSABLE",
    "Asker",
    "Strangers",
    "described",
    "operations",
]

FORM = "application/x-www-form-urlencoded"
DESCRIPTION = ROOT / "docs" / "openapi.yaml"
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
NO_LIMITS = (
    "--request-rate=1000000",
    "--request-burst=1000000",
    "--address-request-rate=1000000",
    "--address-request-burst=1000000",
    "--registrations-per-address=1000000",
    "--sign-ins-per-address=1000000",
    "--sign-ins-per-account=1000000",
)
SLOW = {"register", "signIn", "changePassword", "deleteAccount"}  # operations that may hash a password
HOW = ("header", "header", "cookie", "nobody", "odd")  # how a request sends a token
ENDS_TOKENS = {"signOut", "signOutEverywhere", "changePassword"}

AnyCase = Case[APIOperation[Any, Any, Any, Any]]

CHAT_EVERY = 0.5  # seconds between two messages of the private users
UNGUESSABLE = 3_141_592_653  # ids from here on are too far from the others to be hit by chance


def operations(schema: schemathesis.BaseSchema) -> list[APIOperation[Any, Any, Any, Any]]:
    """Return the operations of a description, which must all be valid."""
    found = list(schema.get_all_operations())
    assert all(isinstance(each, Ok) for each in found), found
    return [each.ok() for each in found if isinstance(each, Ok)]


def described(codec: str = "utf-8") -> schemathesis.BaseSchema:
    """Return the description, for texts of the characters of `codec`; each JSON body may also be a form."""
    config = schemathesis.Config()
    config.projects.default.generation.update(codec=codec)
    content = yaml.safe_load(DESCRIPTION.read_text("utf-8"))
    for operation in (operation for item in content["paths"].values() for operation in item.values()):
        if isinstance(operation, dict) and "requestBody" in operation:
            bodies = operation["requestBody"]["content"]
            bodies[FORM] = bodies["application/json"]
    return schemathesis.openapi.from_dict(content, config=config)


class Asker:
    """A user of the server on `port`, who sends every described request and must never see `marker`, if given.

    `believes` says that the server trusts `uid`.
    """

    def __init__(self, port: int, marker: str = "", *, believes: bool) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.name, self.password = f"u{secrets.token_hex(6)}", secrets.token_hex(16)
        self._marker = marker.encode()
        self._believes = believes
        self.peers: list[int] = []  # the users whom some requests name
        self._token = ""
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # each request authenticates itself
        self._session.headers["Connection"] = "close"  # otherwise the server may close it just when it is used again
        names = {"nick_name": "asker", "user_name": self.name, "password": self.password}
        self.user = int(self._post("/user/register", names)["id"])

    def close(self) -> None:
        self._session.close()

    @property
    def token(self) -> str:
        """A valid token, as far as this side knows."""
        if not self._token:
            self._sign_in()
        return self._token

    def _sign_in(self) -> None:
        answer = self._post("/user/login", {"user_name": self.name, "password": self.password})
        self._token = str(answer["token"])

    def renew(self) -> None:
        """Sign in again if a request has ended the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if self._session.get(f"{self.url}/user/me", headers=headers, timeout=PATIENCE).status_code == 401:
            self._sign_in()

    def ticket(self) -> str:
        """Return a ticket for a socket."""
        return str(self._post("/ws/ticket", {}, {"Authorization": f"Bearer {self.token}"})["ticket"])

    def page_files(self) -> list[str]:
        """Return the paths of the files that the chat page names."""
        return re.findall(
            r'"(/web/[0-9a-f]{12}/[a-z0-9_.-]+)"', self._session.get(f"{self.url}/", timeout=PATIENCE).text
        )

    def _post(self, path: str, body: dict[str, str], headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the data of an answer; retry while too many passwords are being checked."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._session.post(f"{self.url}{path}", json=body, headers=headers, timeout=2 * PATIENCE)
            if answer.status_code != 503 or time.monotonic() > deadline:
                answer.raise_for_status()
                data: dict[str, Any] = answer.json()["data"]
                return data

    def ask(
        self, case: AnyCase, how: str = "header", additional: Sequence[checks.CheckFunction] = (), token: str = ""
    ) -> Response:
        """Send a request as this user, by header or cookie, or without a token; check that the answer is as described.

        Raises AssertionError, or a group of schemathesis's failures.
        """
        if how == "header":
            case.headers["Authorization"] = f"Bearer {token or self.token}"
        elif how == "cookie":
            case.cookies["tandem"] = token or self.token
        elif how == "odd":
            case.headers["Authorization"] = f"Bearer {self.token[:-3]}"
        if "uid" in case.query and (how in ("header", "cookie") or self._would_be_believed(case.query["uid"])):
            case.query["uid"] = self.user
        response = case.call(base_url=self.url, session=self._session, timeout=2 * PATIENCE)
        if case.operation.definition.raw["operationId"] in ENDS_TOKENS and response.status_code == 200:
            self._token = ""
        assert not self._marker or self._marker not in response.content, f"a secret in {response.content!r}"
        self._look_at_envelope(response)
        case.validate_response(response, checks=[*CHECKS, *additional])
        return response

    def _look_at_envelope(self, response: Response) -> None:
        """Check the rules that the description has only in words: `status` is the HTTP status, errors have no data."""
        if not response.headers.get("content-type", [""])[0].startswith("application/json") or not response.content:
            return
        envelope = response.json()
        if isinstance(envelope, dict):
            assert envelope["status"] == response.status_code, envelope
            assert response.status_code < 400 or envelope["data"] is None or "mongodb" in envelope["data"], envelope

    def _would_be_believed(self, uid: Any) -> bool:
        """Return whether a server could take this for another user, who then may see private data."""
        return self._believes and not (isinstance(uid, str | int | float) and user_id(str(uid)) is None)

    def probe(
        self,
        operation: APIOperation[Any, Any, Any, Any],
        mode: GenerationMode,
        *,
        examples: int,
        seen: Callable[[Response], None],
        additional: Sequence[checks.CheckFunction] = (),
        number: int = 0,
        phases: Collection[Phase] = (Phase.generate,),
    ) -> None:
        """Test one operation with so many examples, of valid or of invalid requests."""

        @seed(number)
        @settings(
            max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=phases
        )
        @given(operation.as_strategy(mode), st.sampled_from(HOW), st.sampled_from([0, 0, *self.peers]))
        def each(case: AnyCase, how: str, peer: int) -> None:
            for name, parts in (("toUid", case.query), ("id", case.path_parameters)):
                if peer and name in parts:
                    parts[name] = peer
            seen(self.ask(case, how, additional))

        with contextlib.suppress(Unsatisfiable):  # an operation without input has no invalid input
            each()


class Strangers:
    """Two users who chat about the marker, which is also in all their other private data."""

    def __init__(self, port: int, marker: str, *, believes: bool) -> None:
        self.marker = marker
        self._port = port
        self.users = [Asker(port, believes=believes) for _ in range(2)]
        for user in self.users:
            headers = {"Authorization": f"Bearer {user.token}"}
            changes = {"email": f"{self.marker}@example.org"}
            requests.patch(f"{user.url}/user/me", json=changes, headers=headers, timeout=PATIENCE).raise_for_status()
        self._clients: list[Client2] = []

    async def meet(self) -> None:
        """Open their sockets and send the first messages."""
        one, other = self.users
        for me, you in ((one, other), (other, one)):
            self._clients.append(await Client2.open(self._port, me.user, you.user, ticket=me.ticket()))
        for client in self._clients:
            await client.say(f"{self.marker} hello", 50004, id=f"{self.marker}-{secrets.token_hex(4)}")

    async def chat(self) -> None:
        """Keep chatting until cancelled."""
        one, other = self._clients
        while True:
            await one.say(self.marker, 50004)
            while self.marker not in (await other.read())["content"]:
                pass
            await asyncio.sleep(CHAT_EVERY)

    async def part(self) -> None:
        """Close the sockets."""
        for client in self._clients:
            client.close()
            while await client.connection.read_message() is not None:
                pass

    def close(self) -> None:
        for user in self.users:
            user.close()
