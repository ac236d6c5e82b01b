"""Tests of passwords as text: which forms are one password."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.accounts.passwords import LONGEST, forms_of, prepared

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(letters)
def test_one_form_for_all_keyboards(text: str) -> None:
    """All compositions of a letter have one form, and text in that form stays as it is."""
    for form in ("NFC", "NFD"):
        assert prepared(unicodedata.normalize(form, text)) == prepared(text)
    assert prepared(prepared(text)) == prepared(text)


@pytest.mark.parametrize(
    ("typed", "hashed"),
    [
        ("password", "password"),
        (" two  spaces ", " two  spaces "),
        ("no\u00a0break", "no break"),
        ("wide\u3000space", "wide space"),
        ("e\u0301", "é"),
        ("ﬁ", "ﬁ"),
        ("Å", "Å"),
        ("\u200b", "\u200b"),
        ("UPPER", "UPPER"),
    ],
)
def test_what_is_hashed(typed: str, hashed: str) -> None:
    """Only spaces and composition are unified: neither case nor letters that look alike."""
    assert prepared(typed) == hashed


@given(letters)
def test_the_forms(text: str) -> None:
    """The forms are the one that is hashed now, then the typed one; none twice, none too long."""
    forms = forms_of(text)
    assert len(forms) == len(set(forms)) <= 2
    assert all(len(form) <= LONGEST for form in forms)
    assert set(forms) <= {prepared(text).encode(), text.encode()}


def test_a_form_that_is_too_long() -> None:
    """A form that is too long is left out: 72 bytes in one form may be more in the other."""
    text = unicodedata.normalize("NFD", "ä" * 30)
    assert forms_of(text) == [("ä" * 30).encode()]
