"""Names of conversations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.records import Message, conversation_of

ids = st.integers(1, 2**63 - 1)


@given(one=ids, other=ids)
def test_both_sides_name_it_alike(one: int, other: int) -> None:
    """The conversation is the same for both, and tells who they are."""
    assert conversation_of(one, other) == conversation_of(other, one)
    assert [int(user) for user in conversation_of(one, other).split("-")] == sorted((one, other))


def test_numbers_are_compared_as_numbers() -> None:
    """9 comes before 10."""
    assert conversation_of(10, 9) == "9-10"
    assert Message(10, 9, 1, 0, "", b"").conversation == "9-10"
