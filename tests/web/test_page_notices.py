"""The page while it is hidden: notifications, and counts in its title."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.web.people import NEW, Member, Person, Voice, acquainted, members, voice
from tests.web.site import Site
from tests.web.visitor import Visit

# The browser of tests has no notifications, and never hides a page: a script before the page's own simulates both.
PLAYED = """
    window.shown = [];
    window.Notification = class {
        static permission = 'PERMISSION';
        static requestPermission = async () => (Notification.permission = 'granted');
        constructor(title, {body, tag}) {
            shown.push({title, body, tag, click: () => this.onclick()});
        }
    };
    let hidden = false;
    Object.defineProperty(document, 'hidden', {get: () => hidden});
    Object.defineProperty(document, 'visibilityState', {get: () => hidden ? 'hidden' : 'visible'});
    Document.prototype.hasFocus = () => !hidden;
    window.hide = now => {
        hidden = now;
        document.dispatchEvent(new Event('visibilitychange'));
        window.dispatchEvent(new Event(hidden ? 'blur' : 'focus'));
    };
"""


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def attend(site: Site, visit: Visit, member: Member, permission: str) -> Person:
    """Join with a browser in which notifications are granted, denied or undecided."""
    visitor = visit(site)
    visitor.context.add_cookies([{"name": "tandem", "value": member.token, "url": site.url}])
    visitor.context.add_init_script(PLAYED.replace("PERMISSION", permission))
    return Person(visitor, member, visitor.page).enter()


def shown(person: Person) -> list[list[str]]:
    """Return the title and text of each notification."""
    found: list[list[str]] = person.page.evaluate("shown.map(each => [each.title, each.body])")
    return found


@pytest.fixture
def company(site: Site) -> Iterator[tuple[Member, Member, Voice]]:
    """Return Ann, Bob whom she knows, and his voice."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    with voice(site, bob) as peer:
        yield ann, bob, peer


def test_notifications(site: Site, visit: Visit, company: tuple[Member, Member, Voice]) -> None:
    """A notification shows each message that comes to a hidden tab, and leads to it; meanwhile none counts as read."""
    ann, bob, peer = company
    (cid,) = members(site, "Cid")
    me = attend(site, visit, ann, "granted").open(bob)
    peer.say(ann, "is seen")
    me.reads("hello", "hi", "is seen")
    peer.hears(50007, read=3)  # the title is the same before, when the message may not be counted yet
    me.titled("Tandem")
    me.page.evaluate("hide(true)")
    peer.say(ann, "is not seen", "nor this")
    me.titled("(2) Tandem")
    with voice(site, cid) as stranger:
        stranger.say(ann, "from a stranger")
    me.titled("(3) Tandem")
    me.until(lambda: len(shown(me)) == 3)
    assert shown(me) == [["Bob", "is not seen"], ["Bob", "nor this"], ["Cid", "from a stranger"]]
    assert me.page.evaluate("new Set(shown.map(each => each.tag)).size") == 2  # the newer replaces the older
    peer.history(ann)  # all frames sent before its answer have arrived
    assert max(frame["read"] for frame in peer.heard if frame["code"] == 50007) == 3
    expect(me.bubble("is not seen").get_by_text(NEW)).to_be_visible()
    me.page.evaluate("hide(false)")
    me.titled("(1) Tandem")
    expect(me.bubble("is not seen").get_by_text(NEW)).to_be_visible()
    me.page.evaluate("shown[2].click()")
    me.reads("from a stranger")
    me.titled("Tandem")
    assert len(shown(me)) == 3


def test_notifications_are_asked_for(site: Site, visit: Visit, company: tuple[Member, Member, Voice]) -> None:
    """A button asks for permission and is gone then; before, no notifications are shown."""
    ann, _, peer = company
    me = attend(site, visit, ann, "default")
    me.page.evaluate("hide(true)")
    peer.say(ann, "too early")
    me.titled("(1) Tandem")
    assert shown(me) == []
    me.page.get_by_text("Ann", exact=True).click()
    button = me.page.get_by_role("button", name="Turn on notifications")
    button.click()
    expect(button).to_be_hidden()
    peer.say(ann, "now")
    me.until(lambda: shown(me) == [["Bob", "now"]])


def test_notifications_that_are_denied(site: Site, visit: Visit, company: tuple[Member, Member, Voice]) -> None:
    """Denied notifications are neither shown nor offered; the title still counts."""
    ann, _, peer = company
    me = attend(site, visit, ann, "denied")
    me.page.get_by_text("Ann", exact=True).click()
    expect(me.page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
    expect(me.page.get_by_role("button", name="Turn on notifications")).to_be_hidden()
    me.page.evaluate("hide(true)")
    peer.say(ann, "one", "two")
    me.titled("(2) Tandem")
    assert shown(me) == []
