"""The protocol client in Node loses, doubles and reorders nothing, whatever fails between it and the server.

The tests are those of tandem.test.mjs. This module starts their servers, and does for them what Node cannot do.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pymysql
import pytest

from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from tests.support.database import make_users
from tests.support.patience import PATIENCE
from tests.support.processes import external, stop
from tests.web.conftest import RunNode
from tests.web.site import Site

SCRIPT = "tandem.test.mjs"
NAMES = re.findall(r'^test\("(.+?)"', (Path(__file__).parent / SCRIPT).read_text("utf-8"), re.MULTILINE)
SITES = {
    "OPEN": ["--auth=open"],
    "TOKEN": ["--auth=token"],
    # So few requests a second that even a busy machine is faster.
    "STRICT": ["--auth=open", "--request-rate=5", "--request-burst=10", "--answer-timeout=1", "--engine-timeout=3"],
}


@pytest.fixture(scope="module")
def sites(addresses: Addresses) -> Iterator[dict[str, Site]]:
    """Start servers on the session's databases, which must not log an error."""
    sites: dict[str, Site] = {}
    try:
        for name, flags in SITES.items():
            sites[name] = Site(*external(addresses), *flags)
        yield sites
        for site in sites.values():
            site.end()
    finally:
        for site in sites.values():
            site.discard()


@pytest.fixture(scope="module")
def control(sites: dict[str, Site], embedded: EmbeddedDatabases, database: pymysql.Connection) -> Iterator[str]:
    """Serve over HTTP what Node cannot do itself: create users, end and start a server, stop a database."""
    site, mongod = sites["OPEN"], embedded.pids["mongod"]
    down = threading.Event()

    def kill() -> None:
        site.kill()
        down.set()

    def start() -> None:
        if down.is_set():
            site.start()
            down.clear()

    actions: dict[str, Callable[..., Any]] = {
        "people": lambda count: [str(user) for user in make_users(database, int(count))],
        "kill": kill,
        "start": start,
        "freeze": lambda: stop(mongod),
        "thaw": lambda: os.kill(mongod, signal.SIGCONT),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            action, *arguments = self.path[1:].split("/")
            try:
                status, answer = 200, actions[action](*arguments)
            except Exception as error:  # noqa: BLE001  # Node shows the error
                status, answer = 500, repr(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, ExitStack() as stack:
        stack.callback(os.kill, mongod, signal.SIGCONT)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("name", NAMES)
def test_tandem(name: str, run_node: RunNode, sites: dict[str, Site], control: str) -> None:
    """A test of tandem.test.mjs passes."""
    module = {"PATIENCE": str(PATIENCE), **{key: os.environ[key] for key in ("CLIENT",) if key in os.environ}}
    run_node(SCRIPT, f"^{name}$", CONTROL=control, **{key: site.url for key, site in sites.items()}, **module)
