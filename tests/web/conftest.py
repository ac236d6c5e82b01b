"""Fixtures for tests of the page: a browser, Node, and a server with the page.

Tests in a browser are ordinary functions. While a module has its browser, no other event loop can run in the process.
So everything else that a test needs is a process of its own or blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser

from storage.embedded.supervisor import Addresses
from tests.support.processes import external
from tests.web.programs import (
    ProgramError,
    browsing,
    find_node,
    run_node_tests,
    unavailable,
)
from tests.web.site import Site
from tests.web.visitor import Visit, Visitor

RunNode = Callable[..., str]


@pytest.fixture(scope="session")
def node() -> str:
    """Return the path of Playwright's Node."""
    try:
        return find_node()
    except ProgramError as error:
        unavailable(error)


@pytest.fixture(scope="session")
def run_node(node: str) -> RunNode:
    """Run a file of Node tests: `run_node(script, *names, **environment)`."""
    return partial(run_node_tests, node)


@pytest.fixture(scope="module")
def chromium(node: str) -> Iterator[Browser]:
    """Start a browser, for one module: Playwright's event loop keeps tests with other event loops from running."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(browsing())
        except ProgramError as error:
            unavailable(error)
        yield browser


@pytest.fixture(scope="module")
def site_flags() -> list[str]:
    """Return the site's flags; a test module overrides it for another kind of server."""
    return []


@pytest.fixture(scope="module")
def site(addresses: Addresses, site_flags: list[str]) -> Iterator[Site]:
    """Start a server on the session's databases, which must not log an error."""
    site = Site(*external(addresses), *site_flags)
    try:
        yield site
        site.end()
    finally:
        site.discard()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Open an empty page for a visitor of a site: `visit(site, locale="zh-CN", color_scheme="dark")`.

    After the test, fail for everything seen that the test did not expect.
    """
    with ExitStack() as stack:

        def enter(site: Site, **options: Any) -> Visitor:
            visitor = Visitor(chromium, site.url, **options)
            stack.callback(visitor.leave)
            return visitor

        yield enter
