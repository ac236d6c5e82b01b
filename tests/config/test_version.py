"""Tests of the version."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

from config.version import VERSION
from tests.support.processes import ROOT


def test_the_version_is_in_one_place() -> None:
    """The project's metadata take the version from config/version.py."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "config.version.VERSION"}
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", VERSION)


def test_the_version_is_shown() -> None:
    """`--version` prints the version and exits, without settings or databases."""
    done = subprocess.run(
        [sys.executable, "server.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"Tandem {VERSION}\n", "")
