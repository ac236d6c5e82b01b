"""The HTTP server, with a bound on connections that have not become sockets."""

from __future__ import annotations

from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

__all__ = ["Doorkeeper"]


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
