"""Long conversations: older messages are loaded on demand, and the reading position stays."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from playwright.sync_api import WebSocketRoute, expect

from storage.embedded.supervisor import Addresses
from tests.support.database import make_users, mysql_connection
from tests.web.people import NEW, Member, Person, join, members, store, voice
from tests.web.site import Site
from tests.web.visitor import Visit

# The first message that is wholly on the screen, and its position.
ANCHOR = """thread => {
    const {top} = thread.getBoundingClientRect();
    const item = [...thread.querySelectorAll('li')].find(item => item.getBoundingClientRect().top >= top);
    return [item.querySelector('[dir=auto]').textContent, item.getBoundingClientRect().bottom];
}"""
POSITION = """(thread, text) => [...thread.querySelectorAll('li')]
    .find(item => item.querySelector('[dir=auto]').textContent === text).getBoundingClientRect().bottom"""
# Scrolls up to the beginning, frame by frame; returns how long each frame took, in milliseconds.
TO_THE_BEGINNING = """async (thread, first) => {
    const frames = [];
    let before = await new Promise(requestAnimationFrame);
    while (thread.querySelector('li [dir=auto]').textContent !== first) {
        thread.scrollTop = 0;
        const now = await new Promise(requestAnimationFrame);
        frames.push(now - before);
        before = now;
    }
    thread.scrollTop = 0;
    return frames;
}"""


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def fill(url: str, site: Site, count: int, unread: int = 0) -> tuple[Member, Member, list[str]]:
    """Store a conversation that Ann and Bob have read up to some last messages of Bob; return both, and its texts."""
    ann, bob = members(site, "Ann", "Bob")
    # Texts of many heights.
    texts = [f"message {n}" + "\nand more" * (n % 7 == 0) + " and so on" * (n % 11 * 5) for n in range(1, count + 1)]
    said = []
    for position, text in enumerate(texts):
        by_ann = position < count - unread and position // 3 % 2 == 0
        said.append((*((ann.id, bob.id) if by_ann else (bob.id, ann.id)), text, (count - position) * 60_000))
    store(url, said)
    for one, other in ((ann, bob), (bob, ann)):
        with voice(site, one) as reader:
            reader.ask(4, other, read=count - unread)
    return ann, bob, texts


def look_back(me: Person, pixel: int) -> None:
    """Scroll to a pixel of the loaded messages, and wait for more; the messages on the screen must not move."""
    count = me.thread.locator("li").count()
    me.thread.evaluate("(thread, pixel) => { thread.scrollTop = pixel; }", pixel)
    text, before = me.thread.evaluate(ANCHOR)
    me.until(lambda: me.thread.locator("li").count() > count)
    me.thread.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = me.thread.evaluate(POSITION, text)
    assert abs(after - before) <= 2, f"{text[:20]} jumped by {after - before} px"


def test_looking_back(site: Site, visit: Visit, addresses: Addresses) -> None:
    """Each message is loaded once and in order, and nothing on the screen moves; one button leads back to the end."""
    ann, bob, written = fill(addresses.mongo, site, 500)
    me = join(site, visit, ann).open(bob)
    expect(me.bubble(written[-1])).to_be_in_viewport(ratio=1)
    pixels = itertools.cycle((0, 600))  # at the very beginning a browser does not keep the position by itself
    while me.texts()[0] != written[0]:
        look_back(me, next(pixels))
    assert me.texts() == written
    text, before = me.thread.evaluate(ANCHOR)
    with voice(site, bob) as peer:
        peer.say(ann, "news", "more news")
    expect(me.jump).to_contain_text("2")
    assert abs(me.thread.evaluate(POSITION, text) - before) <= 2
    me.titled("(2) Tandem")
    me.jump.click()
    expect(me.bubble("more news")).to_be_in_viewport(ratio=1)
    expect(me.jump).to_be_hidden()
    me.titled("Tandem")
    assert me.texts() == [*written, "news", "more news"]


def test_many_unread(site: Site, visit: Visit, addresses: Addresses) -> None:
    """A returning user sees where the unread messages begin, however many; they are read as they are seen."""
    ann, bob, written = fill(addresses.mongo, site, 710, unread=700)
    me = join(site, visit, ann)
    expect(me.contact(bob)).to_contain_text("100+ unread")
    me.open(bob)
    expect(me.bubble(written[-700]).get_by_text(NEW)).to_be_in_viewport()
    expect(me.thread.get_by_text(NEW)).to_have_count(1)
    assert me.texts()[-700:] == written[-700:]
    expect(me.bubble(written[-1])).not_to_be_in_viewport()
    expect(me.contact(bob)).to_contain_text(re.compile("6[89][0-9] unread"))
    me.jump.click()
    expect(me.contact(bob).get_by_text("unread")).to_be_hidden()
    me.titled("Tandem")


def test_the_first_unread_one_is_gone(site: Site, visit: Visit, addresses: Addresses) -> None:
    """If it expired between two answers, the rest is shown and read, and no request is repeated endlessly."""
    ann, bob, written = fill(addresses.mongo, site, 30, unread=5)
    visitor = visit(site)

    def pass_on(page: WebSocketRoute) -> None:
        server, asked = page.connect_to_server(), []

        def up(frame: str) -> None:
            if json.loads(frame)["type"] == 3:
                asked.append(json.loads(frame)["id"])
            server.send(frame)

        def down(frame: str) -> None:
            answer = json.loads(frame)
            if answer.get("id") in asked:
                answer["messages"][0]["seq"] = 0.5  # before all existing messages
            page.send(json.dumps(answer))

        page.on_message(up)
        server.on_message(down)

    visitor.page.route_web_socket("**/ws?*", pass_on)
    me = join(site, lambda *_, **__: visitor, ann).open(bob)
    me.reads(*written)
    expect(me.contact(bob).get_by_text("unread")).to_be_hidden()


def test_ten_thousand_messages(site: Site, visit: Visit, addresses: Addresses) -> None:
    """Ten thousand messages can be scrolled through to the beginning and back; then one more is written and seen."""
    ann, bob, written = fill(addresses.mongo, site, 10_000)
    me = join(site, visit, ann).open(bob)
    frames = sorted(me.thread.evaluate(TO_THE_BEGINNING, written[0]))
    median, worst = frames[len(frames) // 2], frames[-1]
    print(f"\n{len(frames)} frames: median {median:.0f} ms, worst {worst:.0f} ms")  # noqa: T201
    assert me.texts() == written
    bubbles = me.thread.locator("li")
    expect(bubbles.first).to_be_in_viewport()
    me.jump.click()
    expect(bubbles.last).to_be_in_viewport(ratio=1)
    expect(me.jump).to_be_hidden()
    me.send("one more")
    expect(bubbles.last.get_by_role("img")).to_have_accessible_name("stored")
    expect(bubbles.last).to_be_in_viewport(ratio=1)
    assert me.texts() == [*written, "one more"]


def test_many_conversations(site: Site, visit: Visit, addresses: Addresses) -> None:
    """Conversations are listed a page at a time, newest message first, and a message moves an old one to the top."""
    (ann,) = members(site, "Ann")
    with mysql_connection(addresses.mysql) as connection:
        peers = make_users(connection, 120)
    for age, peer in enumerate(peers):
        store(addresses.mongo, [(peer, ann.id, f"number {age}", age * 60_000)])
    me = join(site, visit, ann)
    more = me.contacts.get_by_role("button", name="Show more")
    for count in (50, 100, 120):
        expect(me.contacts.get_by_role("link")).to_have_count(count)
        assert me.contacts.locator(".last").all_text_contents() == [f"number {age}" for age in range(count)]
        if count < len(peers):
            more.click()
    expect(more).to_be_hidden()
    me.contacts.get_by_role("link").last.click()
    me.reads("number 119")
    me.send("answer")
    expect(me.contacts.get_by_role("link").first).to_contain_text("You: answer")
    expect(me.contacts.get_by_role("link")).to_have_count(120)
    me.titled("(119) Tandem")
