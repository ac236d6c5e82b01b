"""The layout of the page in a browser with scrollbars: what scrolls, and what does not."""

from __future__ import annotations

import re

import pymysql
import pytest
from playwright.sync_api import Locator, Page, expect

from storage.embedded.supervisor import Addresses
from tests.support.database import make_users
from tests.web.people import Person, acquainted, join, members, store
from tests.web.site import Site
from tests.web.visitor import Visit

DESKTOP = {"width": 1024, "height": 720}
PHONE = {"width": 390, "height": 844}
LOW = {"width": 640, "height": 360}
# How far the window itself can be scrolled, in pixels.
BEYOND = """() => {
    const {scrollHeight, scrollWidth} = document.documentElement;
    return [scrollHeight - innerHeight, scrollWidth - innerWidth];
}"""
# The elements that hold more than they show, except the list and the thread.
SCROLLING = """() => [...document.body.querySelectorAll('*')].filter(element => {
    const {overflowY} = getComputedStyle(element);
    const more = element.scrollHeight > element.clientHeight && ['auto', 'scroll'].includes(overflowY);
    return more && !element.matches('nav, .scroller');
}).map(element => element.outerHTML.slice(0, 200))"""
# The hidden pixels of a field's text.
OUT_OF_SIGHT = "field => field.scrollHeight - field.clientHeight"


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def assert_still(page: Page) -> None:
    """Assert that only the list and the thread scroll, even if the wheel is turned over the other half."""
    assert page.evaluate(BEYOND) == [0, 0]
    assert page.evaluate(SCROLLING) == []
    width, height = page.evaluate("[innerWidth, innerHeight]")
    page.mouse.move(0.75 * width, 0.5 * height)
    page.mouse.wheel(0, 5_000)
    page.evaluate("scrollTo(0, 5_000)")
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("count", [11, 60, 200])
def test_a_long_list_scrolls_alone(
    site: Site, visit: Visit, addresses: Addresses, database: pymysql.Connection, count: int
) -> None:
    """The window keeps its height, however many conversations there are, unread ones among them."""
    (ann,) = members(site, "Ann")
    peers = make_users(database, count)
    for minutes, peer in enumerate(peers):
        ago = 60_000 * minutes
        said = [(peer, ann.id, "hello", ago), (ann.id, peer, "hi", ago), (peer, ann.id, "unread", ago)]
        store(addresses.mongo, said)
    me = join(site, visit, ann, viewport=DESKTOP)
    entries = me.contacts.get_by_role("link")
    more = me.contacts.get_by_role("button", name="Show more")
    for shown in range(50, count, 50):
        expect(entries).to_have_count(shown)
        more.click()
    expect(entries).to_have_count(count)
    expect(me.contacts.get_by_text("2 unread")).to_have_count(count)
    for viewport in (DESKTOP, PHONE, LOW):
        me.page.set_viewport_size(viewport)  # type: ignore[arg-type]
        assert_still(me.page)
    entries.last.click()
    expect(me.box).to_be_in_viewport(ratio=1)
    for viewport in (LOW, PHONE, DESKTOP):
        me.page.set_viewport_size(viewport)  # type: ignore[arg-type]
        assert_still(me.page)
        expect(me.box).to_be_in_viewport(ratio=1)


def test_a_long_thread_scrolls_alone(site: Site, visit: Visit, addresses: Addresses) -> None:
    """The window keeps its height with new days, unread messages and a list of two."""
    ann, bob = members(site, "Ann", "Bob")
    said = [
        (*((ann.id, bob.id) if n % 3 else (bob.id, ann.id)), f"text {n}", 3_600_000 * (200 - n)) for n in range(200)
    ]
    store(addresses.mongo, said)
    me = join(site, visit, ann, viewport=DESKTOP).open(bob)
    for viewport in (DESKTOP, PHONE, LOW):
        me.page.set_viewport_size(viewport)  # type: ignore[arg-type]
        assert_still(me.page)


