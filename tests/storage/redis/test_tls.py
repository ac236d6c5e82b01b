"""Tests of the connection to a Redis over TLS, with a CA of the operator's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from models.errors import StorageUnavailable
from storage.redis.client import RedisServer
from tests.support.certificates import Authority
from tests.support.patience import PATIENCE
from tests.support.redis_process import redis_with_tls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of the Redis and of its clients."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def port(tmp_path: Path, authority: Authority) -> Iterator[int]:
    """The port of a Redis that requires certificates."""
    with redis_with_tls(tmp_path, authority) as (_, port):
        yield port


async def test_a_ca_of_its_own(io_loop: IOLoop, tmp_path: Path, authority: Authority, port: int, prefix: str) -> None:
    """Both sides verify each other. Without the CA, with another name or without a certificate nothing works."""
    certfile, keyfile = authority.issue("tandem")
    other = Authority(tmp_path, "other")
    ours, client = f"ssl_ca_certs={authority.file}", f"ssl_certfile={certfile}&ssl_keyfile={keyfile}"

    async def check(url: str) -> None:
        server = RedisServer(url, timeout=PATIENCE, connections=2)
        try:
            await server.prepare(prefix)
            await server.check_rights(prefix)
        finally:
            await server.close()

    await check(f"rediss://localhost:{port}/0?{ours}&{client}")
    for url, reason in {
        f"rediss://localhost:{port}/0?{client}": "CERTIFICATE_VERIFY_FAILED",
        f"rediss://localhost:{port}/0?ssl_ca_certs={other.file}&{client}": "CERTIFICATE_VERIFY_FAILED",
        f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/missing.pem&{client}": "No such file",
        f"rediss://127.0.0.1:{port}/0?{ours}&{client}": "IP address mismatch",
        f"rediss://localhost:{port}/0?{ours}": "redis",
        f"redis://localhost:{port}/0": "redis",
    }.items():
        with pytest.raises(StorageUnavailable, match=reason):
            await check(url)
