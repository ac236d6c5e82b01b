"""The page of a server that trusts `uid` from its own machine."""

from __future__ import annotations

import pymysql
from playwright.sync_api import expect

from tests.support.database import make_users
from tests.web.people import CONNECTING, ask
from tests.web.site import Site, register
from tests.web.visitor import Visit, axe


def test_being_one_of_the_users(site: Site, visit: Visit, database: pymysql.Connection) -> None:
    """Choosing a user takes a link and no password, lasts over a reload, and differs from tab to tab."""
    make_users(database, 2)  # the table may be empty
    offered = [str(user["id"]) for user in ask(site, "GET", "/session")["users"]]
    visitor = visit(site)
    one, other = visitor.page, visitor.context.new_page()
    for page, number in ((one, 0), (other, 1)):
        page.goto("/")
        links = page.get_by_role("navigation", name="Or be one of these").get_by_role("link")
        expect(links.first).to_be_visible()
        assert axe(page) == []
        links.nth(number).click()
        expect(page.get_by_role("searchbox")).to_be_visible()
        page.reload()
    ids = [page.evaluate("new URLSearchParams(location.search).get('uid')") for page in (one, other)]
    assert ids == offered[:2]
    for page in (one, other):
        expect(page.get_by_role("searchbox")).to_be_visible()
        expect(page.get_by_text(CONNECTING)).to_be_hidden()


def test_leaving(site: Site, visit: Visit) -> None:
    """A user without a token returns to the choice of users."""
    visitor = visit(site)
    visitor.expect("401")
    visitor.page.goto(f"/?uid={register(site, 'Ann').id}")
    visitor.page.locator(".account").click()
    visitor.page.get_by_role("button", name="Sign out", exact=True).click()
    expect(visitor.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_link_with_an_odd_uid(site: Site, visit: Visit) -> None:
    """No user has it, so the page offers the choice of users."""
    page = visit(site).page
    for uid in ("abc", "01", "+5", "4000000000"):
        page.goto(f"/?uid={uid}")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
