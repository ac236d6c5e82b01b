"""Tests that docs/openapi.yaml describes all that the server does, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import openapi_spec_validator
import pytest
import requests
import yaml
from hypothesis import Phase
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode, Response
from schemathesis.checks import not_a_server_error
from tornado.web import RequestHandler

from config import load
from handlers.http.base import BaseHandler
from handlers.routes import Collaborators, make_app
from storage.embedded.supervisor import Addresses
from tests.conftest import StartServer
from tests.fuzz.asker import DESCRIPTION, ENDS_TOKENS, NO_LIMITS, SLOW, Asker, Strangers, described
from tests.support.patience import PATIENCE
from tests.support.processes import ServerProcess, external
from tests.support.sockets import Client2

EXAMPLES = 10  # valid requests for each operation, and as many that are not
SLOW_EXAMPLES = 2  # for operations that hash passwords
METRICS_TOKEN = "the token of metrics"
UNKNOWN_USER = 4_000_000_000  # an id that no user has
FORM, JSON = "application/x-www-form-urlencoded", "application/json"

content = yaml.safe_load(DESCRIPTION.read_text("utf-8"))
operations = {
    operation["operationId"]: (path, method.upper())
    for path, item in content["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
}
schema = described("latin-1")


class Site(NamedTuple):
    """A server process, its caller, and other users whose data the caller must not see."""

    port: int
    believes: bool
    asker: Asker
    strangers: Strangers


async def chat(strangers: Strangers) -> None:
    await strangers.meet()
    await strangers.part()


@pytest.fixture(scope="module", params=["open", "token"])
def site(request: pytest.FixtureRequest, addresses: Addresses) -> Iterator[Site]:
    """A server where `uid` is trusted, and one where it is not. Neither may have logged an error at the end."""
    believes = request.param == "open"
    flags = [f"--auth={request.param}", "--log-level=error", "--password-waiting=1000", *NO_LIMITS]
    if not believes:
        flags.append(f"--metrics-token={METRICS_TOKEN}")
    server = ServerProcess(*external(addresses), *flags)
    try:
        port = server.ready()
        strangers = Strangers(port, f"marker{secrets.token_hex(8)}", believes=believes)
        asyncio.run(chat(strangers))
        asker = Asker(port, strangers.marker, believes=believes)
        asker.peers = [user.user for user in strangers.users]
        yield Site(port, believes, asker, strangers)
        asker.close()
        strangers.close()
        server.signal(signal.SIGTERM)
        assert server.failed() == (0, "")
    finally:
        server.kill()


def test_it_is_valid() -> None:
    """The description is valid OpenAPI 3.1."""
    openapi_spec_validator.validate(content)


def test_all_routes_are_there() -> None:
    """The description has exactly the paths and methods of the route table."""
    unused: Any = None
    collaborators = Collaborators(*[unused] * len(Collaborators._fields))
    collaborators = collaborators._replace(
        settings=load([f"--metrics-token={METRICS_TOKEN}"], environ={}),
        chat=SimpleNamespace(blocks=unused, acquaintances=unused),
    )
    app = make_app(collaborators)

    def methods(handler: type[RequestHandler]) -> Iterator[str]:
        for method in handler.SUPPORTED_METHODS:
            # What all operations have from the base class is in the description's text once.
            if getattr(handler, method.lower()) is not getattr(BaseHandler, method.lower()):
                yield method

    routes = {
        (re.sub(r"\([^()]+\)", "{}", rule.matcher.regex.pattern.removesuffix("$")).replace("\\.", "."), method)
        for rule in app.wildcard_router.rules
        for method in methods(rule.target)
    }
    found = {(re.sub(r"\{[^}]+\}", "{}", path), method) for path, method in operations.values()}
    assert routes == found


def test_it_is_served(site: Site) -> None:
    """The server serves the file of the repository."""
    answer = requests.get(f"{site.asker.url}/openapi.yaml", timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/yaml")
    assert DESCRIPTION.read_bytes() == answer.content


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", operations)
def test_answers_are_as_described(site: Site, operation: str, mode: GenerationMode) -> None:
    """Status, content type, headers and body of each answer are as described, and no answer has other users' data."""
    path, method = operations[operation]
    seen: Counter[int] = Counter()

    def count(response: Response) -> None:
        seen[response.status_code] += 1

    site.asker.probe(
        schema[path][method],
        mode,
        examples=SLOW_EXAMPLES if operation in SLOW | ENDS_TOKENS else EXAMPLES,
        seen=count,
        additional=[not_a_server_error],
        phases=[Phase.generate, Phase.shrink],
    )
    takes_something = "requestBody" in content["paths"][path][method.lower()] or list(schema[path][method].query)
    assert seen or not takes_something or mode is GenerationMode.NEGATIVE


def test_the_secret_is_there(site: Site) -> None:
    """The secret that answers must not have is stored, so the check for it has a meaning."""
    one, other = site.strangers.users
    texts = [
        one.ask(schema["/messages"]["GET"].Case(query={"toUid": other.user})).text,
        one.ask(schema["/conversations"]["GET"].Case()).text,
        one.ask(schema["/user/export"]["GET"].Case()).text,
        one.ask(schema["/user/me"]["GET"].Case()).text,
    ]
    assert all(site.strangers.marker in text for text in texts)


