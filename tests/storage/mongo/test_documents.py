"""Tests of message documents and their expiry."""

from __future__ import annotations

import bson
from hypothesis import given
from hypothesis import strategies as st

from models.records import Message
from storage.mongo.documents import DAY, RETENTION, documents_of, message_of

users = st.integers(1, 2**63 - 1)


@given(
    users,
    users,
    st.integers(1, 2**53),
    st.integers(0, 2**42),
    st.text(),
    st.binary(min_size=16, max_size=16),
    st.text(),
)
def test_round_trip(sender: int, recipient: int, seq: int, time: int, content: str, key: bytes, name: str) -> None:
    """A message is unchanged after encoding as BSON and decoding."""
    if sender == recipient:
        return
    message = Message(sender, recipient, seq, time, content, key, name)
    assert message == message_of(bson.decode(bson.encode(*documents_of([message]))))


def test_expiry_is_rounded_up() -> None:
    """The expiry is rounded up to the hour, never before ninety days."""
    for time in (0, 1, 3_599_999, 3_600_000):
        end = documents_of([Message(1, 2, 1, time, "", bytes(16))])[0]["endTime"]
        assert 0 <= end.timestamp() * 1000 - (time + RETENTION) < DAY // 24
