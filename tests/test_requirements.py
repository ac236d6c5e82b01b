"""Tests that set-up installs exact versions, each with its digests, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import ROOT

FILES = sorted(ROOT.glob("requirements*.txt"))
PIN = re.compile(r"[a-z0-9-]+(\[[a-z]+\])?==[0-9][0-9a-z.]*( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_version_has_its_digests(file: Path) -> None:
    """Each pinned version has digests, since pip installs nothing if one lacks them."""
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith(("#", "-r ")))
    assert PIN.sub("", text) == ""


def test_set_up_installs_nothing_without_a_digest() -> None:
    """Each call of pip requires digests and wheels, so that no package runs code when it is installed."""
    makefile = (ROOT / "Makefile").read_text()
    (install,) = [line for line in makefile.splitlines() if " install " in line and "$(PIP)" in line]
    assert "--require-hashes --only-binary=:all:" in install
    script = (ROOT / "scripts/setup_databases.py").read_text()
    assert script.count('"pip"') == script.count('"--require-hashes"') == 1


def test_every_package_of_npm_has_its_digest() -> None:
    """`make hashes` writes them; package.json names exact versions, and no address is fixed."""
    declared = json.loads((ROOT / "package.json").read_text())
    lock = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    root = lock.pop("")
    assert root["devDependencies"] == declared["devDependencies"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in declared["devDependencies"]} == declared[
        "devDependencies"
    ]
    for name, package in lock.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_npm_runs_nothing_of_a_package() -> None:
    """Set-up installs just what the lock file names, and no package's scripts run."""
    (install,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "$(NPM) ci" in line]
    assert "--ignore-scripts" in install
    assert "ignore-scripts=true" in (ROOT / ".npmrc").read_text().splitlines()


def test_mongod_is_there_for_two_processors() -> None:
    """The wheel with mongod has digests for x86-64 and aarch64."""
    assert (ROOT / "requirements-mongod.txt").read_text().count("--hash=") == 2


def test_a_changed_package_is_refused(tmp_path: Path) -> None:
    """A file with another digest is not installed."""
    wheel = tmp_path / "tornado-6.6.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tornado/__init__.py", "raise SystemExit('run')")
        archive.writestr("tornado-6.6.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tornado\nVersion: 6.6.1\n")
        archive.writestr("tornado-6.6.1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tornado-6.6.1.dist-info/RECORD", "")
    pins = (ROOT / "requirements.txt").read_text()
    tornado = re.search(r"^tornado==.*?(?=^\S)", pins, re.MULTILINE | re.DOTALL)
    assert tornado
    (tmp_path / "requirements.txt").write_text(re.sub("==[0-9.]+", "==6.6.1", tornado[0]))
    options = ["--no-index", "--find-links", str(tmp_path), "--no-deps", "--target", str(tmp_path / "to")]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, "-r", str(tmp_path / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, "DO NOT MATCH THE HASHES" in done.stderr) == (True, True)
