"""Tests of the fixtures: a browser that reports errors, a server that comes back, Node."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page

from tests.support.patience import PATIENCE
from tests.web.conftest import RunNode
from tests.web.programs import NAME, ProgramError, find_browser, unavailable
from tests.web.site import Site, register
from tests.web.visitor import Visit, Visitor, axe

GOOD = "<!doctype html><html lang=en><title>t</title><main><h1>good</h1><button>Send</button></main>"
PASSING = 'require("node:test")("one", () => {}); require("node:test")("two", () => {});'
NEEDING = 'require("node:test")("it", () => require("node:assert").equal(process.env.GREETING, "hi"));'


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def to_empty_page(visitor: Visitor) -> Page:
    """Go to an empty page of the site, which may send any request to it."""
    visitor.page.route("**/empty", lambda route: route.fulfill(content_type="text/html", body=GOOD))
    visitor.page.goto("/empty")
    return visitor.page


def test_each_visitor_has_a_browser_of_its_own(site: Site, visit: Visit) -> None:
    """Visitors have a language, colours, a window and storage of their own."""
    ask = "[navigator.language, matchMedia('(prefers-color-scheme: dark)').matches, innerWidth, localStorage.length]"
    one = visit(site, locale="zh-CN", color_scheme="dark", viewport={"width": 400, "height": 700})
    other = visit(site, locale="ar")
    for visitor in (one, other):
        to_empty_page(visitor)
    assert one.page.evaluate(ask) == ["zh-CN", True, 400, 0]
    one.page.evaluate("localStorage.setItem('a', 'b')")
    assert other.page.evaluate(ask) == ["ar", False, 1280, 0]


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ("console.error('broken')", "console error: broken"),
        ("console.log('left behind')", "console log: left behind"),
        ("setTimeout(() => { throw new Error('broken') })", "page error: Error: broken"),
        ("Promise.reject(new Error('broken')); 0", "page error: Error: broken"),
        ("fetch('/user/me').then(() => 0)", "status of 401"),
        ("fetch('http://elsewhere.invalid/').catch(() => 0)", "request to elsewhere: http://elsewhere.invalid/"),
        ("void new WebSocket('ws://elsewhere.invalid/')", "request to elsewhere: ws://elsewhere.invalid/"),
        ("void (new Image().src = 'http://127.0.0.1:9/')", "request to elsewhere: http://127.0.0.1:9/"),
    ],
)
def test_what_goes_wrong_is_noticed(chromium: Browser, site: Site, script: str, seen: str, expected: bool) -> None:
    """An error in the browser fails the test, unless it was expected."""
    visitor = Visitor(chromium, site.url)
    to_empty_page(visitor).evaluate(script)
    visitor.until(lambda: any(seen in line for line in visitor.seen))
    if expected:
        visitor.expect("")
        visitor.leave()
    else:
        with pytest.raises(AssertionError, match=re.escape(seen)):
            visitor.leave()


def test_what_was_expected_must_happen(chromium: Browser, site: Site) -> None:
    """An expected error that does not happen fails the test."""
    visitor = Visitor(chromium, site.url)
    to_empty_page(visitor)
    visitor.expect("401")
    with pytest.raises(AssertionError, match="401"):
        visitor.leave()


def test_the_site_comes_back(site: Site, visit: Visit) -> None:
    """The site comes back on the same port, with its users, after a crash and after an orderly end."""
    account = register(site, "小明")
    visitor = visit(site)
    visitor.expect("ERR_CONNECTION_REFUSED")
    page = to_empty_page(visitor)
    for end in (site.kill, site.end):
        end()
        assert page.evaluate("fetch('/healthz').catch(() => 'away')") == "away"
        site.start()
        assert page.evaluate("fetch('/healthz').then(answer => answer.status)") == 200
    who = {"user_name": account.name, "password": account.password}
    answer = requests.post(f"{site.url}/user/login", json=who, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["data"]["user"]["id"]) == (200, account.id)


def test_axe_finds_what_is_wrong(site: Site, visit: Visit) -> None:
    """axe reports a fault, and reports nothing on a correct page."""
    page = visit(site).page
    page.set_content(GOOD)
    assert axe(page) == []
    page.set_content(GOOD.replace("Send", "").replace(" lang=en", ""))
    assert [line.split(":")[0] for line in axe(page)] == ["button-name", "html-has-lang"]


def test_a_browser_is_looked_for(tmp_path: Path) -> None:
    """A browser is searched on PATH, then where set-up installs it; an error of set-up is passed on."""
    with pytest.raises(ProgramError, match="`make test` brings one"):
        find_browser("", tmp_path)
    (tmp_path / "missing").write_text("apt-get is not on this machine\n")
    with pytest.raises(ProgramError, match=r"apt-get is not on this machine$"):
        find_browser("", tmp_path)
    (tmp_path / "ready").touch()
    assert find_browser("", tmp_path) == str(tmp_path / "bin" / NAME)
    (tmp_path / NAME).touch(0o755)
    assert find_browser(os.fspath(tmp_path), tmp_path) == str(tmp_path / NAME)


def test_tests_without_a_browser_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are skipped without a browser, and fail where one is required."""
    monkeypatch.delenv("TESTS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="why"):
        unavailable(ProgramError("why"))
    monkeypatch.setenv("TESTS_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="why"):
        unavailable(ProgramError("why"))


def test_node_runs_tests(run_node: RunNode, tmp_path: Path) -> None:
    """Node runs all or some tests, with an environment of their own, and shows failures."""
    passing, needing = tmp_path / "passing.cjs", tmp_path / "needing.cjs"
    passing.write_text(PASSING)
    needing.write_text(NEEDING)
    assert "# pass 2" in run_node(passing)
    assert "# pass 1" in run_node(passing, "^two$")
    assert "# pass 1" in run_node(needing, GREETING="hi")
    with pytest.raises(pytest.fail.Exception, match="undefined == 'hi'"):
        run_node(needing)
    for nothing in ((passing, "^three$"), (tmp_path / "absent.cjs",)):
        with pytest.raises(pytest.fail.Exception, match="Node ended with"):
            run_node(*nothing)
