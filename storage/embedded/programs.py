"""Find the databases' programs: on PATH, or in `.engines/`, where `make setup` installs them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

__all__ = ["Program", "ProgramError", "find_program"]

INSTALLED = Path(__file__).resolve().parents[2] / ".engines"
ASIDE = ("/usr/sbin", "/usr/libexec")  # directories of servers that users' PATHs lack: Debian's, Fedora's
PACKAGES = {
    "mongod": "mongodb-org-server, from MongoDB, version 6.0 or later",
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server",
}
# The variables that a database needs. Others hold passwords (TANDEM_MYSQL and so on), and the environment of a running
# process can be read in /proc.
PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|TZDIR|LANG|LANGUAGE|LC_[A-Z]+|LD_[A-Z_]+|GLIBC_TUNABLES|MALLOC_[A-Z_]+"
)


class ProgramError(Exception):
    """A program is missing. The text names it, the directories that were searched, and its package."""


class Program(NamedTuple):
    """A program, the environment in which to start it, and the `share` directory with its files."""

    path: str
    environment: dict[str, str]
    share: Path


def find_program(name: str) -> Program:
    """Find a database's program by its name. Raises ProgramError."""
    path = os.environ.get("PATH", os.defpath)
    environment = {variable: value for variable, value in os.environ.items() if PASSED_ON.fullmatch(variable)}
    found = shutil.which(name, path=os.pathsep.join([path, *ASIDE]))
    if found:
        return Program(found, environment, Path(found).resolve().parent.parent / "share")
    installed = INSTALLED / "bin" / name
    if installed.exists():
        libraries = [str(directory) for directory in (INSTALLED / "root/usr/lib").glob("*-linux-gnu")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return Program(str(installed), environment, INSTALLED / "root/usr/share")
    raise ProgramError(
        f"{name} is missing: it is neither on PATH ({path}) nor in {installed.parent}. "
        f"Run `make setup`, or install it (package {PACKAGES[name]})."
    )
