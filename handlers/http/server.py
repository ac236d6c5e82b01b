"""The HTTP server with its limits on connections that are not sockets, and its TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import structlog
from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.iostream import IOStream
from tornado.web import Application

from common.token_bucket import Buckets
from config.settings import Settings
from handlers.http.acceptor import Acceptor
from handlers.http.http1 import ServerConnection
from handlers.http.request_policy import LONGEST_WAIT, subject_of, within

__all__ = ["LimitedHTTPServer", "read_certificate_again", "tls_context"]

NO_PASSPHRASE = ""  # otherwise OpenSSL asks for one at the terminal, and blocks the event loop

_log = structlog.get_logger(__name__)


class LimitedHTTPServer(HTTPServer):
    """Tornado's HTTPServer with limits on connections that are not WebSockets; the registry counts those.

    Above `max_http_connections` in all, or `max_address_http_connections` from one address, connections are closed at
    once. Trusted proxies are not counted. A client that opens a connection and sends nothing counts until the
    handshake's time is over. A client that does not read an answer counts until nothing of it could be sent for that
    time. The system buffers about `socket_buffer` bytes for a connection in each direction; 0 leaves the size to the
    system, which may mean megabytes.

    `unasked` has a bucket for each address, for requests that no user was authenticated for. With `tls`, connections
    are encrypted.
    """

    def initialize(  # type: ignore[override]  # Tornado's configurable classes take their arguments here
        self, app: Application, settings: Settings, unasked: Buckets, tls: ssl.SSLContext | None
    ) -> None:
        """Take the arguments of the class."""
        self._limits = limits = settings.limits
        self._timeout = timeout = settings.timeouts.handshake_timeout
        self._proxies = settings.server.trusted_proxies
        self._unasked = unasked
        self._from: Counter[str] = Counter()  # connections by address
        self._progress: dict[HTTP1ServerConnection, tuple[int, float]] = {}  # bytes sent, and since when no more
        super().initialize(
            app,
            idle_connection_timeout=timeout,
            body_timeout=timeout,
            max_body_size=limits.max_body,
            max_header_size=limits.max_header,
            max_buffer_size=2 * max(limits.max_body, limits.max_header, limits.max_frame),
            ssl_options=tls,
        )

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on these sockets, whose buffer sizes the connections inherit."""
        for listening in sockets:
            if size := self._limits.socket_buffer:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            self._sockets[listening.fileno()] = listening
            self._handlers[listening.fileno()] = Acceptor(listening, self._handle_connection).stop

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Serve an accepted connection, or close it if there are too many."""
        subject = self._subject(address)
        too_many = subject is not None and self._from[subject] >= self._limits.max_address_http_connections
        if too_many or len(self._connections) >= self._limits.max_http_connections:
            stream.close()
            return
        if subject is not None:
            self._from[subject] += 1
        context = _HTTPRequestContext(stream, address, self.protocol, self.trusted_downstream)
        connection = ServerConnection(stream, self.conn_params, context, partial(self._weigh, subject))
        self._connections.add(connection)
        connection.start_serving(self)

    def on_close(self, server_conn: Any) -> None:
        """Note that a connection has ended or has become a WebSocket; called by Tornado."""
        subject = self._subject(server_conn.context.address)
        if subject is not None:
            self._from[subject] -= 1
            if not self._from[subject]:
                del self._from[subject]
        self._progress.pop(server_conn, None)
        super().on_close(server_conn)

    def close_stalled(self, now: float) -> None:
        """Close connections whose clients do not read. `now` is loop time."""
        for connection in tuple(self._connections):
            stream = connection.stream
            sent, since = self._progress.get(connection, (-1, now))
            if not stream.writing():
                self._progress.pop(connection, None)
            elif (done := stream._total_write_done_index) != sent:  # noqa: SLF001  # only the stream knows that
                self._progress[connection] = (done, now)
            elif now - since >= self._timeout:
                stream.close()

    async def _weigh(self, subject: str | None) -> None:
        """Count a request that no handler sees for its address. Wait if there were too many."""
        if subject is None:
            return
        bucket = self._unasked.of(subject)
        wait = bucket.take(0)
        bucket.charge(1.0)
        if wait:
            await asyncio.sleep(min(wait, LONGEST_WAIT))

    def _subject(self, address: tuple[Any, ...]) -> str | None:
        """Return what counts as the address of a connection, None if it is not counted."""
        if not isinstance(address, tuple) or within(address[0], self._proxies):
            return None
        return subject_of(address[0])


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return a server's context, TLS 1.2 or later, for PEM files. Raises OSError, such as ssl.SSLError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key, NO_PASSPHRASE)
    return context


def read_certificate_again(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a renewed certificate for new connections. Keep the old one if the new one cannot be used."""
    try:
        tls_context(certificate, key)  # a failed load into the real context would lose the old certificate
        context.load_cert_chain(certificate, key, NO_PASSPHRASE)
    except OSError as error:
        _log.error("certificate_not_read", reason=str(error))
    else:
        _log.info("certificate_read")
