"""Tests of TLS in the server."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from handlers.websocket.handler import ChatSocket
from server import Server
from storage.embedded.supervisor import Addresses
from tests.conftest import StartServer
from tests.support.certificates import certificate
from tests.support.patience import PATIENCE
from tests.support.processes import external
from tests.support.sockets import RawSocket, socket_path, until

Pair = tuple[int, int]
Fetch = Callable[..., Awaitable[tuple[bytes, str]]]


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    return certificate(tmp_path, "first")


@pytest.fixture
def more_flags() -> list[str]:
    return []


@pytest.fixture
def flags(pem: tuple[Path, Path], more_flags: list[str]) -> list[str]:
    return [f"--certfile={pem[0]}", f"--keyfile={pem[1]}", *more_flags]


async def fetch(port: int, request: str, **versions: Any) -> tuple[bytes, str]:
    """Return the answer and the name in the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, version in versions.items():
        setattr(context, name, version)
    async with asyncio.timeout(PATIENCE):
        raw = await RawSocket.open(port, context)
        der = raw.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        raw.writer.write(f"GET {request} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = await raw.reader.read()
        raw.writer.close()
        await raw.writer.wait_closed()
    return answer, str(x509.load_der_x509_certificate(der).subject.rfc4514_string())


async def test_over_tls(http_server: Server) -> None:
    """With TLS the URL begins with https, answers have HSTS, and plain HTTP gets no answer."""
    assert http_server.url.startswith("https://")
    answer, name = await fetch(http_server.port, "/ping")
    assert (answer.endswith(b'"SUCCESS"'), name) == (True, "CN=first")
    assert b"Strict-Transport-Security: max-age=31536000" in answer
    raw = await RawSocket.open(http_server.port)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await raw.request("/ping")
    raw.abort()


@pytest.mark.parametrize("more_flags", [["--frames=bulk"], ["--frames=tornado"]])
async def test_chatting_over_tls(http_server: Server, pair: Pair) -> None:
    """Two users chat over TLS on either transport of frames."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    one, two = [await RawSocket.open(http_server.port, context) for _ in range(2)]
    for raw, path in ((one, socket_path(*pair)), (two, socket_path(*pair[::-1]))):
        assert (await raw.request(path, upgrade=True))[0] == 101
        assert json.loads((await raw.frame())[1])["code"] == 50002
    one.write_frame(1, b'{"type":1,"content":"hi"}')
    assert json.loads((await one.frame())[1])["code"] == 50004
    assert json.loads((await two.frame())[1])["content"] == "hi"
    for raw in (one, two):
        raw.write_frame(8, (1000).to_bytes(2, "big"))
        assert await raw.close_code() == 1000
        raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


async def test_old_versions(http_server: Server) -> None:
    """The oldest accepted version is TLS 1.2."""
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning):
        await fetch(
            http_server.port, "/ping", minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
        )


@pytest.mark.parametrize("more_flags", [["--handshake-timeout=0.5"]])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_a_handshake_that_never_finishes(said: bytes, http_server: Server) -> None:
    """A connection whose TLS handshake does not finish in time is closed."""
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(said)
    async with asyncio.timeout(PATIENCE):
        assert await raw.reader.read() == b""
    raw.abort()


async def test_a_renewed_certificate(start_server: StartServer, addresses: Any, pem: Any, database: Any) -> None:
    """After SIGHUP new connections get the renewed certificate, and an unreadable one changes nothing."""
    server = start_server(*external(addresses), f"--certfile={pem[0]}", f"--keyfile={pem[1]}")
    port = server.ready()
    assert (await fetch(port, "/ping"))[1] == "CN=first"
    certificate(pem[0].parent, "second")
    server.signal(signal.SIGHUP)
    async with asyncio.timeout(PATIENCE):
        while (await fetch(port, "/ping"))[1] != "CN=second":
            pass
    old_key = pem[1].read_bytes()
    certificate(pem[0].parent, "third")
    pem[1].write_bytes(old_key)  # a renewal of which only the key is new
    server.signal(signal.SIGHUP)
    assert (await fetch(port, "/ping"))[1] == "CN=second"
    pem[0].write_text("broken")
    server.signal(signal.SIGHUP)
    assert (await fetch(port, "/ping"))[1] == "CN=second"
    server.signal(signal.SIGTERM)
    status, errors = server.failed()
    assert (status, errors.count("certificate_not_read")) == (0, 2)


def test_a_key_with_a_passphrase(
    tmp_path: Path, pem: tuple[Path, Path], start_server: StartServer, addresses: Addresses
) -> None:
    """A key with a passphrase is refused, and the server does not ask for the passphrase at the terminal."""
    key = serialization.load_pem_private_key(pem[1].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    status, errors = start_server(*external(addresses), f"--certfile={pem[0]}", f"--keyfile={locked}").failed()
    assert (status, "without a passphrase" in errors, "Enter PEM" in errors) == (1, True, False)
