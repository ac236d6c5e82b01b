"""Links that are links and emoji that are alone are found in a message's text. The tests are those of text.test.mjs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.web.conftest import RunNode

SCRIPT = "text.test.mjs"
NAMES = re.findall(r'^test\("(.+?)"', (Path(__file__).parent / SCRIPT).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_text(name: str, run_node: RunNode) -> None:
    """One test of the file."""
    run_node(SCRIPT, f"^{name}$", **{key: os.environ[key] for key in ("TEXT",) if key in os.environ})
