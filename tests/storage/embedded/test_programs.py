"""Tests of finding the databases' programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.embedded import programs
from storage.embedded.programs import ProgramError, find_program


def make_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on PATH is preferred, and runs with the system's libraries."""
    own, installed = make_program(tmp_path / "usr/bin/mongod"), make_program(tmp_path / "engines/bin/mongod")
    monkeypatch.setattr(programs, "INSTALLED", installed.parent.parent)
    monkeypatch.setenv("PATH", str(own.parent))
    found = find_program("mongod")
    assert (str(own), tmp_path / "usr/share") == (found.path, found.share)
    assert "engines" not in found.environment.get("LD_LIBRARY_PATH", "")


def test_programs_that_setup_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that `make setup` installed runs with the libraries that were installed with it."""
    installed = make_program(tmp_path / "engines/bin/mongod")
    (tmp_path / "engines/root/usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    monkeypatch.setattr(programs, "INSTALLED", installed.parent.parent)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    found = find_program("mongod")
    assert str(installed) == found.path
    assert found.environment["LD_LIBRARY_PATH"].endswith("root/usr/lib/x86_64-linux-gnu")


def test_else_an_error_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing program, the directories that were searched, and the package."""
    monkeypatch.setattr(programs, "INSTALLED", tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramError, match=rf"mongod is missing.*/nowhere.*{tmp_path}.*make setup.*mongodb-org"):
        find_program("mongod")


def test_a_database_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's environment has the variables that it needs, and no settings or keys of other programs."""
    make_program(tmp_path / "mongod")
    needed = {"PATH": str(tmp_path), "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(tmp_path)}
    secret = {"TANDEM_MYSQL": "mysql://u:pw@h/d", "AWS_SECRET_ACCESS_KEY": "x", "MYSQL_PWD": "x", "PATH_TO_KEY": "x"}
    for name, value in (needed | secret).items():
        monkeypatch.setenv(name, value)
    environment = find_program("mongod").environment
    assert needed.items() <= environment.items()
    assert not secret.keys() & environment.keys()
