"""Two users chat: from the first message to the marks that show its state."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.web.people import NEW, Person, acquainted, ask, couple, join, members, voice
from tests.web.site import Site
from tests.web.visitor import Visit


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def test_finding_a_user(site: Site, visit: Visit) -> None:
    """The search needs another user's name; the page says what is wrong with any other text, and keeps it."""
    ann, bob = members(site, "Ann", "Bob")
    me = join(site, visit, ann)
    me.visitor.expect("status of 404")
    me.find("nobody-there")
    expect(me.problem).to_have_text("There is no user “nobody-there”.")
    expect(me.search).to_have_value("nobody-there")
    me.find(ann.name)
    expect(me.problem).to_have_text("That is you.")
    me.find(f" {bob.name} ")
    expect(me.page.get_by_role("heading", name="Bob")).to_be_visible()
    expect(me.page.get_by_text("No messages yet. Say hello.")).to_be_visible()
    expect(me.problem).to_be_hidden()
    expect(me.search).to_have_value("")
    expect(me.box).to_be_focused()


def test_a_first_message_arrives(site: Site, visit: Visit) -> None:
    """A first message is in the list with its text, counted there and in the title, and after a divider once opened."""
    ann, bob = members(site, "Ann", "Bob")
    writer, reader = join(site, visit, ann), join(site, visit, bob)
    writer.meet(bob).send("one", "two")
    expect(reader.contact(ann)).to_have_accessible_name(re.compile(r"Ann .* two 2 unread$"))
    reader.titled("(2) Tandem")
    reader.open(ann).reads("one", "two")
    assert_divided(reader, "one")
    reader.titled("Tandem")
    expect(reader.contact(ann).get_by_text("unread")).to_be_hidden()
    writer.marked("two", "read")
    reader.send("three")
    writer.reads("one", "two", "three")
    expect(reader.page.get_by_text(NEW)).to_be_hidden()
    writer.titled("Tandem")
    expect(writer.contact(bob)).to_contain_text("three")


def assert_divided(person: Person, text: str) -> None:
    """Assert that the divider is above this message and nowhere else."""
    expect(person.thread.get_by_text(NEW)).to_have_count(1)
    expect(person.bubble(text).get_by_text(NEW)).to_be_visible()


def test_marks(site: Site, visit: Visit) -> None:
    """A message is pending, stored, received and read; each mark has a name that says so."""
    ann, bob, cid = members(site, "Ann", "Bob", "Cid")
    acquainted(site, ann, bob)
    acquainted(site, cid, bob)
    writer = join(site, visit, ann).open(bob)
    writer.offline()
    writer.send("text")
    writer.marked("text", "waiting to be sent")
    writer.offline(False)
    writer.marked("text", "stored")
    reader = join(site, visit, bob)
    writer.marked("text", "received")
    reader.open(cid)
    writer.send("more")
    writer.marked("more", "received")
    reader.open(ann)
    for text in ("text", "more"):
        writer.marked(text, "read")
    reader.send("seen")
    writer.send("at once")
    writer.marked("at once", "read")


def test_marks_after_an_absence(site: Site, visit: Visit) -> None:
    """What the peer read while the writer was away is known when the writer is back."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    writer = join(site, visit, ann).open(bob)
    writer.send("text")
    writer.marked("text", "stored")
    writer.notices(site.kill)
    writer.offline()
    site.start()
    with voice(site, bob) as peer:
        peer.ask(4, ann, read=3)
    writer.offline(False)
    writer.marked("text", "read")


def test_typing_and_presence(site: Site, visit: Visit) -> None:
    """Typing and presence are shown in the list and the conversation; typing ends with the message, or by itself."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    me = join(site, visit, ann)
    me.page.clock.install()
    me.open(bob)
    expect(me.contact(bob)).not_to_contain_text("online")
    peer = join(site, visit, bob)
    expect(me.contact(bob)).to_contain_text(", online")
    expect(me.head).to_contain_text("online")
    peer.open(ann)
    peer.box.press("h")
    expect(me.contact(bob)).to_contain_text("typing…")
    expect(me.head).to_contain_text("typing…")
    me.page.clock.run_for(4100)
    expect(me.contact(bob)).not_to_contain_text("typing…")
    expect(me.head).to_contain_text("online")
    peer.send("here")
    me.page.clock.run_for(100)
    expect(me.contact(bob)).to_contain_text("here")
    expect(me.head).not_to_contain_text("typing…")
    peer.visitor.leave()
    expect(me.head).not_to_contain_text("online")
    me.page.clock.run_for(100)
    expect(me.contact(bob)).not_to_contain_text("online")


