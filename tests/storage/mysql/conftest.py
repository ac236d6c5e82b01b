"""Fixtures of tests that need a MySQL with TCP: two servers for all of them, of which the first offers TLS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.mariadb_process import MariaDB, mariadb_process


@pytest.fixture(scope="session")
def certificates() -> Iterator[Path]:
    """A directory for certificates. Other users cannot enter it, so the server accepts its files."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def authority(certificates: Path) -> Authority:
    """The CA of the first server."""
    return Authority(certificates)


@pytest.fixture(scope="session")
def first(authority: Authority) -> Iterator[MariaDB]:
    """A MySQL with a certificate for localhost, which accepts certificates of clients from the same CA."""
    certfile, keyfile = authority.issue("localhost")
    files = [f"--ssl-cert={certfile}", f"--ssl-key={keyfile}", f"--ssl-ca={authority.file}"]
    with mariadb_process(*files) as server:
        yield server


@pytest.fixture(scope="session")
def second() -> Iterator[MariaDB]:
    """A MySQL without TLS."""
    with mariadb_process("--skip-ssl") as server:
        yield server
