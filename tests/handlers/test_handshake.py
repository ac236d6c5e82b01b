"""Handshakes, and what is none; tests/handlers/test_bad_input.py sends such to a server."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

from handlers.handshake import require_handshake

GOOD = {
    "Upgrade": "WebSocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "x",
    "Sec-WebSocket-Version": "13",
}


def test_a_handshake() -> None:
    """In any letter case, and with other words beside the one that counts."""
    require_handshake(HTTPHeaders(GOOD))


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Upgrade", "h2c", 400),
        ("Upgrade", "websocket, h2c", 400),
        ("Connection", "x-upgrade", 400),
        ("Connection", "", 400),
        ("Sec-WebSocket-Key", "", 400),
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Version", "", 426),
    ],
)
def test_what_is_none(name: str, value: str, status: int) -> None:
    """Each of these alone."""
    with pytest.raises(HTTPError) as caught:
        require_handshake(HTTPHeaders(GOOD | {name: value}))
    assert caught.value.status_code == status