def test_limit(site: Site, visit: Visit) -> None:
    """The fourth message to a stranger is explained; it can be discarded, or resent after an answer."""
    ann, bob = members(site, "Ann", "Bob")
    me = join(site, visit, ann).meet(bob)
    me.send("1", "2", "3", "4", "5")
    for text in ("4", "5"):
        expect(me.bubble(text).get_by_role("alert")).to_contain_text("Until you are answered you may send three")
        me.marked(text, "not sent")
    me.reads("1", "2", "3", "4", "5")
    me.bubble("4").get_by_role("button", name="Send again").click()
    me.reads("1", "2", "3", "5", "4")
    me.marked("4", "not sent")
    me.bubble("5").get_by_role("button", name="Discard").click()
    me.reads("1", "2", "3", "4")
    me.page.reload()
    me.connected().reads("1", "2", "3", "4")
    with voice(site, bob) as peer:
        peer.say(ann, "yes?")
        me.bubble("4").get_by_role("button", name="Send again").click()
        me.marked("4", "stored")
        me.reads("1", "2", "3", "yes?", "4")
        assert peer.history(ann) == ["1", "2", "3", "yes?", "4"]


def test_blocked(site: Site, visit: Visit) -> None:
    """A user on either side of a block is told so when writing; after the block the conversation goes on."""
    me, peer = couple(site, visit)
    me.open(peer.member).page.get_by_role("button", name="Block", exact=True).click()
    me.page.get_by_role("button", name="Unblock").wait_for()
    for writer, reader in ((me, peer), (peer.open(me.member), me)):
        writer.send("text")
        expect(writer.bubble("text").get_by_role("alert")).to_contain_text("one of you has blocked the other")
        expect(reader.contacts.get_by_text("text")).to_be_hidden()
    me.page.get_by_role("button", name="Unblock").click()
    me.page.get_by_role("button", name="Block", exact=True).wait_for()
    peer.bubble("text").get_by_role("button", name="Send again").click()
    me.reads("hello", "hi", "text", "text")


def test_blocking_a_user_who_has_not_written(site: Site, visit: Visit) -> None:
    """The block is shown, and can be lifted, as with any user."""
    ann, bob = members(site, "Ann", "Bob")
    me = join(site, visit, ann).meet(bob)
    for now, then in (("Block", "Unblock"), ("Unblock", "Block")):
        me.page.get_by_role("button", name=now, exact=True).click()
        expect(me.page.get_by_role("button", name=then, exact=True)).to_be_visible()


def test_an_account_that_is_gone(site: Site, visit: Visit) -> None:
    """Messages of an account that is gone stay, and it receives no more."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    ask(site, "DELETE", "/user/me", {"password": bob.account.password}, bob.token)
    me = join(site, visit, ann)
    gone = bob._replace(account=bob.account._replace(nick="Deleted account"))
    me.open(gone).reads("hello", "hi")
    me.send("text")
    expect(me.bubble("text").get_by_role("alert")).to_contain_text("this account is gone")
    me.page.reload()
    me.connected().reads("hello", "hi", "text")


def test_a_search_that_takes_long(site: Site, visit: Visit) -> None:
    """The result of a slow search does not leave another conversation that was opened meanwhile."""
    ann, bob = couple(site, visit)
    cid = members(site, "Cid")[0]
    held: list[Route] = []
    ann.page.route("**/users?*", lambda route: held.append(route))  # Playwright sets attributes on the function
    ann.find(cid.name)
    ann.until(lambda: held)
    ann.open(bob.member)
    with ann.page.expect_response("**/users?*"):
        held[0].continue_()
    ann.send("still here")
    ann.reads("hello", "hi", "still here")


def test_the_address_of_a_deleted_account(site: Site, visit: Visit) -> None:
    """No user has this name any more."""
    page = couple(site, visit)[0].page
    addresses = page.evaluate("""async () => {
        const { person } = await import(document.querySelector("script").src.replace("app.js", "list.js"));
        const all = [{ id: 12345, user_name: "" }, { id: 6, user_name: "=12345" }, { id: 7, user_name: "/12345" }];
        return all.map((user) => person(user).address);
    }""")
    assert len(set(addresses)) == 3
