"""The page's data in the browser: its owner, how long it lasts, and what the page says if it cannot be stored."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.web.people import Person, acquainted, couple, join, members, voice
from tests.web.site import Site
from tests.web.visitor import Visit

UNKEPT = "This browser cannot store unsent messages"
LOG = "async () => (await (await fetch('/session')).json()).data.log"
# All items in the page's database, which is created if it is missing.
ITEMS = """async items => {
    const request = indexedDB.open('tandem', 1);
    request.onupgradeneeded = () => {
        request.result.createObjectStore('items', {keyPath: 'id'}).createIndex('user', 'user');
    };
    await new Promise(done => request.onsuccess = done);
    const store = request.result.transaction('items', 'readwrite').objectStore('items');
    for (const item of items) store.put(item);
    const all = store.getAll();
    await new Promise(done => store.transaction.oncomplete = done);
    request.result.close();
    return all.result;
}"""
# Ways to make a browser lose the items while pages have them open.
LOSSES = {
    "deleted by another tab": "new Promise(done => indexedDB.deleteDatabase('tandem').onsuccess = () => done(0))",
    "closed without a word": "connections.forEach(each => each.close())",
    "cleared by the user": "",
}
CONNECTIONS = """
    window.connections = [];
    const open = IDBFactory.prototype.open;
    IDBFactory.prototype.open = function (...all) {
        const request = open.apply(this, all);
        request.addEventListener('success', () => connections.push(request.result));
        return request;
    };
"""
FAILING = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }"
SILENT = "IDBFactory.prototype.open = () => ({})"  # a request that never completes


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def items(page: Page, *more: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages that the browser stores, after adding `more`."""
    found: list[dict[str, Any]] = page.evaluate(ITEMS, list(more))
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_unsent_messages_survive_the_loss_of_the_database(site: Site, visit: Visit, loss: str) -> None:
    """Unsent messages are stored again when the database is lost, older ones too, and the next page sends them."""
    me, peer = couple(site, visit)
    me.page.add_init_script(CONNECTIONS)
    me.enter().open(peer.member)
    me.offline()
    me.send("before")
    me.until(lambda: [item["content"] for item in items(me.page)] == ["before"])
    if loss == "cleared by the user":
        devtools = me.visitor.context.new_cdp_session(me.page)
        devtools.send("Storage.clearDataForOrigin", {"origin": site.url, "storageTypes": "indexeddb"})
    else:
        me.page.evaluate(LOSSES[loss])
    me.send("after")
    me.until(lambda: [item["content"] for item in items(me.page)] == ["before", "after"])
    expect(me.page.get_by_text(UNKEPT)).to_be_hidden()
    me.page.close()
    me.offline(False)
    tab = me.tab()
    tab.open(peer.member).reads("hello", "hi", "before", "after")
    tab.marked("after", "received")


@pytest.mark.parametrize("script", [FAILING, SILENT, "delete window.indexedDB"], ids=["full", "silent", "none"])
def test_what_cannot_be_kept(site: Site, visit: Visit, script: str) -> None:
    """A message that cannot be kept is sent. Until then the page says that a reload loses it, and the browser asks."""
    me, peer = couple(site, visit)
    page = me.page
    page.add_init_script(script)
    me.enter().open(peer.member)
    peer.open(me.member)
    me.send("online")
    peer.reads("hello", "hi", "online")
    warning = page.get_by_text(UNKEPT)
    expect(warning).to_be_hidden()
    me.offline()
    me.send("one", "two")
    expect(warning).to_be_visible()
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.evaluate("setTimeout(() => location.reload())")
    me.until(lambda: asked == ["beforeunload"])
    me.offline(False)
    peer.reads("hello", "hi", "online", "one", "two")
    me.reads("hello", "hi", "online", "one", "two")
    expect(warning).to_be_hidden()


def left(user: Any, peer: Any, content: str) -> dict[str, Any]:
    """Return a message as an outbox stores it."""
    number = f"{abs(hash(content)) % 10**12:012d}"
    return {
        "id": f"019a0000-0000-7000-8000-{number}",
        "user": str(user),
        "peer": str(peer),
        "content": content,
        "time": 1,
        "state": "pending",
    }


def test_what_another_installation_left(site: Site, visit: Visit) -> None:
    """On the same port, with the same ids, neither its messages nor its drafts are this user's."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann)
    log = me.page.evaluate(LOG)
    assert len(log) >= 16
    others = [left(f"{other} {ann.id}", bob.id, f"of {other}") for other in ("0" * 16, f"{log}0", "undefined")]
    items(me.page, *others, left(f"{log} {ann.id}", bob.id, "mine"))
    me.page.evaluate(
        "keys => keys.forEach(key => localStorage.setItem(key, 'a secret'))",
        [f"tandem draft {'0' * 16} {ann.id} {bob.id}", f"tandem draft {log} {bob.id} {ann.id}"],
    )
    me.page.reload()
    me.connected().open(bob).reads("hello", "hi", "mine")
    expect(me.box).to_have_value("")
    with voice(site, bob) as there:
        me.until(lambda: there.history(ann) == ["hello", "hi", "mine"])
    me.until(lambda: len(items(me.page)) == 3)
    assert {item["content"] for item in items(me.page)} == {item["content"] for item in others}


def test_what_an_older_page_left(site: Site, visit: Visit) -> None:
    """Messages that an older page left are sent by the user who was signed in already, and its draft is restored."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    visitor = visit(site)
    page = visitor.page
    page.goto("/")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    items(page, left(ann.id, bob.id, "from before"), left(bob.id, ann.id, "not mine"))
    page.evaluate("key => localStorage.setItem(key, 'draft')", f"tandem draft {ann.id} {bob.id}")
    visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    me = Person(visitor, ann, page).enter().open(bob)
    me.reads("hello", "hi", "from before")
    expect(me.box).to_have_value("draft")
    me.marked("from before", "stored")
    me.until(lambda: [item["content"] for item in items(page)] == ["not mine"])


