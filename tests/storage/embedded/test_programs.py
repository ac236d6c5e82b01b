"""Where programs are found."""

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
    """A program of the system is used as it is, with the system's libraries."""
    own, brought = make_program(tmp_path / "usr/bin/mongod"), make_program(tmp_path / "engines/bin/mongod")
    monkeypatch.setattr(programs, "BROUGHT", brought.parent.parent)
    monkeypatch.setenv("PATH", str(own.parent))
    found = find_program("mongod")
    assert (str(own), tmp_path / "usr/share") == (found.path, found.share)
    assert "engines" not in found.environment.get("LD_LIBRARY_PATH", "")


def test_else_what_setup_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the libraries that came along."""
    brought = make_program(tmp_path / "engines/bin/mongod")
    (tmp_path / "engines/root/usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    monkeypatch.setattr(programs, "BROUGHT", brought.parent.parent)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    found = find_program("mongod")
    assert str(brought) == found.path
    assert found.environment["LD_LIBRARY_PATH"].endswith("root/usr/lib/x86_64-linux-gnu")


def test_else_an_error_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which program, where it was looked for, and the package that has it."""
    monkeypatch.setattr(programs, "BROUGHT", tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramError, match=rf"mongod is missing.*/nowhere.*{tmp_path}.*make setup.*mongodb-org"):
        find_program("mongod")


def test_a_database_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the server's environment a program gets what programs need, and nothing of settings or of others' keys."""
    make_program(tmp_path / "mongod")
    needed = {"PATH": str(tmp_path), "LC_ALL": "C.UTF-8", "TZ": "UTC", "TMPDIR": str(tmp_path)}
    secret = {"TANDEM_MYSQL": "mysql://u:pw@h/d", "AWS_SECRET_ACCESS_KEY": "x", "MYSQL_PWD": "x", "PATH_TO_KEY": "x"}
    for name, value in (needed | secret).items():
        monkeypatch.setenv(name, value)
    environment = find_program("mongod").environment
    assert needed.items() <= environment.items()
    assert not secret.keys() & environment.keys()
