"""Listening: sockets, TLS, and the HTTP server on them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from tornado.netutil import bind_sockets
from tornado.web import Application

from common.signals import on_hangup
from common.tasks import end, every
from config.secret_files import require_safe
from config.settings import Server, Settings
from handlers.http.server import LimitedHTTPServer, read_certificate_again, tls_context

__all__ = ["ListenError", "bind", "listen", "tls_of", "unbracketed", "url_of"]

LOOK_EVERY = 1.0  # seconds between two checks for connections whose clients do not read


class ListenError(Exception):
    """The server cannot listen. The text says why, and what to do."""


def bind(address: str, port: int, flags: str) -> list[socket.socket]:
    """Return listening sockets. Raises ListenError, which names the `flags` that set address and port."""
    try:
        # "::" stands for all addresses here, even where the system would take it for all IPv6 addresses only.
        return bind_sockets(port, None if address == "::" else unbracketed(address))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with a label of more than 63 characters
        raise ListenError(
            f"cannot listen on {address}, port {port}: {getattr(error, 'strerror', None) or error}; see {flags}"
        ) from None


def unbracketed(address: str) -> str:
    """Return an address without the brackets that IPv6 addresses may have."""
    return address.removeprefix("[").removesuffix("]")


def tls_of(server: Server, stack: AsyncExitStack) -> ssl.SSLContext | None:
    """Return the TLS context of the settings, None without TLS. It reads the certificate again on SIGHUP.

    `stack` restores the previous handler of SIGHUP. Raises ListenError, UnsafeFileError.
    """
    certificate, key = server.certfile, server.keyfile
    if not certificate:
        return None
    require_safe(Path(certificate), secret=False)
    require_safe(Path(key), secret=True)
    try:
        context = tls_context(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise ListenError(
            f"--certfile, --keyfile: {certificate}, {key}: {error.strerror or error}; expected a certificate and its "
            "key, both in PEM, the key without a passphrase"
        ) from None
    on_hangup(lambda: read_certificate_again(context, certificate, key), stack)
    return context


def listen(
    app: Application,
    settings: Settings,
    listening: list[socket.socket],
    stack: AsyncExitStack,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve an application on listening sockets, until `stack` ends that."""
    http = LimitedHTTPServer(app, settings, app.settings["policy"].unasked, tls)
    stack.push_async_callback(http.close_all_connections)
    stack.callback(http.stop)
    http.add_sockets(listening)
    time = asyncio.get_running_loop().time
    checking = asyncio.create_task(every(LOOK_EVERY, lambda: http.close_stalled(time())))
    stack.push_async_callback(end, checking)


def url_of(listening: socket.socket, *, tls: bool) -> str:
    """Return the URL of a server that listens on this socket."""
    host, port = listening.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
