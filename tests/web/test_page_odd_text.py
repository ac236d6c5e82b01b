"""Deceptive texts and names: they are shown as written, and never treated as anything else."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from storage.embedded.supervisor import Addresses
from tests.support.database import mysql_connection
from tests.web.people import acquainted, join, member, members, store, voice
from tests.web.site import Site, register
from tests.web.visitor import Visit

MARKUP = '<b>x</b>&"'  # ten characters, the maximum of a nick name
OVERRIDE = "\u202egnp"  # is displayed as "png" and reverses the text after it
TEXTS = [
    "<script>window.executed = 1</script>",
    "<img src=x onerror='window.executed = 1'>",
    "<svg onload='window.executed = 1'><style>* { display: none }</style>",
    "</div></li><iframe src='//elsewhere.invalid/'></iframe><!--",
    "javascript:window.executed=1",
    "data:text/html,<script>window.executed=1</script>",
    "&lt;b&gt;&amp;&#x41;",
    "{{1+1}} ${1+1} %s\\n\\u0041",
    "\u202egnp.exe\u202c \u2066isolated\u2069 \u200b\ufeff",
    "e" + "\u0301\u0489\u0336" * 200 + " zalgo",
    "tab\tand\r\nline\n\n   \u0000 and \u0001",
    "😀" * 8192,
    "W" * 8192,
    "__proto__",
]
# Whether an element's text cannot change the direction of the line around it.
ALONE = """element => {
    const {unicodeBidi, display} = getComputedStyle(element);
    return unicodeBidi.startsWith('isolate') || display !== 'inline';
}"""


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def test_texts(site: Site, visit: Visit) -> None:
    """Texts are shown as written; no part is executed, requested, or becomes an element."""
    ann, bob = members(site, MARKUP, "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    with voice(site, bob) as peer:
        for name in ("__proto__", "constructor", "toString", "<b>"):
            assert peer.ask(1, ann, content=name, id=name)["id"] == name
        me.reads("hello", "hi", "__proto__", "constructor", "toString", "<b>")
        shape = "item => [...item.querySelectorAll('*')].map(each => each.localName + '.' + each.className)"
        plain = me.thread.locator("li").last.evaluate(shape)
        for text in TEXTS:
            peer.say(ann, text)
            me.until(lambda text=text: me.texts()[-1] == text)
            assert me.thread.locator("li").last.evaluate(shape) == plain, text[:50]
    assert me.texts()[6:] == TEXTS
    me.page.reload()
    me.connected().until(lambda: me.texts()[6:] == TEXTS)
    assert me.page.evaluate("window.executed") is None
    assert me.page.evaluate("document.querySelectorAll('script, iframe, img, style, svg style').length") == 1
    assert me.thread.evaluate("thread => thread.scrollWidth <= thread.clientWidth")
    assert me.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    me.send(*TEXTS[:8])
    me.until(lambda: me.texts()[6:] == TEXTS + TEXTS[:8])


def test_names(site: Site, visit: Visit, addresses: Addresses) -> None:
    """Names are text everywhere, and do not reverse the text beside them."""
    (ann,) = members(site, MARKUP)
    account = register(site, "turned")
    with mysql_connection(addresses.mysql) as connection, connection.cursor() as cursor:
        # Registration refuses it, but another program may have made the account.
        cursor.execute("UPDATE `user` SET nick_name = %s WHERE id = %s", (OVERRIDE, account.id))
    bob = member(account._replace(nick=OVERRIDE))
    acquainted(site, ann, bob, TEXTS[0])
    for one, other in ((ann, bob), (bob, ann)):
        person = join(site, visit, one)
        expect(person.contacts.get_by_text(other.nick, exact=True)).to_be_visible()
        expect(person.page.locator(".account").get_by_text(one.nick, exact=True)).to_be_visible()
        expect(person.contacts.get_by_text(TEXTS[0])).to_be_visible()
        person.open(other)
        for element in person.page.get_by_text(other.nick, exact=True).all():
            assert element.evaluate(ALONE)
    person.visitor.expect("status of 40[04]")
    for unknown in ("__proto__", "<img src=x>"):
        person.find(unknown)
        expect(person.problem).to_have_text(f"There is no user “{unknown}”.")
    person.page.goto(f"/#{'%'}")
    person.connected()


def test_links(site: Site, visit: Visit) -> None:
    """Links lead where their text says, in a new tab without access to this one; only http and https are links."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    text = "See https://example.com/a?b=1&c=<i>, (http://example.org/x_(y)). ftp://example.com mailto:a@example.com"
    turned = "https://example.com/\u202egnp.exe https://例え.example/路 http://[ HTTPS://EXAMPLE.COM"
    me.send(text, turned)
    me.reads("hello", "hi", text, turned)
    links = me.thread.get_by_role("link")
    found = links.evaluate_all("all => all.map(a => [a.textContent, a.getAttribute('href'), a.target, a.rel])")
    apart = ["_blank", "noopener noreferrer"]
    assert found == [
        ["https://example.com/a?b=1&c=", "https://example.com/a?b=1&c=", *apart],
        ["http://example.org/x_(y)", "http://example.org/x_(y)", *apart],
        ["https://example.com/", "https://example.com/", *apart],
        ["https://例え.example/路", "https://xn--r8jz45g.example/%E8%B7%AF", *apart],
        ["HTTPS://EXAMPLE.COM", "https://example.com/", *apart],
    ]