@pytest.mark.parametrize(
    "text", ["", "one line", "a\nb\nc", "w" * 300, "中文\n" * 4], ids=["empty", "one", "three", "long", "中文"]
)
def test_the_field_shows_all_of_a_short_text(site: Site, visit: Visit, text: str) -> None:
    """The field has no scrollbar for a short text, whether the style sheet or the script sets its height."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    for able in ("true", "false"):
        me = join(site, visit, ann, viewport=DESKTOP)
        me.page.add_init_script(f"CSS.supports = () => {able}")
        me.enter().open(bob)
        if able == "false":
            me.page.evaluate("document.querySelector('textarea').style.fieldSizing = 'fixed'")
        me.box.fill(text)
        expect(me.box).to_have_value(text)
        assert me.box.evaluate(OUT_OF_SIGHT) <= 0


def test_a_field_on_a_phone(site: Site, visit: Visit) -> None:
    """An empty field has no scrollbar there either, in both languages."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    for locale in ("en-GB", "zh-CN"):
        visitor = visit(site, viewport=PHONE, locale=locale)
        visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
        visitor.page.goto(f"/#{bob.name}")
        field = visitor.page.locator("textarea")
        expect(field).to_be_visible()
        assert field.evaluate(OUT_OF_SIGHT) <= 0


def test_a_long_text_scrolls_in_its_field(site: Site, visit: Visit) -> None:
    """The hidden part can be reached there, and the window keeps its height."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann, viewport=LOW).open(bob)
    me.box.fill("line\n" * 100)
    assert me.box.evaluate(OUT_OF_SIGHT) > 0
    assert me.page.evaluate(BEYOND) == [0, 0]


def test_a_name_stands_where_names_do(site: Site, visit: Visit) -> None:
    """In the list, all names begin at the same side, in every script and at every length."""
    ann, *peers = members(site, "Ann", "Bob", "بدر", "שרה", "W" * 10)
    for peer in peers:
        acquainted(site, peer, ann, "hello")
    for viewport in (DESKTOP, PHONE):
        me = join(site, visit, ann, viewport=viewport)
        names = [box(me.contact(peer).locator(".name")) for peer in peers]
        assert len({name["x"] for name in names}) == 1
        assert all(name["x"] + name["width"] < box(me.contacts.locator("time").first)["x"] for name in names)


def box(element: Locator) -> dict[str, float]:
    """Return the position of an element."""
    found = element.bounding_box()
    assert found
    return {**found}


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_account_menu(site: Site, visit: Visit, viewport: dict[str, int]) -> None:
    """The menu covers the list, with its buttons one below the other; Escape and a click elsewhere close it."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann, viewport=viewport)
    page, out = me.page, me.page.get_by_role("button", name="Sign out", exact=True)
    everywhere = page.get_by_role("button", name="Sign out everywhere")
    account = page.get_by_role("button", name=re.compile("^Ann.*Account"))
    before = box(me.contact(bob))
    expect(out).to_be_hidden()
    account.click()
    expect(out).to_be_visible()
    assert account.evaluate("button => button.popoverTargetElement.matches(':popover-open')")
    assert box(me.contact(bob)) == before
    upper, lower = box(out), box(everywhere)
    assert upper["x"] == lower["x"]
    assert upper["width"] == lower["width"]
    assert upper["y"] + upper["height"] + 4 <= lower["y"]
    assert page.evaluate(BEYOND) == [0, 0]
    page.keyboard.press("Escape")
    expect(out).to_be_hidden()
    expect(account).to_be_focused()
    account.click()
    expect(out).to_be_visible()
    page.mouse.click(viewport["width"] - 20, viewport["height"] - 20)
    expect(out).to_be_hidden()
    account.click()
    expect(out).to_be_visible()
    account.click()
    expect(out).to_be_hidden()


def above_the_field(me: Person) -> float:
    """Return the pixels between the last bubble, or its replacement, and the thread's lower edge."""
    last = me.thread.locator(".bubble").or_(me.thread.get_by_text("No messages yet")).last
    thread, shown = box(me.thread), box(last)
    return thread["y"] + thread["height"] - shown["y"] - shown["height"]


def test_a_short_conversation_stands_above_the_field(site: Site, visit: Visit) -> None:
    """A short conversation stands above the field: empty, with one message, with pending ones, in a lower window."""
    ann, bob = members(site, "Ann", "Bob")
    me = join(site, visit, ann, viewport=DESKTOP).meet(bob)
    expect(me.thread.get_by_text("No messages yet")).to_be_visible()
    assert above_the_field(me) < 20
    me.send("one")
    me.marked("one", "stored")
    assert above_the_field(me) < 20
    me.offline()
    me.send("two")
    me.marked("two", "waiting to be sent")
    assert above_the_field(me) < 20
    me.page.set_viewport_size(LOW)  # type: ignore[arg-type]
    me.until(lambda: above_the_field(me) < 20)
    me.offline(False)
    me.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    me.send("three")
    me.marked("three", "stored")
    me.until(lambda: above_the_field(me) < 20)
