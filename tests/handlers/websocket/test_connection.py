"""What a socket and its dialect know of each other."""

from __future__ import annotations

from handlers.websocket.connection import Live
from models.records import Message


def test_a_message_is_encoded_once() -> None:
    """However many sockets it goes to."""
    live = Live(Message(1, 2, 3, 4, "hi", b""))
    assert live.dialect1 is live.dialect1
    assert live.dialect2 is live.dialect2
    assert b'"seq"' in live.dialect2
    assert b'"seq"' not in live.dialect1
