"""The page for all users: by keyboard, by screen reader, in dark mode, on a phone, in Chinese."""

from __future__ import annotations

import secrets

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.web.people import NEW, acquainted, ask, couple, join, members, voice
from tests.web.site import Site, register
from tests.web.visitor import Visit, axe

PHONE = {"width": 390, "height": 844}
SMALL = {"width": 320, "height": 568}
DESKTOP = {"width": 1280, "height": 720}
# Visible elements that are partly outside the window on either side.
OUTSIDE = """() => [...document.body.querySelectorAll('*')].filter(element => {
    const {left, right, width} = element.getBoundingClientRect();
    return width > 1 && !element.closest('.hidden') && (left < -0.5 || right > innerWidth + 0.5);
}).map(element => element.outerHTML.slice(0, 200))"""
# Records the text of each announcement.
HEAR = """() => {
    window.heard = [];
    const live = document.querySelector('[aria-live=polite]');
    new MutationObserver(() => heard.push(live.textContent)).observe(live, {childList: true, characterData: true});
}"""
# The width of a drawing's contents.
WIDTH = """svg => {
    const {width, paddingLeft, paddingRight} = getComputedStyle(svg);
    return parseFloat(width) - parseFloat(paddingLeft) - parseFloat(paddingRight);
}"""
FOCUS = """() => {
    const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
    return document.activeElement.matches(':focus-visible') && outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
}"""


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


LOOKS = [(DESKTOP, "light"), (PHONE, "dark"), (PHONE, "light"), (DESKTOP, "dark")]


def assert_fine(page: Page, what: str, looks: int) -> None:
    """Assert that axe finds nothing, and nothing is outside the window, in so many looks."""
    for viewport, scheme in LOOKS[:looks]:
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        assert axe(page) == [], f"{what}: {viewport}, {scheme}"
        assert page.evaluate(OUTSIDE) == [], f"{what}: {viewport}, {scheme}"


@pytest.mark.parametrize(("locale", "looks"), [("en-US", 4), ("zh-CN", 2)])
def test_accessible(site: Site, visit: Visit, locale: str, looks: int) -> None:
    """The page follows axe's rules, from the form to a conversation with all kinds of bubbles, in every look."""
    ann, bob = members(site, "Ann", "小明")
    visitor = visit(site, locale=locale)
    page = visitor.page
    page.goto("/")
    page.get_by_role("form").get_by_role("button").first.wait_for()
    assert_fine(page, "signing in", looks)
    page.get_by_role("form").get_by_role("button").last.click()
    expect(page.get_by_role("textbox")).to_have_count(3)
    assert_fine(page, "signing up", looks)
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    page.goto("/")
    page.get_by_role("searchbox").wait_for()
    page.locator(".account").click()
    assert_fine(page, "nobody yet", looks)
    page.keyboard.press("Escape")
    acquainted(site, bob, ann, "text", "😀", "https://example.com/", "مرحبا")
    with voice(site, bob):  # Bob is online
        page.get_by_role("link", name="小明").wait_for()
        assert_fine(page, "unread", looks)
        page.get_by_role("link", name="小明").click()
        page.get_by_text("مرحبا").last.wait_for()
        ask(site, "PUT", f"/user/blocks/{ann.id}", token=bob.token)
        page.get_by_role("textbox").fill("it fails")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_role("button").first.wait_for()
        visitor.context.set_offline(True)
        page.get_by_role("textbox").fill("it waits")
        page.keyboard.press("Enter")
        page.get_by_text("it waits").wait_for()
        assert_fine(page, "a conversation", looks)


