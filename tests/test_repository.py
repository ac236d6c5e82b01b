"""The house itself: every source file has its mirror, and what is promised about files is so."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("clients", "config", "handlers", "models", "storage")
SOURCES = [
    path
    for room in ROOMS
    for path in sorted((ROOT / room).glob("*.py"))
    if path.stem != "__init__" and not path.stem.endswith("ports")
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_source_file_has_its_mirror(source: Path) -> None:
    """CONTRIBUTING's rule; the ports are mypy's."""
    assert (ROOT / "tests" / source.parent.name / f"test_{source.name}").exists()


@pytest.mark.parametrize("source", [*SOURCES, ROOT / "server.py"], ids=lambda path: path.name)
def test_files_stay_readable(source: Path) -> None:
    """A file that a reader can hold in mind opens with a line that says what it is about."""
    lines = source.read_text().splitlines()
    assert len(lines) <= 600
    assert lines[0].startswith('"""')


def test_the_page_stays_small() -> None:
    """Before compression; docs/client.md says so."""
    assert sum(path.stat().st_size for path in (ROOT / "web").iterdir()) < 60_000


def test_ci_runs_what_the_readme_says() -> None:
    """And nothing else."""
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make")]
    assert commands == ["make check", "make test", "make test FRAMES=tornado"]
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{command}`" in readme for command in commands)
