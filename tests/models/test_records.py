"""Tests of the names of conversations, and of the keys of messages."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from models.records import Message, conversation_of, key_of, user_id

ids = st.integers(1, 2**63 - 1)


@given(one=ids, other=ids)
def test_both_sides_name_it_alike(one: int, other: int) -> None:
    """A conversation has one name for both users, which contains their ids."""
    assert conversation_of(one, other) == conversation_of(other, one)
    assert [int(user) for user in conversation_of(one, other).split("-")] == sorted((one, other))


def test_numbers_are_compared_as_numbers() -> None:
    """9 comes before 10 in a name."""
    assert conversation_of(10, 9) == "9-10"
    assert Message(10, 9, 1, 0, "", b"").conversation == "9-10"


def test_texts_that_are_no_ids() -> None:
    """An id has one spelling."""
    for text in ("", "0", "01", "-1", "+1", " 1", "1 ", "1_0", "x", "٣", "²", "1.0", str(2**63), "9" * 20):
        assert user_id(text) is None


@given(user=ids)
def test_texts_that_are_ids(user: int) -> None:
    """Ids go up to MongoDB's largest integer."""
    assert user_id(str(user)) == user


@given(sender=ids, other=ids, name=st.text(min_size=1), another=st.text(min_size=1))
def test_a_key_is_of_one_sender_and_one_id(sender: int, other: int, name: str, another: str) -> None:
    """Every attempt to send a message has the same key, and no other message has it."""
    assert len(key_of(sender, name)) == 16
    assert (key_of(sender, name) == key_of(other, another)) == ((sender, name) == (other, another))


@given(first=st.integers(0, 2**48 - 2), later=st.data(), rest=st.integers(0, 2**74 - 1), sender=ids)
def test_keys_rise_with_the_time_in_the_id(first: int, later: st.DataObject, rest: int, sender: int) -> None:
    """Keys rise with the time in a UUIDv7, in all its spellings."""
    second = later.draw(st.integers(first + 1, 2**48 - 1))

    def uuid7(milliseconds: int) -> UUID:
        low = rest & (2**62 - 1)
        return UUID(int=milliseconds << 80 | 7 << 76 | (rest >> 62) << 64 | 0b10 << 62 | low)

    assert key_of(sender, str(uuid7(first))) < key_of(sender, str(uuid7(second)))
    assert key_of(sender, uuid7(first).hex) < key_of(sender, uuid7(second).hex)
