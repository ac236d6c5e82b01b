"""The HTTP server, with a bound on connections that have not become sockets, and its TLS."""

from __future__ import annotations

import ssl
from typing import Any

import structlog
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

__all__ = ["Doorkeeper", "read_certificate_again", "tls_context"]

_log = structlog.get_logger(__name__)


class Doorkeeper(HTTPServer):
    """Tornado's HTTPServer, which closes connections above `max_connections` unheard.

    A connection that has become a WebSocket is not counted: the registry does that. Whoever opens connections and
    says nothing holds these places until the handshake's time is over; whoever does not read an answer, until the
    operating system gives the connection up. Either holds no memory and no open files beyond them.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """As HTTPServer; Tornado's classes are configurable, and take their arguments here."""
        self._max_connections: int = kwargs.pop("max_connections")
        super().initialize(*args, **kwargs)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Takes a connection that was accepted."""
        if len(self._connections) >= self._max_connections:
            stream.close()
            return
        super().handle_stream(stream, address)


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's context, TLS 1.2 or later, for files in PEM. Raises OSError; ssl.SSLError is one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def read_certificate_again(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Takes a renewed certificate for new connections; keeps the old one when that cannot be used."""
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        _log.error("certificate_not_read", reason=str(error))
    else:
        _log.info("certificate_read")
