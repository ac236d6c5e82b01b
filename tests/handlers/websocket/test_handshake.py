"""Which requests are WebSocket handshakes; tests/handlers/test_bad_input.py sends others to a server."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders
from tornado.web import HTTPError

from handlers.websocket.handshake import first_known, offered_subprotocols, require_handshake

GOOD = {
    "Host": "localhost",
    "Upgrade": "WebSocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_a_handshake() -> None:
    """Header values count in any letter case, and beside other words."""
    require_handshake(HTTPHeaders(GOOD))


@pytest.mark.parametrize("upgrade", ["websocket, h2c", "h2c,WebSocket", "TLS/1.2, IRC/6.9, websocket", ",websocket,"])
def test_an_upgrade_to_one_of_several(upgrade: str) -> None:
    """`Upgrade` may list several protocols, in the client's order (RFC 9110, section 7.8)."""
    require_handshake(HTTPHeaders(GOOD | {"Upgrade": upgrade}))


def test_an_upgrade_in_several_lines() -> None:
    """Several lines of `Upgrade` are one list (RFC 9110, section 5.3)."""
    headers = HTTPHeaders(GOOD | {"Upgrade": "h2c"})
    headers.add("Upgrade", "websocket")
    require_handshake(headers)


@pytest.mark.parametrize(
    ("offered", "chosen", "for_version_1"),
    [
        ("", None, None),
        ("tandem.v2", "tandem.v2", None),
        ("chat, tandem.v1 ,tandem.v2", "tandem.v1", "tandem.v1"),
        ("tandem.v2,tandem.v1", "tandem.v2", "tandem.v1"),
        ("Tandem.v2, tandem.v3, tandem, , v2", None, None),
    ],
)
def test_subprotocols(offered: str, chosen: str | None, for_version_1: str | None) -> None:
    """The client's order decides among the known ones, and letter case counts (RFC 6455, section 4.1)."""
    names = offered_subprotocols(HTTPHeaders({"Sec-WebSocket-Protocol": offered}))
    assert (first_known(names), first_known(names, "1")) == (chosen, for_version_1)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Host", "", 400),
        ("Upgrade", "h2c", 400),
        ("Upgrade", "h2c, websocket-x", 400),
        ("Upgrade", "", 400),
        ("Connection", "x-upgrade", 400),
        ("Connection", "", 400),
        ("Sec-WebSocket-Key", "", 400),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSE=", 400),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ_==", 400),
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Version", "", 426),
    ],
)
def test_requests_that_are_no_handshake(name: str, value: str, status: int) -> None:
    """A request with one of these headers is refused."""
    with pytest.raises(HTTPError) as caught:
        require_handshake(HTTPHeaders(GOOD | {name: value}))
    assert caught.value.status_code == status
