"""Debian packages below the checkout: downloaded and unpacked, without root and without touching the system.

Standard library alone, as all that set-up runs before anything is installed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


class SetupError(Exception):
    """Set-up cannot go on; the text says what was tried and what to do."""

    def __init__(self, what: str, hint: str, output: str = "") -> None:
        self.what, self.output = what, output
        super().__init__("\n".join(part for part in (what, output, hint) if part))


def run(command: list[str], hint: str, cwd: Path | None = None) -> str:
    """Runs `command` quietly and returns its output, which is shown when it fails: SetupError, with `hint`."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd
        )
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not on this machine.", hint) from None
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise SetupError(f"`{' '.join(command)}` ended with {done.returncode}:", hint, tail)
    return done.stdout


class Packages:
    """Debian packages, with lists and downloads of their own in `work`, which is the caller's to remove.

    All methods raise SetupError, with `hint`.
    """

    def __init__(self, work: Path, hint: str) -> None:
        self._archives = work / "cache/archives"
        self._hint = hint
        self._options = [
            "-o", f"Dir::State::lists={work}/lists",
            "-o", f"Dir::Cache={work}/cache",
            "-o", "Debug::NoLocking=true",
            "-o", "APT::Sandbox::User=",
        ]  # fmt: skip
        (work / "lists/partial").mkdir(parents=True)
        (self._archives / "partial").mkdir(parents=True)
        self._get("update")

    def _get(self, *arguments: str) -> None:
        run(["apt-get", "-qq", "-y", *self._options, *arguments], self._hint, self._archives)

    def needed_by(self, name: str) -> list[str]:
        """The packages that `name` itself depends on."""
        output = run(["apt-cache", *self._options, "depends", name], self._hint)
        needed = [line.split()[-1] for line in output.splitlines() if line.startswith("  Depends: ")]
        return [each for each in needed if not each.startswith("<")]  # a virtual package, which others provide

    def fetch(self, names: list[str]) -> None:
        """Downloads packages with those that they need; all that the system has already is left out."""
        self._get("--download-only", "--no-install-recommends", "--no-upgrade", "install", *names)

    def fetch_alone(self, names: list[str]) -> None:
        """Downloads just these packages."""
        self._get("download", *names)

    def unpack(self, root: Path) -> None:
        """Unpacks into `root` what was downloaded."""
        for package in sorted(self._archives.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(root)], self._hint)
