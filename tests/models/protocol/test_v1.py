"""Tests of protocol v1's codec. Refused frames are in tests/handlers/test_bad_input.py."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidFrame
from models.protocol.v1 import TEXTS, Code, Request, decode, encode, moment, reply

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
content = st.text(st.characters(exclude_categories=["Cs"]))


@given(kind=st.sampled_from([1, 2, 3]), text=content, ascii_only=st.booleans())
def test_what_a_client_encodes_is_read(kind: int, text: str, ascii_only: bool) -> None:
    """All escapes of JSON libraries are decoded."""
    request = decode(json.dumps({"type": kind, "content": text}, ensure_ascii=ascii_only), max_content=10**6)
    assert (kind, text) == (request.type, request.content)


@given(
    st.text()
    | anything.map(json.dumps)
    | st.dictionaries(st.sampled_from(["type", "content"]), anything).map(json.dumps)
)
def test_anything_else_is_an_invalid_frame(text: str) -> None:
    """Any text is decoded as a request or raises InvalidFrame, and nothing else."""
    try:
        request = decode(text, max_content=100)
    except InvalidFrame:
        return
    assert request.type in (1, 2, 3)
    assert len(request.content) <= 100


IN_GO = {
    '{"Type":1,"CONTENT":"caps"}': Request(1, "caps"),
    '{"Type":1,"Content":"Go and C# by default"}': Request(1, "Go and C# by default"),
    '{"type":1,"Content":"one of them"}': Request(1, "one of them"),
    '{"tYPE":3}': Request(3, ""),
    '{"type":1,"C\\u006fntent":"escaped"}': Request(1, "escaped"),
    '{"type":3,"content":null}': Request(3, ""),
    '{"TYPE":1,"CONTENT":null}': Request(1, ""),
    '{"type":1,"content":null,"Content":"null is as if left out"}': Request(1, "null is as if left out"),
    '{"type":1,"Type":2,"content":"the documented name first"}': Request(1, "the documented name first"),
    '{"Type":1,"content":"a","Content":"b"}': Request(1, "a"),
    '{"Type":1,"CONTENT":"x","Other":{"Type":2,"content":5}}': Request(1, "x"),
}


@pytest.mark.parametrize(("text", "request_"), IN_GO.items(), ids=IN_GO)
def test_what_a_server_in_go_reads(text: str, request_: Request) -> None:
    """Keys in any case, and null for content, are decoded as by the article's server."""
    assert request_ == decode(text, 100)


NOT_EVEN_IN_GO = {
    '{"TYPE":1,"Type":2}': "type: appears twice",
    '{"Type":1,"CONTENT":"a","Content":"b"}': "content: appears twice",
    '{"Type":1,"Type":1}': "frame: a key appears twice",
    '{"Type":null}': "type: is missing",
    '{"Type":"1"}': "type: is missing",
    '{"Type":1,"CONTENT":5}': "type: is missing",
    '{"Type":9}': "type: is not one of 1, 2, 3",
    '{"Type":1,"CONTENT":"123456"}': "content: has 6 characters, 5 are allowed",
    '{"type":1,"contents":"x","content":1}': "content: expected string, got integer",
    '{"Type":1,"CONTENT":"\\ud800"}': "frame: holds a lone surrogate",
    '["Type"]': "frame: expected object, got array",
    '{"TYPE":' * 100_000: "frame: is nested too deeply",
}


@pytest.mark.parametrize(("text", "reason"), NOT_EVEN_IN_GO.items(), ids=range(len(NOT_EVEN_IN_GO)))
def test_other_spellings_change_nothing_else(text: str, reason: str) -> None:
    """A frame that is refused in lower case is refused in any case, with the reason for the documented spelling."""
    with pytest.raises(InvalidFrame) as caught:
        decode(text, 5)
    assert reason == str(caught.value)


def test_ordinary_frames_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only frames with other spellings are decoded a second time."""

    def fail(text: str) -> None:
        raise AssertionError(text)

    monkeypatch.setattr("models.protocol.v1._decode_any", fail)
    for text in ('{"type":1,"content":"hi"}', '{"type":1,"content":""}', '{"type":3}', '{"type":1,"content":"a\\n"}'):
        assert decode(text, 10)


def test_length_is_counted_in_characters() -> None:
    """The length is counted in characters, not in bytes: Chinese text may be as long as English."""
    assert decode('{"type":1,"content":"' + "字" * 8192 + '"}', 8192).content == "字" * 8192
    with pytest.raises(InvalidFrame):
        decode('{"type":1,"content":"' + "字" * 8193 + '"}', 8192)


@given(text=content, sender=st.sampled_from(["", "me", "you"]))
def test_a_reply_has_three_keys_in_order(text: str, sender: str) -> None:
    """A reply has `from`, `code` and `content` in this order, like the article's ReplyMsg."""
    frame = json.loads(encode(Code.MESSAGE, text, sender))
    assert [("from", sender), ("code", 50001), ("content", text)] == list(frame.items())


def test_replies_are_the_articles_texts() -> None:
    """Replies have the article's texts, or English ones on request."""
    assert '{"from":"","code":50006,"content":"达到限制"}'.encode() == reply(Code.LIMIT)
    assert json.loads(reply(Code.LIMIT, "en"))["content"].startswith("limit reached")
    assert set(TEXTS["zh"]) == set(TEXTS["en"])


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1700000000", 1_700_000_000_000),
        ("0", 0),
        ("-5", -5000),
        ("+7", 7000),
        (" 7 ", 7000),
        ("1700000000.25", 1_700_000_000_250),
        ("9" * 5000, 10**15),
        ("", None),
        ("now", None),
        ("NaN", None),
        ("inf", None),
        ("1e5", None),
        ("0x10", None),
        ("1_000", None),
        ("١٢", None),
        ("12;", None),
    ],
)
def test_moment(text: str, milliseconds: int | None) -> None:
    """The time is Unix seconds as text; anything that is not a number means the newest."""
    assert milliseconds == moment(text)
