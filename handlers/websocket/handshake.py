"""What makes a request the handshake of a WebSocket (RFC 6455, section 4.2.1), and what is left of it afterwards.

Tornado asks the same, but says no in other forms than ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

__all__ = ["OF_THE_HANDSHAKE", "SUBPROTOCOLS", "first_known", "offered_subprotocols", "require_handshake"]

# The attributes of a handler, Tornado's and ours, that nobody needs once the connection is upgraded.
# fmt: off
OF_THE_HANDSHAKE = frozenset((
    "request", "ui", "path_args", "path_kwargs", "open_args", "open_kwargs", "write", "redirect", "set_header",
    "set_cookie", "set_status", "flush", "finish", "_headers", "_headers_written", "_reason", "_transforms",
    "_write_buffer", "_history", "_users", "_version", "_log_id", "_known",
))
# fmt: on
VERSION = "13"  # of the protocol; the only one that browsers still speak
UPGRADE = "websocket"
_KEY = re.compile("[A-Za-z0-9+/]{22}==")
SUBPROTOCOLS = {"tandem.v1": "1", "tandem.v2": "2"}  # and the version of Tandem's protocol that each stands for


def require_handshake(headers: HTTPHeaders) -> None:
    """Raise HTTPError, 400 or 426, for a request that is none.

    `Upgrade` may list several protocols, of which the server takes one (RFC 9110, section 7.8). Tornado wants to see
    the one alone, so that is what is left there.
    """
    if UPGRADE not in _listed(headers, "Upgrade") or "upgrade" not in _listed(headers, "Connection"):
        raise HTTPError(400, "a WebSocket upgrade is expected")
    headers["Upgrade"] = UPGRADE
    if not _KEY.fullmatch(headers.get("Sec-WebSocket-Key", "")):
        raise HTTPError(400, "Sec-WebSocket-Key is missing, or not 16 bytes in Base64")
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise HTTPError(426, f"Sec-WebSocket-Version is not {VERSION}")


def offered_subprotocols(headers: HTTPHeaders) -> list[str]:
    """The subprotocols that a client offers, in its order (RFC 6455, section 11.3.4)."""
    return [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()]


def first_known(offered: Iterable[str], version: str | None = None) -> str | None:
    """The first of these subprotocols that is Tandem's, and stands for this version if one is given."""
    for name in offered:
        if name in SUBPROTOCOLS and version in (None, SUBPROTOCOLS[name]):
            return name
    return None


def _listed(headers: HTTPHeaders, name: str) -> set[str]:
    """What a header lists, in lower case."""
    return {token.strip().lower() for token in headers.get(name, "").split(",")}