def tab_to(page: Page, element: Locator) -> None:
    """Press Tab until the element has the focus, which must be visible."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if element.evaluate("element => element === document.activeElement"):
            assert page.evaluate(FOCUS)
            return
    raise AssertionError("Tab does not get there")


def test_keyboard_alone(site: Site, visit: Visit) -> None:
    """The keyboard is enough to register, find a user, write, go back and sign out, with a visible focus."""
    bob = register(site, "Bob")
    page = visit(site, viewport=PHONE).page
    keys = page.keyboard
    page.goto("/")
    tab_to(page, page.get_by_role("button", name="Sign up"))
    keys.press("Enter")
    keys.type(f"k{secrets.token_hex(5)}")
    keys.press("Tab")
    keys.type("Ann")
    keys.press("Tab")
    keys.type("at-least-8-bytes")
    keys.press("Enter")
    page.get_by_text("No conversations yet").wait_for()
    tab_to(page, page.get_by_role("searchbox"))
    keys.type(bob.name)
    keys.press("Enter")
    expect(page.get_by_role("textbox", name="Message")).to_be_focused()
    keys.type("hello")
    keys.press("Enter")
    expect(page.get_by_role("img", name="stored")).to_be_visible()
    tab_to(page, page.get_by_role("link", name="Back to the conversations"))
    keys.press("Enter")
    tab_to(page, page.get_by_role("link", name="Bob"))
    keys.press("Enter")
    tab_to(page, page.get_by_role("region", name="Messages"))
    page.go_back()
    tab_to(page, page.locator(".account"))
    keys.press("Enter")
    tab_to(page, page.get_by_role("button", name="Sign out", exact=True))
    keys.press("Enter")
    expect(page.get_by_role("form", name="Sign in")).to_be_visible()


def test_what_comes_is_announced_once(site: Site, visit: Visit) -> None:
    """A screen reader hears who writes what, in every conversation, but not the user's own messages."""
    ann, bob, cid = members(site, "Ann", "Bob", "Cid")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    me.page.evaluate(HEAR)
    with voice(site, bob) as peer, voice(site, cid) as stranger:
        peer.say(ann, "one")
        me.reads("hello", "hi", "one")
        me.send("mine")
        me.marked("mine", "stored")
        stranger.say(ann, "two")
        expect(me.contact(cid)).to_be_visible()
        peer.say(ann, "three")
        me.reads("hello", "hi", "one", "mine", "three")
    me.until(lambda: len(me.page.evaluate("heard")) == 3)
    assert me.page.evaluate("heard") == ["Bob: one", "Cid: two", "Bob: three"]


def test_chinese(site: Site, visit: Visit) -> None:
    """The page is in Chinese if the browser is."""
    ann, bob = members(site, "小明", "小红")
    acquainted(site, ann, bob)
    with voice(site, bob) as peer:
        peer.say(ann, "你好")
    visitor = visit(site, locale="zh-CN")
    page = visitor.page
    page.goto("/")
    for name in ("登录", "注册"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    assert page.evaluate("document.documentElement.lang").startswith("zh")
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    page.goto("/")
    expect(page.get_by_role("link", name="小红")).to_contain_text("1 条未读")
    page.get_by_role("link", name="小红").click()
    expect(page.get_by_text("新消息")).to_be_visible()
    page.get_by_role("textbox", name="消息").fill("我来了")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="已发送")).to_have_count(1)
    words = page.evaluate("document.body.innerText")
    assert not [word for word in ("Block", "Today", "Sign", "unread", "You") if word in words]


def test_dark(site: Site, visit: Visit) -> None:
    """The page follows the system's mode, and changes at once."""
    page = visit(site, color_scheme="dark").page
    page.goto("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (dark, light)]
    assert brightness[0] < 150 < 600 < brightness[1]


def test_phone(site: Site, visit: Visit) -> None:
    """The list and a conversation take turns; the page's link and the browser's Back return to the list."""
    me, peer = couple(site, visit, viewport=PHONE)
    for back in (me.page.get_by_role("link", name="Back").click, me.page.go_back):
        expect(me.search).to_be_visible()
        expect(me.thread).to_be_hidden()
        me.open(peer.member)
        expect(me.search).to_be_hidden()
        icon = me.page.get_by_role("link", name="Back").locator("svg")
        expect(icon).to_be_visible()
        assert icon.evaluate(WIDTH) >= 12
        expect(me.box).to_be_in_viewport(ratio=1)
        back()
    expect(me.search).to_be_visible()
    expect(me.thread).to_be_hidden()


def test_badge(site: Site, visit: Visit) -> None:
    """A badge is as wide as its number, whatever else is in its column."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob, "text")
    badge = join(site, visit, bob).contact(ann).locator(".badge").bounding_box()
    assert badge
    assert badge["width"] < 1.5 * badge["height"]


def test_narrow(site: Site, visit: Visit) -> None:
    """At 320 pixels nothing is outside the window, however long names and words are."""
    ann, bob, cid = members(site, "W" * 10, "M" * 10, "Cid")
    acquainted(site, ann, bob, "W" * 100, "https://example.com/" + "w" * 100, "text " * 50)
    page = visit(site, viewport=SMALL).page
    page.goto("/")
    page.get_by_role("button", name="Sign up").click()
    assert page.evaluate(OUTSIDE) == []
    me = join(site, visit, bob, viewport=SMALL)
    me.page.locator(".account").click()
    assert me.page.evaluate(OUTSIDE) == []
    me.page.keyboard.press("Escape")
    me.open(ann)
    expect(me.thread.get_by_text(NEW)).to_be_visible()
    assert me.page.evaluate(OUTSIDE) == []
    me.page.go_back()
    me.meet(cid).send("1", "2", "3", "4")
    expect(me.bubble("4").get_by_role("button", name="Discard")).to_be_visible()
    assert me.page.evaluate(OUTSIDE) == []
    assert me.page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
