"""Tests of TLS on connections to MySQL."""

from __future__ import annotations

from pathlib import Path

import pymysql
import pytest
from pymysql.cursors import Cursor

from models.errors import DatabaseRefused, StorageUnavailable
from storage.embedded.supervisor import Addresses
from storage.mysql.executor import MySQL
from tests.conftest import StartServer
from tests.storage.conftest import MakeMySQL
from tests.support.certificates import Authority
from tests.support.mariadb_process import PASSWORD, MariaDB
from tests.support.patience import PATIENCE
from tests.support.processes import external


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    """A CA that no server has a certificate of."""
    return Authority(tmp_path, "other")


async def encrypted(mysql: MySQL) -> bool:
    """Return whether the connection uses TLS."""

    def work(cursor: Cursor) -> bool:
        cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        row = cursor.fetchone()
        return bool(row and row[1])

    return await mysql.run(work)


@pytest.mark.parametrize("query", ["", "ssl_mode=PREFERRED", "ssl_mode=REQUIRED", "ssl_mode=required"])
async def test_any_certificate_is_accepted_unless_it_is_verified(
    query: str, first: MariaDB, make_mysql: MakeMySQL
) -> None:
    """TLS is used if MySQL offers it. Without an option its certificate is not verified, as docs/security.md says."""
    assert await encrypted(make_mysql(first.url(query, "127.0.0.1"), timeout=PATIENCE))


@pytest.mark.parametrize("query", ["", "ssl_mode=PREFERRED", "ssl_mode=DISABLED"])
async def test_a_server_without_tls(query: str, second: MariaDB, make_mysql: MakeMySQL) -> None:
    """A server without TLS is used if TLS is not required."""
    assert not await encrypted(make_mysql(second.url(query), timeout=PATIENCE))


async def test_tls_can_be_off(first: MariaDB, make_mysql: MakeMySQL) -> None:
    """With DISABLED the connection is not encrypted, although the server offers TLS."""
    assert not await encrypted(make_mysql(first.url("ssl_mode=DISABLED"), timeout=PATIENCE))


@pytest.mark.parametrize(
    ("host", "query"),
    [
        ("localhost", ""),
        ("localhost", "&ssl_mode=VERIFY_IDENTITY"),
        ("localhost", "&ssl_mode=VERIFY_CA"),
        ("127.0.0.1", "&ssl_mode=VERIFY_CA"),
    ],
)
async def test_a_verified_certificate(
    host: str, query: str, first: MariaDB, authority: Authority, make_mysql: MakeMySQL
) -> None:
    """A certificate of the CA is accepted, with VERIFY_CA for each name of the host."""
    assert await encrypted(make_mysql(first.url(f"ssl_ca={authority.file}{query}", host), timeout=PATIENCE))


async def test_a_certificate_of_the_client(first: MariaDB, authority: Authority, make_mysql: MakeMySQL) -> None:
    """The client's certificate is presented to a server that requires one of its user."""
    certfile, keyfile = authority.issue("client")
    first.run("ALTER USER chat REQUIRE X509")
    try:
        verified = f"ssl_ca={authority.file}"
        query = f"{verified}&ssl_cert={certfile}&ssl_key={keyfile}"
        assert await encrypted(make_mysql(first.url(query), timeout=PATIENCE))
        with pytest.raises(DatabaseRefused, match="Access denied"):
            await encrypted(make_mysql(first.url(verified), timeout=PATIENCE))
    finally:
        first.run("ALTER USER chat REQUIRE NONE")


async def test_a_certificate_that_is_not_verified(
    first: MariaDB, authority: Authority, other: Authority, make_mysql: MakeMySQL
) -> None:
    """Another CA, or another host name, is an error that says which of both it is. So is a CA of the system's."""
    for host, query, reason in (
        ("localhost", f"ssl_ca={other.file}", "certificate verify failed"),
        ("localhost", "ssl_mode=VERIFY_IDENTITY", "certificate verify failed"),
        ("127.0.0.1", f"ssl_ca={authority.file}", "IP address mismatch"),
    ):
        with pytest.raises(StorageUnavailable, match=reason):
            await encrypted(make_mysql(first.url(query, host), timeout=PATIENCE))


async def test_a_server_without_tls_where_that_is_required(second: MariaDB, make_mysql: MakeMySQL) -> None:
    """A server without TLS is refused if TLS is required."""
    with pytest.raises(StorageUnavailable, match="SSL is required but the server doesn't support it"):
        await encrypted(make_mysql(second.url("ssl_mode=REQUIRED"), timeout=PATIENCE))


@pytest.mark.parametrize("wrong", ["CA", "host", "server"])
def test_a_start_with_a_certificate_that_is_not_verified(
    wrong: str,
    first: MariaDB,
    second: MariaDB,
    authority: Authority,
    other: Authority,
    start_server: StartServer,
    addresses: Addresses,
    database: pymysql.Connection,
) -> None:
    """The server does not start with a certificate that it cannot verify, and says why, without the password."""
    url, reason = {
        "CA": (first.url(f"ssl_ca={other.file}"), "certificate verify failed"),
        "host": (first.url(f"ssl_ca={authority.file}", "127.0.0.1"), "not valid for '127.0.0.1'"),
        "server": (second.url(f"ssl_ca={authority.file}"), "SSL is required but the server doesn't support it"),
    }[wrong]
    status, errors = start_server(*external(addresses._replace(mysql=url))).failed()
    assert status == 1
    assert f"cannot start: mysql at {url.replace(PASSWORD, '***')}: mysql: OperationalError: " in errors
    assert reason in errors
    assert PASSWORD not in errors
