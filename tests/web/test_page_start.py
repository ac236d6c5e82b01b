"""The page's first moments: what it loads, and what it does in a browser that lacks something."""

from __future__ import annotations

import pytest
from playwright.sync_api import Response, expect

from handlers.page import read_page
from tests.processes import ROOT
from tests.test_repository import first_visit
from tests.web.people import members
from tests.web.site import Site
from tests.web.visitor import Visit


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    return ["--auth=token"]


def test_a_first_visit_loads_what_is_counted(site: Site, visit: Visit) -> None:
    """The files that the budget counts are those that a browser asks for, compressed to the size that is counted."""
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
    icon = {"icon.svg"}  # which no headless browser asks for
    assert {name: loaded[name] for name in loaded.keys() - icon} == {name: sizes[name] for name in sizes.keys() - icon}
