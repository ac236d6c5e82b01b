"""The field for messages: keys, drafts, and texts that cannot be sent."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.web.people import Person, acquainted, join, members
from tests.web.site import Site
from tests.web.visitor import Visit

MOST = 8192  # the maximum of characters in a message


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


@pytest.fixture
def me(site: Site, visit: Visit) -> Person:
    """Return Ann, with Bob's conversation open."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    return join(site, visit, ann, permissions=["clipboard-read", "clipboard-write"]).open(bob)


def test_keys(me: Person) -> None:
    """Enter sends, with Shift it breaks the line; a text of spaces and line breaks only is not sent."""
    me.box.press_sequentially("one")
    me.box.press("Shift+Enter")
    me.box.press_sequentially("  two ")
    me.box.press("Enter")
    expect(me.box).to_have_value("")
    expect(me.box).to_be_focused()
    for nothing in ("", "   ", "\n \n"):
        me.box.fill(nothing)
        me.box.press("Enter")
        me.page.get_by_role("button", name="Send", exact=True).click()
    me.box.fill("three")
    me.page.get_by_role("button", name="Send", exact=True).click()
    me.reads("hello", "hi", "one\n  two", "three")


def test_enter_while_an_input_method_composes(me: Person) -> None:
    """While an input method composes, Enter chooses a word and sends nothing; the next Enter sends."""
    devtools = me.visitor.context.new_cdp_session(me.page)
    me.box.focus()
    devtools.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    expect(me.box).to_have_value("ni hao")
    me.page.keyboard.press("Enter")
    devtools.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    me.reads("hello", "hi")
    devtools.send("Input.insertText", {"text": "你好"})
    me.page.keyboard.press("Enter")
    expect(me.box).to_have_value("")
    me.reads("hello", "hi", "你好")


def test_a_text_that_is_too_long(me: Person) -> None:
    """A text that is too long stays and is counted, in characters as by the server, until it is short enough."""
    left = me.page.get_by_text("Characters left: ")
    me.box.fill("😀" * (MOST - 200))
    expect(left).to_be_hidden()
    me.box.fill("😀" * (MOST + 2))
    expect(left).to_have_text("Characters left: -2")
    expect(me.box).to_have_attribute("aria-invalid", "true")
    me.box.press("Enter")
    me.page.get_by_role("button", name="Send", exact=True).click()
    expect(me.box).to_have_value("😀" * (MOST + 2))
    me.reads("hello", "hi")
    me.box.press("Backspace")
    me.box.press("Backspace")
    expect(left).to_have_text("Characters left: 0")
    expect(me.box).to_have_attribute("aria-invalid", "false")
    me.box.press("Enter")
    me.reads("hello", "hi", "😀" * MOST)
    me.marked("😀" * MOST, "stored")
    expect(left).to_be_hidden()


@pytest.mark.parametrize(
    "text", ["word " * 120_000, "مرحبا hi " * 66_000, "😀" * 300_000], ids=["latin", "mixed", "emoji"]
)
def test_a_book(me: Person, text: str) -> None:
    """A book is refused, since a browser needs too long to lay it out; the old text stays, and the field says why."""
    me.box.fill("here")
    notice = me.page.get_by_text("Not accepted, since it is too long: ")
    me.page.evaluate("text => navigator.clipboard.writeText(text)", text)
    me.box.press("ControlOrMeta+v")
    expect(notice).to_contain_text("A message has at most 8192.")
    expect(me.box).to_have_value("here")
    me.box.press_sequentially("!")
    expect(me.box).to_have_value("here!")
    expect(notice).to_be_hidden()
    me.box.fill(text)  # text that does not come from the clipboard
    expect(notice).to_be_visible()
    expect(me.box).to_have_value("here!")
    me.box.press("Enter")
    me.reads("hello", "hi", "here!")


def test_a_draft(site: Site, visit: Visit) -> None:
    """A draft belongs to a conversation, survives a reload, and ends when it is sent."""
    ann, bob, cid = members(site, "Ann", "Bob", "Cid")
    for peer in (bob, cid):
        acquainted(site, ann, peer)
    me = join(site, visit, ann).open(bob)
    me.box.fill("to Bob\nor so")
    me.open(cid)
    expect(me.box).to_have_value("")
    me.box.fill("to Cid")
    me.page.reload()
    me.connected()
    expect(me.box).to_have_value("to Cid")
    me.open(bob)
    expect(me.box).to_have_value("to Bob\nor so")
    me.send("to Bob")
    me.page.reload()
    me.connected().reads("hello", "hi", "to Bob")
    expect(me.box).to_have_value("")


def test_the_field_grows_with_its_text(me: Person) -> None:
    """The field grows with its text up to a part of the window, and does not cover the end of the conversation."""
    me.send(*(f"line {n}" for n in range(30)))
    low = me.box.bounding_box()
    me.box.fill("\n".join("abcdefgh"))
    high = me.box.bounding_box()
    me.box.fill("\n" * 100)
    most = me.box.bounding_box()
    assert low and high and most
    assert low["height"] < high["height"] < most["height"] < 0.5 * me.page.viewport_size["height"]  # type: ignore[index]
    expect(me.bubble("line 29")).to_be_in_viewport(ratio=1)
    expect(me.jump).to_be_hidden()
