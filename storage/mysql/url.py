"""The URL of MySQL: hosts, user, database, and how TLS is used.

    mysql://user:password@host1:3306,host2:3306/database?ssl_ca=/etc/tandem/mysql-ca.pem

`ssl_mode` has the values of MySQL's own clients. PyMySQL alone would not check the host's name without `ssl_ca`, so
the TLS context is made here.
"""

from __future__ import annotations

import math
import re
import ssl
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from config.secret_files import UnsafeFileError, require_safe

__all__ = ["Address", "Host", "address_in"]

# DATETIME has no time zone: gin-chat-demo's driver writes UTC, whatever the server's zone is. In strict mode a value
# that does not fit is an error; otherwise it would be truncated silently.
SESSION = (
    "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', innodb_lock_wait_timeout = {lock}"
)
DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY = MODES = (
    "DISABLED",  # no TLS
    "PREFERRED",  # TLS if the server offers it, with any certificate
    "REQUIRED",  # TLS with any certificate
    "VERIFY_CA",  # TLS, and a certificate that the CA has issued
    "VERIFY_IDENTITY",  # the same, and the certificate has the host's name
)
OPTIONS = ("unix_socket", "ssl_mode", "ssl_ca", "ssl_cert", "ssl_key")
EXPECTED = "expected a URL such as mysql://user:password@host:3306/database"
ESCAPE = f"{EXPECTED}, with %2F, %3F and %23 for each /, ? and # in the password"


class Host(NamedTuple):
    """A host and its port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Address(NamedTuple):
    """The hosts of a URL in its order, and the driver's arguments for each of them."""

    hosts: tuple[Host, ...]
    arguments: dict[str, Any]


def address_in(url: str, timeout: float) -> Address:
    """Return the address in a URL, with `timeout` seconds for each step on a connection.

    Raises ValueError for an invalid URL or option, and for a file that cannot be used. The text names the option.
    """
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    try:
        parts = urlsplit(f"{scheme}://{user}{at}{rest[len(authority) :]}")
        if parts.scheme != "mysql" or not parts.path.strip("/"):
            raise ValueError(EXPECTED)
        address = Address(_hosts(hosts), _arguments(parts, timeout) | _options(parts.query))
    except ValueError:
        if "@" in url and not at:
            raise ValueError(ESCAPE) from None  # the error's text may be a part of the password
        raise
    if "unix_socket" in address.arguments and len(address.hosts) > 1:
        raise ValueError("unix_socket: expected a URL with a single host")
    return address


def _hosts(text: str) -> tuple[Host, ...]:
    found = []
    for each in text.split(","):
        if not each and text:
            raise ValueError("expected a host before and after each comma, such as host1:3306,host2:3306")
        parts = urlsplit(f"//{each}")
        found.append(Host(parts.hostname or "localhost", parts.port or 3306))
    return tuple(dict.fromkeys(found))


def _arguments(parts: SplitResult, timeout: float) -> dict[str, Any]:
    seconds = math.ceil(timeout)
    return {
        "user": unquote(parts.username or "root"),
        "password": unquote(parts.password or "").encode(),  # PyMySQL would encode text as latin1
        "database": unquote(parts.path.strip("/")),
        "connect_timeout": seconds,
        "read_timeout": seconds,
        "write_timeout": seconds,
        "charset": "utf8mb4",
        "autocommit": True,
        # Waiting for a lock has to end before the connection times out, or the statement's outcome would be unknown.
        "init_command": SESSION.format(lock=max(1, seconds - 1)),
    }


def _options(query: str) -> dict[str, Any]:
    """Return the driver's arguments for the options of a URL."""
    given = parse_qs(query, keep_blank_values=True)
    unknown = [name for name in given if name not in OPTIONS]
    if unknown:  # they must not be ignored, in particular those about TLS
        raise ValueError(f"{', '.join(unknown)}: unknown option in the URL; expected {', '.join(OPTIONS)}")
    for name, values in given.items():
        if len(values) > 1 or not values[0]:
            raise ValueError(f"{name}: expected one value")
    options = {name: values[0] for name, values in given.items()}
    socket = options.get("unix_socket")
    return _tls(options) | ({"unix_socket": socket} if socket else {})


def _tls(options: dict[str, str]) -> dict[str, Any]:
    ca, certificate, key = (options.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key"))
    mode = options.get("ssl_mode", VERIFY_IDENTITY if ca else PREFERRED).upper()
    if mode not in MODES:
        raise ValueError(f"ssl_mode: expected one of {', '.join(MODES)}")
    if ca and mode not in (VERIFY_CA, VERIFY_IDENTITY):
        raise ValueError(
            f"ssl_ca: no certificate is verified with ssl_mode={mode}; expected {VERIFY_IDENTITY} or {VERIFY_CA}"
        )
    if bool(certificate) != bool(key):
        raise ValueError("ssl_cert, ssl_key: set both of them, or none")
    if certificate and mode in (DISABLED, PREFERRED):
        raise ValueError(f"ssl_cert: a certificate of the client needs TLS; set ssl_ca, or ssl_mode={REQUIRED}")
    if mode == DISABLED:
        return {"ssl_disabled": True}
    return {} if mode == PREFERRED else {"ssl": _context(mode, ca, certificate, key)}


def _context(mode: str, ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Return a context in which TLS is required. Without `ca`, the system's CAs are trusted."""
    _require_safe("ssl_ca", ca)
    _require_safe("ssl_cert", certificate)
    _require_safe("ssl_key", key, secret=True)
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"ssl_ca: {ca}: {error.strerror or error}; expected certificates in PEM") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the CA that MySQL makes for itself lacks an extension
    context.check_hostname = mode == VERIFY_IDENTITY
    if mode == REQUIRED:
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")  # without it, OpenSSL asks the terminal
        except OSError as error:
            raise ValueError(
                f"ssl_cert, ssl_key: {certificate}, {key}: {error.strerror or error}; expected a certificate and its "
                "key, both in PEM, the key without a passphrase"
            ) from None
    return context


def _require_safe(option: str, path: str | None, *, secret: bool = False) -> None:
    try:
        if path:
            require_safe(Path(path), secret=secret)
    except UnsafeFileError as error:
        raise ValueError(f"{option}: {error}") from None
