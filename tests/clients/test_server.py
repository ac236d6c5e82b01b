"""Tests of the server's HTTP interface, and of its errors."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.ioloop import IOLoop

from clients.connection import Connection
from clients.server import Peer, Refused, Server, SessionOver, Unreachable, error_of
from clients.wire import Senseless, conversations_in, user_in
from server import Server as Serving
from storage.embedded.supervisor import Addresses
from tests.conftest import Ask, StartServer
from tests.support.processes import external


@pytest.fixture
def flags(request: pytest.FixtureRequest) -> list[str]:
    return getattr(request, "param", [])


@pytest.fixture
def remote(io_loop: IOLoop, http_server: Serving) -> Iterator[Server]:
    server = Server(http_server.url)
    yield server
    server.close()


async def test_a_server_that_believes(remote: Server, names: list[str]) -> None:
    """The user is found by name, whether the server lists it or not."""
    session = await remote.session()
    assert (session.believes, session.max_content) == (True, 8192)
    for name in names:
        user = await remote.believed(name, session)
        assert user is not None
        assert user.name == name
        assert (await remote.get("/user/me", user_in))["user_name"] == name
    assert await remote.believed("nobody of that name", session) is None
    assert await remote.believed(names[0], session._replace(users=[])) is None


@pytest.mark.parametrize("flags", [["--auth=token"]], indirect=True)
async def test_a_server_that_does_not(remote: Server) -> None:
    """Signing in needs a password, and the token authenticates the caller."""
    session = await remote.session()
    assert (session.believes, session.users) == (False, [])
    with pytest.raises(SessionOver, match="token"):
        await remote.get("/user/me", user_in)
    await remote.register("xiaogang", "Gang", "long enough")
    with pytest.raises(Refused, match="taken") as taken:
        await remote.register("xiaogang", "Gang", "long enough")
    assert (taken.value.code, isinstance(taken.value, SessionOver)) == (409, False)
    with pytest.raises(Refused) as wrong:
        await remote.sign_in("xiaogang", "wrong")
    assert wrong.value.code == 401
    user = await remote.sign_in("xiaogang", "long enough")
    assert user == Peer(user.id, "xiaogang", "Gang")
    assert await remote.named("xiaogang") == user
    assert await remote.named("nobody") is None
    assert await remote.named("x" * 1000) is None


@pytest.mark.parametrize("flags", [["--request-rate=0.5", "--request-burst=1"]], indirect=True)
async def test_too_fast(remote: Server, names: list[str]) -> None:
    """The refusal says when to retry."""
    session = await remote.session()
    await remote.believed(session.users[0].name, session)
    with pytest.raises(Refused) as refused:
        for _ in range(3):
            await remote.get("/conversations", conversations_in)
    assert refused.value.code == 429
    assert refused.value.retry_after >= 1


async def test_a_server_without_sessions(remote: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older server requires a password."""
    get = remote.get
    monkeypatch.setattr(remote, "get", lambda path, checked: get("/not" + path, checked))
    assert await remote.session() == (False, [], 8192, "")


async def test_no_server() -> None:
    """The error names the address."""
    server = Server("http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        await server.session()
    server.close()


async def test_something_else_there(ask: Ask, http_server: Serving) -> None:
    """Another program's answer is reported as unexpected."""
    server = Server(http_server.url)
    with pytest.raises(Unreachable, match="not a Tandem server"):
        await server.get("/openapi.yaml", user_in)
    server.close()


def test_server_errors_are_for_now() -> None:
    """A database that is down, and no answer in time, may be retried."""
    body = BytesIO(b'{"error":"mysql is unavailable, please retry"}')
    answer = HTTPResponse(HTTPRequest("http://a"), 503, buffer=body)
    for error, text in (
        (HTTPClientError(503, "Service Unavailable", answer), "mysql is unavailable, please retry"),
        (HTTPClientError(599, "Timeout while connecting"), "a: Timeout while connecting"),
    ):
        found = error_of(error, "http://a")
        assert (type(found), str(found)) == (Unreachable, text)


async def test_the_address_of_the_socket() -> None:
    """The socket's scheme follows the server's."""
    server = Server("https://chat.example/below/")
    assert server.socket_request().url == "wss://chat.example/below/ws?v=2&lang=en"
    server.close()


def certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Tandem")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - day, now + day)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    file = directory / "certificate.pem"
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    )
    return file


async def test_over_tls(start_server: StartServer, addresses: Addresses, tmp_path: Path) -> None:
    """Only a server with a trusted certificate is accepted, also for the socket."""
    file = certificate(tmp_path)
    port = start_server(*external(addresses), f"--certfile={file}", f"--keyfile={file}", "--auth=open").ready()
    trusting, strict = (Server(f"https://127.0.0.1:{port}", ca_file=ca_file) for ca_file in (str(file), None))
    session = await trusting.session()
    await trusting.believed(session.users[0].name, session)
    (await Connection.open(trusting, lambda frame: None)).close()
    with pytest.raises(Unreachable, match="certificate"):
        await strict.session()
    with pytest.raises(Unreachable, match="certificate"):
        await Connection.open(strict, lambda frame: None)
    trusting.close()
    strict.close()


@pytest.mark.parametrize("number", ["/../x", 0, -1, True, None, 1.5])
def test_an_id_that_is_none(number: object) -> None:
    """A malformed id is refused, since it would become part of a path."""
    with pytest.raises(Senseless):
        user_in({"id": number, "user_name": "a", "nickname": "b"})