def test_what_an_older_page_left_to_a_user_who_signs_in(site: Site, visit: Visit) -> None:
    """What an older page left may be another person's: it is not sent, not shown, and deleted, and the page says so."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    visitor = visit(site)
    page = visitor.page
    page.goto("/")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    items(page, left(ann.id, bob.id, "from before"), left(ann.id, bob.id, "and this"))
    page.evaluate("key => localStorage.setItem(key, 'draft')", f"tandem draft {ann.id} {bob.id}")
    page.get_by_label("User name").fill(ann.name)
    page.get_by_label("Password").fill(ann.account.password)
    page.get_by_role("button", name="Sign in").click()
    me = Person(visitor, ann, page).connected()
    expect(me.problem).to_have_text(
        "Unsent messages of an earlier version were discarded, since they may be another person’s: 2"
    )
    me.open(bob).reads("hello", "hi")
    expect(me.box).to_have_value("")
    assert items(page) == []
    me.page.reload()
    me.connected().reads("hello", "hi")


def test_a_draft_in_two_tabs(site: Site, visit: Visit) -> None:
    """Both tabs have the same draft, and sending it in one removes it from both."""
    me, peer = couple(site, visit)
    tab = me.tab().open(peer.member)
    me.open(peer.member)
    me.box.fill("draft")
    expect(tab.box).to_have_value("draft")
    me.box.press("Enter")
    me.reads("hello", "hi", "draft")
    expect(tab.box).to_have_value("")
    tab.box.fill("from the other")
    expect(me.box).to_have_value("from the other")
    tab.box.press("Enter")
    expect(me.box).to_have_value("")
    me.reads("hello", "hi", "draft", "from the other")


def test_a_draft_that_was_changed_here_since(site: Site, visit: Visit) -> None:
    """A draft that was changed here stays, whatever another tab does with its own, even if that is heard of late."""
    me, peer = couple(site, visit)
    tab = me.tab().open(peer.member)
    me.open(peer.member)
    me.box.fill("draft")
    expect(tab.box).to_have_value("draft")
    tab.page.evaluate("document.querySelector('textarea').value = 'typed, and not yet told'")
    me.box.press("Enter")
    me.reads("hello", "hi", "draft")
    tab.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(tab.box).to_have_value("typed, and not yet told")
    me.box.fill("next")
    tab.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(tab.box).to_have_value("typed, and not yet told")
    tab.box.fill("mine")
    expect(me.box).to_have_value("mine")
    deaf = me.tab()
    deaf.page.add_init_script("addEventListener('storage', event => event.stopImmediatePropagation(), true)")
    deaf.enter().open(peer.member)
    expect(deaf.box).to_have_value("mine")
    me.box.press("Enter")
    me.reads("hello", "hi", "draft", "mine")
    deaf.page.evaluate("dispatchEvent(new Event('focus'))")
    expect(deaf.box).to_have_value("")


def test_a_draft_that_the_browser_deletes(site: Site, visit: Visit) -> None:
    """A draft that the browser deletes stays in the field in each tab, and is stored again with the next key."""
    me, peer = couple(site, visit)
    tab = me.tab().open(peer.member)
    me.open(peer.member)
    me.box.fill("draft")
    expect(tab.box).to_have_value("draft")
    me.page.evaluate("localStorage.clear()")
    for each in (me, tab):
        each.page.evaluate("dispatchEvent(new Event('focus'))")
        expect(each.box).to_have_value("draft")
    me.box.press_sequentially("!")
    expect(tab.box).to_have_value("draft!")
    me.page.reload()
    me.connected()
    expect(me.box).to_have_value("draft!")


def test_signing_out_deletes_drafts(site: Site, visit: Visit) -> None:
    """Drafts are deleted in each tab. If messages are unsent, the page asks, and the user may stay."""
    me, peer = couple(site, visit)
    tab = me.tab().open(peer.member)
    me.open(peer.member)
    me.box.fill("my pin is 1234")
    expect(tab.box).to_have_value("my pin is 1234")
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    me.page.on("dialog", stay)
    out = me.page.get_by_role("button", name="Sign out", exact=True)
    me.offline()
    me.send("waits")
    me.marked("waits", "waiting to be sent")
    me.box.fill("my pin is 1234")
    me.page.locator(".account").click()
    out.click()
    me.until(lambda: len(asked) == 1)
    assert asked[0].startswith("Not sent yet: 1. This browser keeps them")
    me.offline(False)
    me.marked("waits", re.compile("received|stored"))
    me.page.locator(".account").click()
    out.click()
    expect(me.page.get_by_role("form", name="Sign in")).to_be_visible()
    assert len(asked) == 1
    assert me.page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('tandem draft'))") == []
