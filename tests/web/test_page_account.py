"""The page's user: registering, signing in and out, and the effects of other tabs and devices."""

from __future__ import annotations

import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.web.people import acquainted, join, members, voice
from tests.web.site import Site, register
from tests.web.visitor import Visit


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def fill_in(page: Page, form: str, **fields: str) -> None:
    """Fill in the form with that name, whose labels are `fields`, and press its button."""
    there = page.get_by_role("form", name=form)
    for label, value in fields.items():
        there.get_by_label(label.replace("_", " ")).fill(value)
    there.get_by_role("button", name=form).click()


def test_signing_up_and_in(site: Site, visit: Visit) -> None:
    """A registered user stays signed in over a reload; after signing out, only the password signs in again."""
    visitor = visit(site)
    visitor.expect("status of 401")
    visitor.expect("status of 409")
    page = visitor.page
    name, taken = f"n{secrets.token_hex(6)}", register(site, "Taken")
    page.goto("/")
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_label("User name")).to_be_focused()
    fill_in(page, "Sign up", User_name=taken.name, Nickname="小明", Password="at-least-8-bytes")
    expect(page.get_by_role("alert")).to_have_text("This user name is taken.")
    fill_in(page, "Sign up", User_name=name)
    chat = page.get_by_text("No conversations yet. Find a user.")
    expect(chat).to_be_visible()
    page.reload()
    expect(chat).to_be_visible()
    page.get_by_text("小明").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    fill_in(page, "Sign in", User_name=name, Password="at-least-9-bytes")
    expect(page.get_by_role("alert")).to_have_text("Wrong user name or password.")
    fill_in(page, "Sign in", Password="at-least-8-bytes")
    expect(chat).to_be_visible()


def test_a_field_says_what_it_takes(site: Site, visit: Visit) -> None:
    """Input that the server would refuse is not sent, and the server's own refusals are explained."""
    visitor = visit(site)
    visitor.expect("status of 400")
    page = visitor.page
    page.goto("/")
    page.get_by_role("button", name="Sign up").click()
    fill_in(page, "Sign up", User_name="four", Nickname="Ann", Password="at-least-8-bytes")
    assert page.evaluate("document.activeElement.validity.valid") is False
    fill_in(page, "Sign up", User_name="with space", Nickname="x" * 10, Password="密" * 72)
    expect(page.get_by_role("alert")).to_contain_text("That is not possible: ")


def test_signed_out_elsewhere(site: Site, visit: Visit) -> None:
    """Signing out everywhere brings every page back to the form, with the reason, and keeps unsent messages."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    here, there = join(site, visit, ann), join(site, visit, ann)
    here.open(bob)
    # A page may be connecting again when it is told. Chromium warns of a socket that is refused or closed then.
    for page in (here, there):
        page.visitor.tolerate("HTTP Authentication failed|closed before the connection is established")
    there.page.get_by_text("Ann", exact=True).click()
    there.page.get_by_role("button", name="Sign out everywhere").click()
    expect(there.page.get_by_role("form", name="Sign in")).to_be_visible()
    expect(here.page.get_by_role("alert")).to_have_text("You were signed out. Please sign in again.")
    expect(there.page.get_by_role("alert")).to_be_hidden()
    fill_in(here.page, "Sign in", User_name=ann.name, Password=ann.account.password)
    here.connected().open(bob).reads("hello", "hi")


def test_another_tab_signs_in_as_another_user(site: Site, visit: Visit) -> None:
    """The first tab does not change its user: its messages are sent as the old user or not at all."""
    ann, bob, eve = members(site, "Ann", "Bob", "Eve")
    acquainted(site, ann, bob)
    acquainted(site, eve, bob)
    first = join(site, visit, ann).open(bob)
    first.send("said")
    first.marked("said", "stored")
    other = first.visitor.context.new_page()
    first.visitor.context.add_cookies([{"name": "tandem", "value": eve.token, "url": site.url}])
    other.goto("/")
    expect(other.get_by_text("Eve", exact=True)).to_be_visible()
    first.send("said beside Eve")
    first.marked("said beside Eve", "stored")
    first.visitor.expect("Unexpected response code: 403|closed before the connection is established")
    first.notices(site.kill)
    first.send("said to nobody")
    site.start()
    first.wake()
    expect(first.page.get_by_text("Eve", exact=True)).to_be_visible()
    first.connected().open(bob).reads("hello", "hi")
    first.visitor.context.add_cookies([{"name": "tandem", "value": ann.token, "url": site.url}])
    first.enter().open(bob).marked("said to nobody", "stored")
    with voice(site, bob) as there:
        assert there.history(eve) == ["hello", "hi"]
        assert there.history(ann) == ["hello", "hi", "said", "said beside Eve", "said to nobody"]
