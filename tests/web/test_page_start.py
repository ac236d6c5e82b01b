"""The page's start: what it loads, and what it does in a browser that lacks a feature."""

from __future__ import annotations

import re

import pymysql
import pytest
from playwright.sync_api import Response, Route, expect

from handlers.http.page import read_page
from tests.support.processes import ROOT
from tests.test_repository import first_visit
from tests.web.people import Person, acquainted, join, member, members
from tests.web.site import Site, register
from tests.web.visitor import Visit, axe


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def test_a_first_visit_loads_what_is_counted(site: Site, visit: Visit) -> None:
    """A browser requests exactly the files of the budget, compressed to the counted size."""
    sizes = first_visit(read_page(ROOT / "web"))
    visitor = visit(site)
    loaded: dict[str, int] = {}

    def sent(response: Response) -> None:
        path = response.url.removeprefix(site.url)
        if path == "/" or path.startswith("/web/"):
            loaded[path.rpartition("/")[2] or "index.html"] = int(response.headers["content-length"])

    visitor.page.on("response", sent)
    visitor.page.goto("/")
    expect(visitor.page.get_by_role("button", name="Sign in")).to_be_visible()
    (ann,) = members(site, "Ann")
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    visitor.page.goto("/")
    expect(visitor.page.get_by_text("No conversations yet")).to_be_visible()
    icon = {"icon.svg"}  # which headless browsers do not request
    assert {name: loaded[name] for name in loaded.keys() - icon} == {name: sizes[name] for name in sizes.keys() - icon}


LACKS = {
    "language C": "Object.defineProperty(navigator, 'language', {value: 'C'})",
    "language with a modifier": "Object.defineProperty(navigator, 'language', {value: 'en-US@posix'})",
    "no language": "Object.defineProperty(navigator, 'language', {value: undefined})",
    "an empty language": "Object.defineProperty(navigator, 'language', {value: ''})",
    "storage that throws": "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no') }})",
    "storage that is null": "Object.defineProperty(window, 'localStorage', {value: null})",
    "storage without room": "Storage.prototype.setItem = () => { throw new DOMException('no') }",
    "storage that cannot be read": "Storage.prototype.getItem = () => { throw new DOMException('no') }",
    "no database": "Object.defineProperty(window, 'indexedDB', {value: undefined})",
    "a database that throws": "IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError') }",
    "no channel between tabs": "delete window.BroadcastChannel",
    "a channel that throws": "window.BroadcastChannel = class { constructor() { throw new DOMException('no') } }",
    "no notifications": "delete window.Notification",
    "no flag v": """{
        const Whole = RegExp;
        window.RegExp = function (source, flags) {
            if (flags === 'v') throw new SyntaxError('no such flag');
            return new Whole(source, flags);
        };
    }""",
}


@pytest.mark.parametrize("script", LACKS.values(), ids=LACKS.keys())
def test_a_browser_that_lacks_something(site: Site, visit: Visit, script: str) -> None:
    """The page still shows the chat, keeps a draft while it is open, and sends."""
    ann, bob, cid = members(site, "Ann", "Bob", "Cid")
    for peer in (bob, cid):
        acquainted(site, ann, peer)
    visitor = visit(site)
    visitor.context.add_init_script(script)
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    me = Person(visitor, ann, visitor.page).enter().open(bob)
    me.box.fill("draft")
    me.open(cid)
    expect(me.box).to_have_value("")
    me.send("to Cid 😀")
    me.marked("to Cid 😀", re.compile("stored|received"))
    me.open(bob)
    expect(me.box).to_have_value("draft")
    me.send("😀")
    me.reads("hello", "hi", "😀")


