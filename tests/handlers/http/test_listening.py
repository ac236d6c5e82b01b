"""Tests of listening sockets, their URLs and TLS."""

from __future__ import annotations

import stat
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from config.settings import Server
from handlers.http.listening import ListenError, bind, tls_of, unbracketed, url_of
from tests.support.certificates import certificate


@pytest.mark.parametrize("name", ["x" * 64, "nowhere.invalid"])
def test_a_name_that_is_no_address(name: str) -> None:
    """A name that cannot be resolved, or is no valid one, is an error."""
    with pytest.raises(ListenError, match=name):
        bind(name, 0, "--address")


def test_brackets() -> None:
    """An IPv6 address may have brackets."""
    assert [unbracketed(each) for each in ("[::1]", "::1", "127.0.0.1")] == ["::1", "::1", "127.0.0.1"]


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "[::1]")])
def test_the_url_of_a_listening_socket(address: str, host: str) -> None:
    """The URL has the scheme, the address, in brackets if needed, and the port."""
    (listening,) = bind(address, 0, "--address")
    with listening:
        port = listening.getsockname()[1]
        assert url_of(listening, tls=False) == f"http://{host}:{port}/"
        assert url_of(listening, tls=True) == f"https://{host}:{port}/"


async def test_tls_that_can_be_used(tmp_path: Path) -> None:
    """There is a TLS context if the settings name a certificate, and none otherwise."""
    chain, key = certificate(tmp_path, "localhost")
    key.chmod(stat.S_IRUSR)
    async with AsyncExitStack() as stack:
        assert tls_of(Server(), stack) is None
        assert tls_of(Server(certfile=str(chain), keyfile=str(key)), stack) is not None


async def test_tls_that_cannot_be_used(tmp_path: Path) -> None:
    """The error about an unusable certificate names the flags and the files."""
    _, key = certificate(tmp_path, "localhost")
    key.chmod(stat.S_IRUSR)
    async with AsyncExitStack() as stack:
        with pytest.raises(ListenError, match=rf"--certfile, --keyfile: {key}, {key}: "):
            tls_of(Server(certfile=str(key), keyfile=str(key)), stack)
