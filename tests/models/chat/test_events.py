"""Tests of events between processes."""

from __future__ import annotations

import msgspec
import pytest

from models.chat.events import Event, MessageStored, PositionsChanged, Typing
from models.records import Message


@pytest.mark.parametrize(
    "event", [MessageStored(Message(1, 2, 3, 4, "你好", bytes(16), "k")), PositionsChanged(1, 2, 3, 4), Typing(1, 2)]
)
def test_round_trip(event: Event) -> None:
    """An encoded event is decoded as the same kind."""
    assert event == msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event)
