"""Tests of protocol v2's codec: accepted, refused and encoded frames."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chat.events import PositionsChanged
from models.errors import InvalidFrame
from models.protocol import v2
from models.protocol.v1 import Code
from models.records import Message, ReadPositions

WRONG = {
    "null": "frame: expected object, got null",
    "": "frame: input data was truncated",
    '{"id":"x"}': "type: is missing",
    '{"Type":1}': "type: is missing",
    '{"type":"1"}': "type: expected integer, got string",
    '{"type":0}': "type: is not one of 1, 2, 3, 4, 5, 6",
    '{"type":1,"id":""}': "id: expected string of length >= 1",
    '{"type":1,"id":5}': "id: expected string | null, got integer",
    '{"type":1,"id":"a","id":"b"}': "frame: a key appears twice",
    '{"type":1,"i\\u0064":"a","id":"b"}': "frame: a key appears twice",
    '{"type":1,"content":null}': "content: expected string, got null",
    '{"type":1,"content":"\\ud800"}': "frame: holds a lone surrogate",
    '{"type":1,"content":"123456"}': "content: has 6 characters, 5 are allowed",
    '{"type":2,"before":1.5}': "before: expected integer | null, got number",
    '{"type":2,"before":9007199254740993}': "before: expected integer <= 9007199254740992",
    '{"type":2,"before":5,"after":1}': "before: cannot stand beside after",
    '{"type":2,"after":{"2":1}}': "after: is not a seq",
    '{"type":2,"limit":0}': "limit: expected integer >= 1",
    '{"type":4}': "received: is missing, and so is read",
    '{"type":6}': "after: is missing",
    '{"type":6,"after":{"2":-1}}': "after: expected integer >= 0",
    '{"type":6,"after":{"secret":"x"}}': "after: expected integer, got string",
    '{"type":6,"after":{"2":1,"2":2}}': "frame: a key appears twice",
    '{"type":1,"x":' + "9" * 5000 + ',"y":"\\n"}': "frame: a number is too long",
    '{"x":' * 100_000: "frame: is nested too deeply",
}


@pytest.mark.parametrize(("text", "reason"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_no_frame(text: str, reason: str) -> None:
    """Everything that is not a valid request is refused, with the wrong field and the reason."""
    with pytest.raises(InvalidFrame) as caught:
        v2.decode2(text, 5)
    assert reason == str(caught.value)


@given(st.text())
def test_any_text_is_a_frame_or_refused(text: str) -> None:
    """Any text is decoded or raises InvalidFrame, and the id of an invalid frame is found safely."""
    try:
        v2.decode2(text, 5)
    except InvalidFrame:
        v2.id_in(text)


@given(st.text(min_size=1, max_size=64), st.text(max_size=50))
def test_what_a_client_says_is_read(name: str, content: str) -> None:
    """Ids and contents may be any text."""
    request = v2.decode2(json.dumps({"type": 1, "id": name, "content": content}), 50)
    assert (request.id, request.content) == (name, content)


def test_what_is_not_set_does_not_appear() -> None:
    """Frames have their fields in order, without those that are not set."""
    message = Message(1, 2, 42, 1000, "hi", b"", "k1")
    shown = '{"from":"1","to":"2","seq":42,"time":1000,"content":"hi","id":"k1"}'
    expected = {
        v2.greeting("connected", "0f"): '{"from":"","code":50002,"content":"connected","log":"0f"}',
        v2.answer(Code.ONLINE, "en", None): '{"from":"","code":50004,"content":"stored, the other is online"}',
        v2.answer(Code.INVALID, "en", "r", error="limit: expected integer >= 1"): (
            '{"from":"","code":400,"content":"invalid request","id":"r","error":"limit: expected integer >= 1"}'
        ),
        v2.answer(Code.MOVED, "zh", "r", positions=ReadPositions(2, 0)): (
            '{"from":"","code":50007,"content":"","id":"r","received":2,"read":0}'
        ),
        v2.live(message): '{"from":"1","code":50001,"content":"hi","to":"2","id":"k1","seq":42,"time":1000}',
        v2.live(msgspec.structs.replace(message, id="")): (
            '{"from":"1","code":50001,"content":"hi","to":"2","seq":42,"time":1000}'
        ),
        v2.page(None, [], complete=True): '{"from":"","code":50002,"content":"","messages":[],"complete":true}',
        v2.page("q", [message], complete=False, more=["2"]): (
            '{"from":"","code":50002,"content":"","id":"q","messages":[' + shown + '],"complete":false,"more":["2"]}'
        ),
        v2.moved(
            PositionsChanged(2, 1, 42, 40)
        ): '{"from":"2","code":50007,"content":"","to":"1","received":42,"read":40}',
        v2.typing(2, 1): '{"from":"2","code":50008,"content":"","to":"1"}',
        v2.presence(2, 1, online=False): '{"from":"2","code":50009,"content":"","to":"1","online":false}',
    }
    assert list(expected.values()) == [frame.decode() for frame in expected]
    assert json.loads(shown) == v2.shown(message)