def test_site_data_that_is_blocked(site: Site, visit: Visit) -> None:
    """The form says that cookies are needed; a user is signed in as long as the page is open, and is told so."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    visitor = visit(site)
    page = visitor.page
    blocked = ("storage that throws", "a database that throws")
    for lack in blocked:
        visitor.context.add_init_script(LACKS[lack])
    visitor.context.add_init_script("Object.defineProperty(navigator, 'cookieEnabled', {value: false})")

    def without_cookie(route: Route) -> None:
        answer = route.fetch()
        kept = {name: value for name, value in answer.headers.items() if name != "set-cookie"}
        visitor.context.clear_cookies()
        route.fulfill(response=answer, headers=kept)

    page.route("**/user/login*", without_cookie)
    page.goto("/")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This browser keeps no cookies")
    page.get_by_label("User name").fill(ann.name)
    page.get_by_label("Password").fill(ann.account.password)
    page.get_by_role("button", name="Sign in").click()
    me = Person(visitor, ann, page).connected()
    expect(alert).to_contain_text("This browser keeps no cookies")
    me.open(bob).send("text")
    me.marked("text", "stored")
    me.reads("hello", "hi", "text")
    me.page.reload()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("name", ["app.js", "chat.js", "words.js", "style.css"])
def test_a_file_that_cannot_be_loaded(site: Site, visit: Visit, name: str) -> None:
    """If a file cannot be loaded, the page says what it needs, and how to load it again."""
    visitor = visit(site)
    visitor.expect("ERR_FAILED")
    page = visitor.page
    failing = [True]
    page.route(f"**/{name}", lambda route: route.abort() if failing else route.continue_())
    page.goto("/")
    if name != "style.css":
        expect(page.get_by_text("a browser of 2024 or later")).to_be_visible()
        assert axe(page) == []
        failing.clear()
        page.get_by_role("link", name="Load again").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_list_that_cannot_be_read(site: Site, visit: Visit, status: int) -> None:
    """A list that cannot be read is read again, though the connection lasts: a busy database answers the next time."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    visitor = visit(site)
    visitor.expect("Failed to load resource")
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    left = iter(range(2))
    headers = {"Retry-After": "1"} if status == 429 else {}

    def answer(route: Route) -> None:
        if next(left, None) is None:
            route.continue_()
        elif status:
            route.fulfill(status=status, headers=headers, json={"code": status, "error": "on purpose", "data": None})
        else:
            route.abort()

    visitor.page.route("**/conversations?*", answer)
    me = Person(visitor, ann, visitor.page).enter()
    expect(me.contact(bob)).to_be_visible()
    assert next(left, None) is None


def test_a_page_that_breaks(site: Site, visit: Visit) -> None:
    """A page that breaks says so instead of staying empty, and leaves the cause in the browser's log."""
    (ann,) = members(site, "Ann")
    visitor = visit(site)
    visitor.expect("page error: .*broken on purpose")
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    visitor.page.add_init_script("window.Map = class { constructor() { throw Error('broken on purpose') } }")
    visitor.page.goto("/")
    expect(visitor.page.get_by_role("alert")).to_contain_text("This page does not work in this browser.")


def test_the_first_words_wait_for_no_script(site: Site, visit: Visit) -> None:
    """The first words are in the page itself; the hint comes only if no script ran."""
    visitor = visit(site)
    page = visitor.page
    page.route("**/app.js", lambda route: None)
    page.goto("/", wait_until="commit")
    expect(page.get_by_text("Loading…")).to_be_visible()
    hint = page.get_by_text("a browser of 2024 or later")
    expect(hint).to_have_count(1)
    expect(hint).to_be_visible()
    page.unroute_all()


def test_a_great_id(site: Site, visit: Visit, database: pymysql.Connection) -> None:
    """A user whose number JavaScript cannot hold signs in, is found, and chats; the page does not load forever."""
    great = []
    with database.cursor() as cursor:
        for account, number in ((register(site, "Ann"), 2**53 + 1), (register(site, "Bob"), 2**62 + 3)):
            cursor.execute("UPDATE `user` SET id = %s WHERE id = %s", (number, account.id))
            great.append(member(account._replace(id=number)))
    ann, bob = great
    acquainted(site, ann, bob)
    me, peer = (join(site, visit, each) for each in (ann, bob))
    me.open(bob).send("text")
    me.marked("text", "received")
    peer.meet(ann).reads("hello", "hi", "text")
    peer.send("answer")
    me.reads("hello", "hi", "text", "answer")
    me.page.reload()
    me.connected().reads("hello", "hi", "text", "answer")
