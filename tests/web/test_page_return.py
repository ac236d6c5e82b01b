"""Failures and recovery: tabs, pages, the network, the server. No message is lost, doubled or out of order."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.web.people import CONNECTING, Person, couple, voice
from tests.web.site import Site
from tests.web.visitor import Visit


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def test_tabs(site: Site, visit: Visit) -> None:
    """A message written in one tab is in all, once; one read in a tab is read in all, even after they were closed."""
    me, peer = couple(site, visit)
    tabs = [me, me.tab(), me.tab()]
    peer.open(me.member)
    for tab in tabs[:2]:
        tab.open(peer.member)
    me.send("from a tab")
    for each in (*tabs[:2], peer):
        each.reads("hello", "hi", "from a tab")
    expect(tabs[2].contact(peer.member)).to_contain_text("You: from a tab")
    for tab in tabs[:2]:
        tab.page.go_back()
        expect(tab.thread).to_be_hidden()
    peer.send("one", "two")
    for tab in tabs:
        tab.titled("(2) Tandem")
        expect(tab.contact(peer.member)).to_contain_text("2 unread")
    tabs[1].open(peer.member)
    for tab in tabs:
        tab.titled("Tandem")
        expect(tab.contact(peer.member).get_by_text("unread")).to_be_hidden()
    for tab in tabs[1:]:
        tab.page.close()
    me.page.goto("about:blank")
    peer.send("three")
    peer.marked("three", "stored")
    me.enter().titled("(1) Tandem")
    again = me.tab()
    for tab in (me, again):
        tab.open(peer.member).reads("hello", "hi", "from a tab", "one", "two", "three")
        tab.titled("Tandem")


def test_tabs_come_back_at_once(site: Site, visit: Visit) -> None:
    """Messages written offline in one of them are sent once, in order, although all tabs send them."""
    me, peer = couple(site, visit)
    tabs = [me.open(peer.member), *(me.tab().open(peer.member) for _ in range(2))]
    texts = [f"text {n}" for n in range(10)]
    me.notices(site.kill)
    for tab in tabs[1:]:
        expect(tab.page.get_by_text(CONNECTING)).to_be_visible()
    me.send(*texts)
    tabs[1].send("from another")
    peer.notices(lambda: None)
    site.start()
    for tab in tabs:
        tab.wake()
    with voice(site, peer.member) as there:
        me.until(lambda: len(there.history(me.member)) >= 13)
    for tab in tabs:
        tab.until(lambda tab=tab: len(tab.texts()) == 13)
        expect(tab.page.get_by_role("img", name="waiting to be sent")).to_have_count(0)
        assert [text for text in tab.texts() if text != "from another"] == ["hello", "hi", *texts]
    peer.wake()
    peer.open(me.member).reads(*me.texts())


def test_the_server_is_killed(site: Site, visit: Visit) -> None:
    """After a kill in mid-conversation it goes on where it was; meanwhile the page says that it connects."""
    ann, bob = couple(site, visit)
    ann.open(bob.member)
    bob.open(ann.member)
    for n in range(6):
        ann.send(f"Ann {n}")
        bob.send(f"Bob {n}")
    ann.notices(site.kill)
    bob.notices(lambda: None)
    for n in range(6, 12):
        ann.send(f"Ann {n}")
        bob.send(f"Bob {n}")
    expect(ann.bubble("Ann 11").get_by_role("img")).to_have_accessible_name("waiting to be sent")
    site.start()
    for person in (ann, bob):
        person.wake()
    for person, last in ((ann, "Bob 11"), (bob, "Ann 11")):
        expect(person.bubble(last)).to_be_visible()
        expect(person.page.get_by_text(CONNECTING)).to_be_hidden()
    for person, last in ((ann, "Ann 11"), (bob, "Bob 11")):
        person.marked(last, "read")
    texts = ann.texts()
    for name in ("Ann", "Bob"):
        assert [each for each in texts if each.startswith(name)] == [f"{name} {n}" for n in range(12)]
    bob.reads(*texts)


def test_the_network_goes_and_comes(site: Site, visit: Visit) -> None:
    """Messages written offline are sent when it is back, and missed messages are there."""
    ann, bob = couple(site, visit)
    ann.open(bob.member)
    bob.open(ann.member)
    for n in range(3):
        ann.offline()
        ann.send(f"Ann {n}")
        ann.marked(f"Ann {n}", "waiting to be sent")
        bob.send(f"Bob {n}")
        bob.marked(f"Bob {n}", re.compile("stored|received|read"))
        ann.offline(False)
        ann.marked(f"Ann {n}", "read")
        bob.marked(f"Bob {n}", "read")
    texts = ann.texts()
    assert sorted(texts) == sorted(["hello", "hi", *(f"{who} {n}" for who in ("Ann", "Bob") for n in range(3))])
    bob.reads(*texts)


def test_the_page_is_closed_while_messages_wait(site: Site, visit: Visit) -> None:
    """If the page is closed while messages wait, the next page sends them, whatever conversation it shows."""
    me, peer = couple(site, visit)
    me.open(peer.member)
    me.offline()
    me.send("one", "two")
    me.page.close()
    me.offline(False)
    peer.open(me.member)
    tab = me.tab()
    peer.reads("hello", "hi", "one", "two")
    tab.open(peer.member).reads("hello", "hi", "one", "two")
    tab.marked("two", "read")


def test_a_tab_is_closed_while_messages_wait(site: Site, visit: Visit) -> None:
    """If a tab is closed while messages wait, another open tab sends them once the network is back."""
    me, peer = couple(site, visit)
    tab = me.tab().open(peer.member)
    peer.open(me.member)
    me.open(peer.member)
    me.offline()
    me.send("one", "two")
    me.page.close()
    me.offline(False)
    peer.reads("hello", "hi", "one", "two")
    tab.reads("hello", "hi", "one", "two")


def test_what_was_sent_does_not_wait(site: Site, visit: Visit) -> None:
    """A sent message is not shown as pending, even if it is still in a slow or shared outbox."""
    me, peer = couple(site, visit)
    tab = Person(me.visitor, me.member, me.visitor.context.new_page())
    frames: list[str] = []
    tab.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: frames.append(str(frame))))
    tab.enter().open(peer.member)
    tab.page.evaluate("() => { IDBObjectStore.prototype.delete = IDBObjectStore.prototype.get; }")
    tab.send("text")
    tab.marked("text", "received")
    tab.wake()
    tab.until(lambda: any('"dup":true' in frame for frame in frames))
    tab.reads("hello", "hi", "text")
    tab.send("next")
    tab.reads("hello", "hi", "text", "next")
    peer.open(me.member).reads("hello", "hi", "text", "next")


def test_reading_on_another_device(site: Site, visit: Visit) -> None:
    """The page knows what was read on another device as soon as the user looks."""
    me, peer = couple(site, visit)
    peer.open(me.member).send("one", "two")
    me.titled("(2) Tandem")
    with voice(site, me.member) as device:
        device.ask(4, peer.member, read=4)
    me.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    me.titled("Tandem")
