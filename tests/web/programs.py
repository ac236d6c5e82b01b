"""The programs in which tests of the page run: a browser, and Playwright's Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import playwright
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.processes import ROOT

NAME = "chromium-headless-shell"
BROUGHT = ROOT / ".browser"
NODE = Path(playwright.__file__).parent / "driver" / "node"
NODE_TIME = 200  # seconds for a file of Node tests
FLAGS = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # no request leaves the machine
]


class ProgramError(Exception):
    """A program is not available; the text says why."""


def find_browser(path: str, brought: Path) -> str:
    """Return the browser on `path`, or the one that set-up installed. Raises ProgramError."""
    found = shutil.which(NAME, path=path)
    if found:
        return found
    if (brought / "ready").exists():
        return str(brought / "bin" / NAME)
    try:
        reason = (brought / "missing").read_text().strip()
    except FileNotFoundError:
        reason = "`make test` brings one"
    raise ProgramError(f"no {NAME}: {reason}")


def find_node() -> str:
    """Return Playwright's Node. Raises ProgramError."""
    done = subprocess.run([NODE, "--version"], env=node_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProgramError(f"Playwright's Node does not start: {done.stderr.strip()}")
    return str(NODE)


def libraries() -> dict[str, str]:
    """Return the variable that names the libraries which this machine lacks and set-up installed, for Node."""
    found = sorted({str(library.parent) for library in BROUGHT.glob("root/**/libatomic.so.1")})
    return {"LD_LIBRARY_PATH": os.pathsep.join(found)} if found else {}


def node_environment() -> dict[str, str]:
    """Return this process's environment without variables that change Node or are for the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NODE_", "TANDEM_"))}
    return {**kept, **libraries()}


def unavailable(reason: object) -> NoReturn:
    """Skip the test; with `TESTS_BROWSER=required`, as in .ci/run, fail it."""
    if os.environ.get("TESTS_BROWSER") == "required":
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


def may_sandbox() -> bool:
    """Return whether the browser's sandbox works here: not as root, and not without user namespaces."""
    if os.geteuid() == 0:
        return False
    try:
        command = ["unshare", "--user", "--map-root-user", "--net", "true"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def run_node_tests(node: str, script: str | Path, *names: str, **variables: Any) -> str:
    """Run a file of Node tests, all or those whose names match a pattern of `names`; return the TAP output.

    `script` is beside this file. Fails with Node's output unless all pass and a name has matched.
    """
    command = [
        node,
        "--test",
        "--test-isolation=none",  # in one process, which can be ended
        "--test-reporter=tap",
        f"--test-timeout={NODE_TIME * 1000}",
        *(f"--test-name-pattern={name}" for name in names),
        str(Path(__file__).parent / script),
    ]
    environment = node_environment() | {name: str(value) for name, value in variables.items()}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=NODE_TIME,
            check=False,
            process_group=0,  # Ctrl-C is for pytest, which ends after the current test
        )
    except subprocess.TimeoutExpired as error:
        said = error.output.decode(errors="replace") if error.output else ""
        pytest.fail(f"Node did not end within {NODE_TIME} s:\n{said}", pytrace=False)
    lines = done.stdout.splitlines()
    if done.returncode or "# fail 0" not in lines or "# pass 0" in lines:
        pytest.fail(f"Node ended with {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start a browser; no other event loop can run in the process meanwhile. Raises ProgramError."""
    find_node()
    program = find_browser(os.environ.get("PATH", os.defpath), BROUGHT)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in libraries().items():
                patch.setenv(name, value)
            playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=program,
            args=FLAGS,
            ignore_default_args=["--hide-scrollbars"],  # most browsers have them, and they reveal faults of the layout
            chromium_sandbox=may_sandbox(),
            # Ctrl-C is for pytest, which ends after the current test.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        stack.callback(browser.close)
        yield browser
