"""Links and emoji-only messages are recognised in texts. The tests are those of text.test.mjs."""

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
    """A test of text.test.mjs passes."""
    run_node(SCRIPT, f"^{name}$", **{key: os.environ[key] for key in ("TEXT",) if key in os.environ})
