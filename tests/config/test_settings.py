"""Tests of the settings' record and of the example file."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path

import msgspec

from config import Settings, load
from config.sources import DECLARED

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_example_file_is_the_defaults(tmp_path: Path) -> None:
    """config/example.toml has every setting, commented out, with its default."""
    text = (ROOT / "config/example.toml").read_text()
    lines = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in text.splitlines()]
    file = tmp_path / "settings.toml"
    file.write_text("\n".join(line for line in lines if not line.startswith("#")))
    tables = tomllib.loads(file.read_text())
    names = {group: list(fields.__struct_fields__) for group, fields in msgspec.structs.asdict(Settings()).items()}
    assert {group: list(table) for group, table in tables.items()} == names
    assert load([f"--config={file}"], environ={}) == Settings()
    assert tomllib.loads(text) == {group: {} for group in tables}


def test_the_example_file_says_of_each_setting_what_the_help_says() -> None:
    """The line above each setting in config/example.toml is its description in `--help`."""
    lines = (ROOT / "config/example.toml").read_text().splitlines()
    for name, setting in DECLARED.items():
        above = next(before for before, line in pairwise(lines) if line.startswith(f"# {name} = "))
        assert above.casefold() == f"# {setting.help}.".casefold(), name