def test_an_answer_with_the_secret_is_noticed(site: Site) -> None:
    """The check fails for an answer with the secret to a caller who must not see it."""
    one, other = site.strangers.users
    spy = Asker(site.port, site.strangers.marker, believes=site.believes)
    with pytest.raises(AssertionError, match="a secret"):
        spy.ask(schema["/messages"]["GET"].Case(query={"toUid": other.user}), token=one.token)
    spy.close()


def test_every_operation_succeeds(site: Site) -> None:
    """Each operation succeeds at some time in an account's life, and its answer is as described."""
    media_type = JSON if site.believes else FORM
    me, peer = Asker(site.port, site.strangers.marker, believes=site.believes), site.asker
    succeeded = set()

    def ask(operation: str, status: int = 200, how: str = "header", token: str = "", **parts: Any) -> Response:
        path, method = operations[operation]
        case = schema[path][method].Case(**parts, media_type=media_type if "body" in parts else None)
        response = me.ask(case, how, [not_a_server_error], token)
        assert status == response.status_code, response.text
        if status == 200:
            succeeded.add(operation)
        return response

    for operation in (
        "checkPage",
        "ping",
        "health",
        "readiness",
        "describe",
        "checkPing",
        "checkHealth",
        "checkReadiness",
        "checkDescription",
    ):
        ask(operation, how="nobody")
    ask("readPage", how="nobody")
    _, _, digest, name = me.page_files()[0].split("/")
    file = {"digest": digest, "name": name}
    for operation in ("readPageFile", "checkPageFile"):
        ask(operation, how="nobody", path_parameters=file)
        ask(operation, 404, how="nobody", path_parameters=file | {"digest": "0" * 12})
        ask(operation, 404, how="nobody", path_parameters=file | {"name": "none.js"})
    assert ask("readSession", how="nobody").json()["data"]["user"] is None
    account = {"nick_name": "小明", "user_name": f"n{secrets.token_hex(6)}", "password": "a long secret"}
    ask("register", how="nobody", body=account)
    ask("register", 409, how="nobody", body=account)
    ask("register", 400, how="nobody", body=account | {"user_name": "four"})
    ask("signIn", how="nobody", body={"user_name": account["user_name"], "password": "a long secret"})
    ask("signIn", 401, how="nobody", body={"user_name": account["user_name"], "password": "another secret"})
    ask("changeAccount", body={"nick_name": "somebody", "email": "a@example.org", "avatar": "https://example.org/a"})
    ask("readAccount", how="cookie")
    for how, user in (("header", me.user), ("cookie", me.user), ("odd", None), ("nobody", None)):
        session = ask("readSession", how=how).json()["data"]
        assert user == (session["user"] and session["user"]["id"])
        assert (site.believes, "open" if site.believes else "token") == (bool(session["users"]), session["auth"])
    ask("readAccount", 401, how="odd")
    ask("readAccount", 400 if site.believes else 401, how="nobody")

    async def write(ticket: str) -> None:
        client = await Client2.open(site.port, me.user, peer.user, ticket=ticket)
        await client.say("with an id", 50005, id="k1")
        await client.write(1, content="without", id="")
        await client.receive(50005)
        client.close()
        while await client.connection.read_message() is not None:
            pass

    asyncio.run(write(ask("takeTicket").json()["data"]["ticket"]))
    assert [each["last"]["seq"] for each in ask("listConversations").json()["data"]] == [2]
    page = ask("readMessages", query={"toUid": peer.user, "before": 2}).json()["data"]
    assert [each["content"] for each in page["messages"]] == ["with an id"]
    ask("readMessages", query={"toUid": UNKNOWN_USER})
    ask("findUser", query={"user_name": peer.name})
    ask("findUser", 404, query={"user_name": "nobody at all"})
    ask("block", path_parameters={"id": peer.user})
    ask("block", path_parameters={"id": UNKNOWN_USER})
    assert [peer.user, UNKNOWN_USER] == [each["id"] for each in ask("listBlocks").json()["data"]]
    ask("unblock", path_parameters={"id": peer.user})
    _require_export(ask("exportMessages").text)
    ask("openSocket", 400, query={"toUid": peer.user})
    ask("metrics", 404 if site.believes else 200, token=METRICS_TOKEN)
    ask("metrics", 404 if site.believes else 401, how="nobody")
    ask("signOut", how="cookie")
    ask("signOutEverywhere")
    ask("changePassword", 403, body={"password": "another secret", "new_password": me.password})
    ask("changePassword", body={"password": me.password, "new_password": me.password})
    ask("deleteAccount", 403, body={"password": "another secret"})
    ask("deleteAccount", body={"password": me.password})
    me.close()
    missing = {"openSocket", "metrics"} if site.believes else {"openSocket"}  # a socket's answer has no body
    assert set(operations) - missing == succeeded


def _require_export(text: str) -> None:
    """Check that the export has an account, two messages and an end, each as described."""
    lines = [json.loads(line) for line in text.splitlines()]
    for name, line in zip(["ExportedAccount", "Message", "Message", "ExportEnd"], lines, strict=True):
        Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": content["components"]}).validate(
            line
        )


def test_too_many_requests(start_server: StartServer, addresses: Addresses) -> None:
    """An answer with 429 says when to try again."""
    server = start_server(*external(addresses), "--auth=open", "--request-burst=1", "--request-rate=1")
    port = server.ready()
    asker = Asker(port, believes=True)
    case = schema["/user/blocks"]["GET"].Case(query={"uid": asker.user})
    answers = [asker.ask(case, "nobody").status_code for _ in range(3)]
    asker.close()
    assert 429 in answers
    assert server.end() == 0
