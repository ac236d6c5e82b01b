"""What makes a request the handshake of a WebSocket (RFC 6455, section 4.2.1), and what is left of it afterwards.

Tornado asks the same, but says no in other forms than ours.
"""

from __future__ import annotations

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

__all__ = ["OF_THE_HANDSHAKE", "require_handshake"]

# The attributes of a handler, Tornado's and ours, that nobody needs once the connection is upgraded.
# fmt: off
OF_THE_HANDSHAKE = frozenset((
    "request", "ui", "path_args", "path_kwargs", "open_args", "open_kwargs", "write", "redirect", "set_header",
    "set_cookie", "set_status", "flush", "finish", "_headers", "_headers_written", "_reason", "_transforms",
    "_write_buffer", "_reader", "_users", "_version", "_log_id",
))
# fmt: on
VERSION = "13"  # of the protocol; the only one that browsers still speak


def require_handshake(headers: HTTPHeaders) -> None:
    """Raises HTTPError, 400 or 426, for a request that is none."""
    connection = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    if headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in connection:
        raise HTTPError(400, "a WebSocket upgrade is expected")
    if not headers.get("Sec-WebSocket-Key"):
        raise HTTPError(400, "Sec-WebSocket-Key is missing")
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise HTTPError(426, f"Sec-WebSocket-Version is not {VERSION}")
