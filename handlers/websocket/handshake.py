"""The handshake of a WebSocket (RFC 6455, section 4.2): which requests are one, and its answer.

Tornado checks the same, but answers with other texts than ours, and keeps the handler for the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream
from tornado.web import HTTPError, RequestHandler
from tornado.websocket import WebSocketProtocol13

__all__ = ["SUBPROTOCOLS", "accept", "first_known", "offered_subprotocols", "require_handshake"]

VERSION = "13"  # of the protocol; the only one that browsers still speak
UPGRADE = "websocket"
_KEY = re.compile("[A-Za-z0-9+/]{22}==")
SUBPROTOCOLS = {"tandem.v1": "1", "tandem.v2": "2"}  # and the version of Tandem's protocol that each stands for


def require_handshake(headers: HTTPHeaders) -> None:
    """Raise HTTPError, 400 or 426, for a request that is none.

    `Upgrade` may list several protocols, of which the server takes one (RFC 9110, section 7.8).
    """
    if UPGRADE not in _listed(headers, "Upgrade") or "upgrade" not in _listed(headers, "Connection"):
        raise HTTPError(400, "a WebSocket upgrade is expected")
    if not headers.get("Host"):
        raise HTTPError(400, "Host is missing")
    if not _KEY.fullmatch(headers.get("Sec-WebSocket-Key", "")):
        raise HTTPError(400, "Sec-WebSocket-Key is missing, or not 16 bytes in Base64")
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise HTTPError(426, f"Sec-WebSocket-Version is not {VERSION}")


def accept(handler: RequestHandler, subprotocol: str | None) -> IOStream:
    """Answer a handshake with 101. Return the connection's stream, which the handler does not use any more."""
    handler.clear_header("Content-Type")
    handler.set_status(101)
    handler.set_header("Upgrade", UPGRADE)
    handler.set_header("Connection", "Upgrade")
    handler.set_header(
        "Sec-WebSocket-Accept",
        WebSocketProtocol13.compute_accept_value(handler.request.headers["Sec-WebSocket-Key"]),
    )
    if subprotocol is not None:
        handler.set_header("Sec-WebSocket-Protocol", subprotocol)
    handler.ui.clear()  # it refers to the handler, which would then wait for the garbage collector
    handler.finish()
    return handler.detach()


def offered_subprotocols(headers: HTTPHeaders) -> list[str]:
    """Return the subprotocols that a client offers, in its order (RFC 6455, section 11.3.4)."""
    return [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]


def first_known(offered: Iterable[str], version: str | None = None) -> str | None:
    """Return the first of these subprotocols that is Tandem's, and of this version if one is given."""
    for name in offered:
        if name in SUBPROTOCOLS and version in (None, SUBPROTOCOLS[name]):
            return name
    return None


def _listed(headers: HTTPHeaders, name: str) -> set[str]:
    """Return the values that a header lists, in lower case."""
    return {token.strip().lower() for token in headers.get(name, "").split(",")}
