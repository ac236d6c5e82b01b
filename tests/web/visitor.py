"""A visitor of the page in a browser, who notices its errors."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, WebError

from tests.support.patience import PATIENCE

NO_REQUEST = {"about", "blob", "data"}  # schemes
# A turn of the page's event loop, even if a test has stopped the page's clock.
TURN = """new Promise(done => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => done(0);
    port2.postMessage(0);
})"""


class Visitor:
    """A browser context of its own, for pages of the site at `url`; `options` are those of Playwright's contexts.

    `page` is the first page, still empty; `context.new_page()` opens further tabs. `seen` are console messages, page
    errors and requests to elsewhere, a line for each.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.seen: list[str] = []
        self._expected: list[str] = []
        self._tolerated: list[str] = []
        self._left = False
        self._origin = urlsplit(url).netloc
        self.context = browser.new_context(base_url=url, **options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.context.on("console", self._console)
        self.context.on("weberror", self._error)
        self.context.on("request", lambda request: self._request(request.url))
        self.context.on("page", self._page)
        self.page = self.context.new_page()

    def expect(self, pattern: str) -> None:
        """Declare that `seen` will have one or more lines that match `pattern`."""
        self._expected.append(pattern)

    def tolerate(self, pattern: str) -> None:
        """Declare that `seen` may have lines that match `pattern`."""
        self._tolerated.append(pattern)

    def until(self, condition: Callable[[], Any], patience: float = PATIENCE) -> None:
        """Let the browser run until `condition` holds; `patience` in seconds."""
        give_up = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < give_up, f"does not come; seen: {self.seen}"
            self.page.wait_for_timeout(10)

    def leave(self) -> None:
        """Close all pages; fail for unexpected lines of `seen`, and for expected ones that are missing."""
        if self._left:
            return
        self._left = True
        for page in self.context.pages:
            with contextlib.suppress(Error):  # the page has crashed, which is in `seen`
                page.evaluate(TURN)  # earlier messages of the page have arrived then
        self.context.close()
        known = (*self._expected, *self._tolerated)
        unexpected = [line for line in self.seen if not any(re.search(each, line) for each in known)]
        assert not unexpected, "was not expected:\n" + "\n".join(unexpected)
        missed = [each for each in self._expected if not any(re.search(each, line) for line in self.seen)]
        assert not missed, f"was expected, but did not happen: {missed}"

    def _console(self, message: ConsoleMessage) -> None:
        self.seen.append(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _error(self, error: WebError) -> None:
        self.seen.append(f"page error: {error.error.stack or error.error}")

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in NO_REQUEST and parts.netloc != self._origin:
            self.seen.append(f"request to elsewhere: {url}")

    def _page(self, page: Page) -> None:
        page.on("websocket", lambda socket: self._request(socket.url))
        page.on("crash", lambda _: self.seen.append("page crashed"))


Visit = Callable[..., Visitor]  # opens a page of a site: visit(site, **options)


def axe(page: Page) -> list[str]:
    """Return what axe-core finds wrong with the page now: for each rule its name, its description, and the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {rule['help']}: {[node['target'] for node in rule['nodes']]}" for rule in found]
