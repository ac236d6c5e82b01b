"""Tests of MySQL's URL: errors about its parts, its options and their files."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

import pytest

from storage.mysql.url import MODES, OPTIONS, Host, address_in
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA with its files in the test's directory."""
    return Authority(tmp_path)


@pytest.mark.parametrize("url", ["", "postgres://x/y", "mysql://host", "mysql://host/"])
def test_an_invalid_url(url: str) -> None:
    """The error about an invalid URL shows what is expected."""
    with pytest.raises(ValueError, match="mysql://user:password@host"):
        address_in(url, 1)


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ("db1", [("db1", 3306)]),
        ("", [("localhost", 3306)]),
        ("db1:3307,db2", [("db1", 3307), ("db2", 3306)]),
        ("db1,[::1]:3307,[::2]", [("db1", 3306), ("::1", 3307), ("::2", 3306)]),
        ("db1,db2,db1:3306", [("db1", 3306), ("db2", 3306)]),
    ],
)
def test_hosts(hosts: str, found: list[tuple[str, int]]) -> None:
    """A URL has one host or more, each with its own port, for one user and database."""
    address = address_in(f"mysql://u%40x:p%2Fw@{hosts}/d", 1)
    assert address.hosts == tuple(Host(*host) for host in found)
    assert [address.arguments[name] for name in ("user", "password", "database")] == ["u@x", b"p/w", "d"]
    assert address_in(f"mysql://{hosts}/d", 1).hosts == address.hosts


@pytest.mark.parametrize("hosts", ["db1,", ",db1", "db1,,db2"])
def test_a_host_that_is_missing(hosts: str) -> None:
    """A comma without a host on either side is an error."""
    with pytest.raises(ValueError, match="before and after each comma"):
        address_in(f"mysql://u:p@{hosts}/d", 1)


def test_a_socket_of_several_hosts() -> None:
    """A unix socket is of one server, so further hosts are an error."""
    with pytest.raises(ValueError, match="unix_socket: expected a URL with a single host"):
        address_in("mysql://u:p@db1,db2/d?unix_socket=/run/mysqld.sock", 1)


@pytest.mark.parametrize("url", ["mysql://host:port/x", "mysql://host:99999/x", "mysql://[::1/x"])
def test_a_url_with_an_impossible_host(url: str) -> None:
    """A URL with an invalid host or port is an error."""
    with pytest.raises(ValueError, match=r"[Pp]ort|IPv6"):
        address_in(url, 1)


@pytest.mark.parametrize("password", ["hunter2/x", "1/hunter2?hunter2=", "hunter2#", "hunter2?"])
def test_a_password_that_is_not_escaped(password: str) -> None:
    """The error about a URL whose password is not escaped has no part of it."""
    with pytest.raises(ValueError, match="%2F") as caught:
        address_in(f"mysql://user:{password}@host/database", 1)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_option() -> None:
    """An unknown option is an error that names those that exist."""
    with pytest.raises(ValueError, match="ssl_disabled, tls: unknown option in the URL") as caught:
        address_in("mysql://u:p@h/d?ssl_disabled=1&tls=1&ssl_mode=DISABLED", 1)
    assert all(option in str(caught.value) for option in OPTIONS)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("ssl_mode=on", "ssl_mode: expected one of DISABLED"),
        ("ssl_mode=", "ssl_mode: expected one value"),
        ("ssl_ca=/a&ssl_ca=/b", "ssl_ca: expected one value"),
        ("ssl_ca=/a&ssl_mode=REQUIRED", "ssl_ca: no certificate is verified with ssl_mode=REQUIRED"),
        ("ssl_ca=/a&ssl_mode=disabled", "ssl_ca: no certificate is verified with ssl_mode=DISABLED"),
        ("ssl_mode=REQUIRED&ssl_cert=/a", "ssl_cert, ssl_key: set both"),
        ("ssl_mode=REQUIRED&ssl_key=/a", "ssl_cert, ssl_key: set both"),
        ("ssl_cert=/a&ssl_key=/b", "ssl_cert: a certificate of the client needs TLS"),
    ],
)
def test_options_that_do_not_fit(query: str, named: str) -> None:
    """Options that contradict each other, or have no value, are an error that names them."""
    with pytest.raises(ValueError, match=named):
        address_in(f"mysql://u:p@h/d?{query}", 1)


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    """The error about a file names its option and its path."""
    certfile, keyfile = authority.issue("client")
    absent, other = tmp_path / "absent.pem", tmp_path / "other.pem"
    other.write_text("text")
    required = "ssl_mode=REQUIRED"
    for query, option, path in (
        (f"ssl_ca={absent}", "ssl_ca", absent),
        (f"ssl_ca={other}", "ssl_ca", other),
        (f"ssl_ca={tmp_path}", "ssl_ca", tmp_path),
        (f"{required}&ssl_cert={absent}&ssl_key={keyfile}", "ssl_cert, ssl_key", absent),
        (f"{required}&ssl_cert={certfile}&ssl_key={authority.issue('else').keyfile}", "ssl_cert, ssl_key", certfile),
    ):
        with pytest.raises(ValueError, match=f"^{option}: ") as caught:
            address_in(f"mysql://u:p@h/d?{query}", 1)
        assert str(path) in str(caught.value)


def test_files_that_other_users_can_change_or_read() -> None:
    """A CA that others can write, and a key that others can read, are errors that name the option and the remedy."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-", dir="/tmp") as name:
        directory = Path(name)
        authority = Authority(directory)
        certfile, keyfile = authority.issue("client")
        directory.chmod(0o755)
        url = f"mysql://u:p@h/d?ssl_ca={authority.file}&ssl_cert={certfile}&ssl_key={keyfile}"
        for path, mode, remedy in (
            (authority.file, 0o666, "ssl_ca: .* chmod go-w"),
            (keyfile, 0o644, "ssl_key: .* chmod go= "),
        ):
            before = path.stat().st_mode
            path.chmod(mode)
            with pytest.raises(ValueError, match=remedy):
                address_in(url, 1)
            path.chmod(before)
        assert "ssl" in address_in(url, 1).arguments


@pytest.mark.parametrize("mode", MODES)
def test_what_each_mode_verifies(mode: str) -> None:
    """Only the two modes that say so verify a certificate, with the system's CAs if none is given."""
    arguments = address_in(f"mysql://u:p@h/d?ssl_mode={mode}", 1).arguments
    context = arguments.get("ssl")
    assert (context is not None) == (mode not in ("DISABLED", "PREFERRED"))
    if context is not None:
        verified = (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname)
        assert verified == (mode.startswith("VERIFY"), mode == "VERIFY_IDENTITY")
    assert arguments.get("ssl_disabled", False) == (mode == "DISABLED")
