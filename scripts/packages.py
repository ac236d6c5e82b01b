"""Download Debian packages and unpack them in the checkout, without root and without changes to the system.

It uses the standard library only, since set-up runs before anything is installed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


class SetupError(Exception):
    """Set-up failed. The text says what was tried, and what to do."""

    def __init__(self, what: str, hint: str, output: str = "") -> None:
        self.what, self.output = what, output
        super().__init__("\n".join(part for part in (what, output, hint) if part))


def run(command: list[str], hint: str, cwd: Path | None = None) -> str:
    """Run `command` and return its output. Raises SetupError with the end of the output and `hint` if it fails."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd
        )
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not installed.", hint) from None
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise SetupError(f"`{' '.join(command)}` ended with status {done.returncode}:", hint, tail)
    return done.stdout


class Packages:
    """Debian packages, with package lists and downloads in the directory `work`, which the caller removes.

    All methods raise SetupError with `hint`.
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
        """Return the packages that `name` depends on directly."""
        output = run(["apt-cache", *self._options, "depends", name], self._hint)
        needed = [line.split()[-1] for line in output.splitlines() if line.startswith("  Depends: ")]
        return [each for each in needed if not each.startswith("<")]  # virtual packages, which others provide

    def fetch(self, names: list[str]) -> None:
        """Download packages and their dependencies, without those that the system has already."""
        self._get("--download-only", "--no-install-recommends", "--no-upgrade", "install", *names)

    def fetch_alone(self, names: list[str]) -> None:
        """Download these packages without their dependencies."""
        self._get("download", *names)

    def unpack(self, root: Path) -> None:
        """Unpack the downloaded packages into `root`."""
        for package in sorted(self._archives.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(root)], self._hint)
