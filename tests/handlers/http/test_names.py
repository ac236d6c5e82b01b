"""Tests of new names: no invisible characters, and joiners only where they join."""

from __future__ import annotations

import pytest

from handlers.http import fields
from models.errors import InvalidRequest

UNSEEN = {
    "braille blank": "\u2800",
    "hangul choseong filler": "\u115f",
    "hangul jungseong filler": "\u1160",
    "hangul filler": "\u3164",
    "halfwidth hangul filler": "\uffa0",
    "mongolian variation selector": "\u180b",
    "mongolian vowel separator": "\u180e",
    "mongolian variation selector four": "\u180f",
    "variation selector 1": "\ufe00",
    "variation selector 15": "\ufe0e",
    "variation selector 17": "\U000e0100",
    "combining grapheme joiner": "\u034f",
    "khmer inherent vowel": "\u17b4",
    "khitan filler": "\U00016fe4",
    "musical null notehead": "\U0001d159",
    "object replacement": "\ufffc",
    "zero width space": "\u200b",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff",
    "right-to-left override": "\u202e",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "tag": "\U000e0061",
    "tab": "\t",
    "private use": "\ue000",
}


@pytest.mark.parametrize("letter", UNSEEN.values(), ids=UNSEEN)
def test_what_cannot_be_seen(letter: str) -> None:
    """Invisible characters are refused in both kinds of names: they would allow names that look the same."""
    for name in (f"ali{letter}ce", f"{letter}alice", f"alice{letter}"):
        with pytest.raises(InvalidRequest, match=r"^user_name: "):
            fields.user_name({"user_name": name})
        with pytest.raises(InvalidRequest, match=r"^nick_name: "):
            fields.nick_name({"nick_name": name})


JOINED = {
    "Persian, between letters that join": "علی\u200cرضا",
    "Persian, with a mark between": "نامه\u064e\u200cها",
    "Hindi, no ligature": "क्\u200cष",
    "Hindi, half a letter": "क्\u200dष",
    "Sinhala": "ක්\u200dෂය",
    "a woman who is an astronaut": "👩\u200d🚀",
    "with the colour of skin": "👩🏽\u200d🚀",
    "a family": "👨\u200d👩\u200d👧\u200d👦",
    "a rainbow flag": "🏳\ufe0f\u200d🌈",
    "a red heart": "❤\ufe0f Ann",
    "a keycap": "7\ufe0f\u20e3",
    "the flag of Scotland": "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
}


@pytest.mark.parametrize("name", JOINED.values(), ids=JOINED)
def test_joiners_where_they_join(name: str) -> None:
    """A nick name may have joiners and keeps them; a user name may not have them."""
    if len(name) >= fields.NICK_NAME[0]:
        assert fields.nick_name({"nick_name": name}) == name
    with pytest.raises(InvalidRequest, match=r"^user_name: "):
        fields.user_name({"user_name": (name + "abcde")[:15]})


NOT_JOINED = {
    "between Latin letters": "a\u200db",
    "a non-joiner between Latin letters": "a\u200cb",
    "at the end": "علی\u200c",
    "at the beginning": "\u200cعلی",
    "after a letter that joins nothing behind it": "رز\u200cرضا",
    "twice": "علی\u200c\u200cرضا",
    "a joiner in Persian": "علی\u200dرضا",
    "a virama at the end": "क्\u200d",
    "an emoji and a letter": "👩\u200da",
    "an emoji and nothing": "👩👩\u200d",
    "two joiners between emoji": "👩\u200d\u200d🚀",
    "a selector behind a letter": "ab\ufe0f",
    "a selector that changes nothing": "😀😀\ufe0f",
    "two selectors": "❤\ufe0f\ufe0f",
    "a selector behind a digit": "77\ufe0f",
    "a flag that there is not": "🏴\U000e0067\U000e0062\U000e0078\U000e0078\U000e0078\U000e007f",
}


@pytest.mark.parametrize("name", NOT_JOINED.values(), ids=NOT_JOINED)
def test_joiners_where_they_join_nothing(name: str) -> None:
    """Joiners that join nothing are invisible, and refused."""
    with pytest.raises(InvalidRequest, match=r"^nick_name: holds a character that cannot be seen"):
        fields.nick_name({"nick_name": name})


@pytest.mark.parametrize("name", ["\u0301\u0302", "\u0e38\u0e38", "\u20dd \u20dd"])
def test_a_blank_name(name: str) -> None:
    """Combining marks alone are not a name."""
    with pytest.raises(InvalidRequest, match=r"^nick_name: has nothing that can be seen"):
        fields.nick_name({"nick_name": name})


@pytest.mark.parametrize("name", ["alice  bob", "\uff41lice", "alice\u0301x", "ﬁnder"])
def test_twins_of_a_user_name(name: str) -> None:
    """Spellings that look like another are refused, such as two spaces, which look like one in a page."""
    with pytest.raises(InvalidRequest, match=r"^user_name: holds a letter in an unusual form"):
        fields.user_name({"user_name": name})


@pytest.mark.parametrize(
    "name", ["alice", "Zoë-Müller", "王小明的账号", "علی رضایی", "a b c", "o'Neill_7!", "Иванов", "ผู้ใช้ใหม่"]
)
def test_common_names(name: str) -> None:
    """Letters of all scripts, digits, signs and single spaces are accepted in both kinds of names."""
    assert fields.user_name({"user_name": name}) == name
    assert fields.nick_name({"nick_name": name}) == name
