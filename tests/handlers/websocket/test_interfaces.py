"""A message that is encoded for both protocol versions."""

from __future__ import annotations

from handlers.websocket.interfaces import EncodedMessage
from models.records import Message


def test_a_message_is_encoded_once() -> None:
    """A message is encoded once for each version, however many sockets get it."""
    encoded = EncodedMessage(Message(1, 2, 3, 4, "hi", b""))
    assert encoded.v1 is encoded.v1
    assert encoded.v2 is encoded.v2
    assert b'"seq"' in encoded.v2
    assert b'"seq"' not in encoded.v1