# The positions of a link's first and last character, from the left.
ENDS = """link => {
    const text = link.firstChild;
    const left = at => {
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + 1);
        return range.getBoundingClientRect().left;
    };
    return [left(0), left(text.length - 1)];
}"""


@pytest.mark.parametrize("before", ["\u202e", "مرحبا ", "\u2067", "\u202e\u2067\u202e"], ids=ascii)
def test_what_stands_before_a_link_does_not_turn_it(site: Site, visit: Visit, before: str) -> None:
    """A link is read from left to right, as written, even in a text of the other direction."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    me.send(f"{before}https://example.com/png.exe", f"{before}https://example.com/路")
    links = me.thread.get_by_role("link")
    expect(links).to_have_count(2)
    me.marked(f"{before}https://example.com/路", "stored")
    for link in links.all():
        first, last = link.evaluate(ENDS)
        assert first < last


@pytest.mark.parametrize(
    ("link", "host"),
    [
        ("https://apple.com@evil.example/", "evil.example"),
        ("https://аррӏе.com/", "xn--80ak6aa92e.com"),
        ("https://apple.com%2f@evil.example/a", "evil.example"),
        ("https://apple.com/@evil.example", None),
    ],
)
def test_where_a_link_leads(site: Site, visit: Visit, link: str, host: str | None) -> None:
    """The target is shown beside a link that looks as if it led elsewhere; copied text stays as written."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    me.send(link)
    me.marked(link, "stored")
    shown = me.thread.get_by_role("link").evaluate("link => getComputedStyle(link, '::after').content")
    assert (host in shown) if host else (shown == "none")


def test_the_time_of_day(site: Site, visit: Visit, addresses: Addresses) -> None:
    """The time of day is written as in the browser's language, without a leading zero."""
    ann, bob = members(site, "Ann", "Bob")
    store(addresses.mongo, [(ann.id, bob.id, f"text {hours}", 3_600_000 * hours) for hours in range(13, -1, -1)])
    for locale, time in (
        ("en-US", r"(1[0-2]|[1-9]):\d\d\s[AP]M"),
        ("en-GB", r"\d\d:\d\d"),
        ("es-ES", r"1?\d:\d\d|2\d:\d\d"),
    ):
        me = join(site, visit, ann, locale=locale).open(bob)
        expect(me.thread.locator("time")).to_have_count(14)
        for each in me.thread.locator("time").all_text_contents():
            assert re.fullmatch(time, each), (locale, each)


def test_direction(site: Site, visit: Visit) -> None:
    """A text has the direction of its first letter, here and in the list, whatever the page's language."""
    ann, bob = members(site, "Ann", "بدر")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    expected = {"مرحبا, how are you?": "rtl", "hello مرحبا": "ltr", "שלום": "rtl", "你好": "ltr"}
    for text, direction in expected.items():
        me.box.fill(text)
        expect(me.box).to_have_css("direction", direction)
        me.box.press("Enter")
        me.marked(text, "stored")
        shown = me.bubble(text).get_by_text(text, exact=True)
        expect(shown).to_have_css("direction", direction)
    with voice(site, bob) as peer:
        peer.say(ann, "مرحبا")
        last = me.contact(bob).get_by_text("مرحبا", exact=True)
        expect(last).to_have_css("direction", "rtl")


def test_half_a_character(site: Site, visit: Visit) -> None:
    """A server accepts no such text; the replacement character is sent instead, and nothing waits."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann).open(bob)
    me.box.evaluate("box => { box.value = 'half \\ud83d'; }")
    me.box.press("Enter")
    me.send("whole")
    me.marked("whole", "stored")
    me.reads("hello", "hi", "half \ufffd", "whole")
