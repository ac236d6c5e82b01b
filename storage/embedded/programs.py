"""Where the engines' programs are: on PATH, else among what `make setup` brought into `.engines/`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

__all__ = ["Program", "ProgramError", "find_program"]

BROUGHT = Path(__file__).resolve().parents[2] / ".engines"
ASIDE = ("/usr/sbin", "/usr/libexec")  # where servers are that users' PATHs lack: Debian's, Fedora's
PACKAGES = {
    "mongod": "mongodb-org-server, from MongoDB, version 6.0 or later",
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server",
}
# What a database needs of the server's environment. The rest holds passwords (TANDEM_MYSQL and others), and a process's
# environment can be read in /proc as long as it lives.
PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|TZDIR|LANG|LANGUAGE|LC_[A-Z]+|LD_[A-Z_]+|GLIBC_TUNABLES|MALLOC_[A-Z_]+"
)


class ProgramError(Exception):
    """A program is missing; the text names it, where it was looked for, and the package that has it."""


class Program(NamedTuple):
    """A program, the environment to start it in, and the `share` directory with its files."""

    path: str
    environment: dict[str, str]
    share: Path


def find_program(name: str) -> Program:
    """Finds an engine's program by name. Raises ProgramError."""
    path = os.environ.get("PATH", os.defpath)
    environment = {variable: value for variable, value in os.environ.items() if PASSED_ON.fullmatch(variable)}
    found = shutil.which(name, path=os.pathsep.join([path, *ASIDE]))
    if found:
        return Program(found, environment, Path(found).resolve().parent.parent / "share")
    brought = BROUGHT / "bin" / name
    if brought.exists():
        libraries = [str(directory) for directory in (BROUGHT / "root/usr/lib").glob("*-linux-gnu")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return Program(str(brought), environment, BROUGHT / "root/usr/share")
    raise ProgramError(
        f"{name} is missing: it is neither on PATH ({path}) nor in {brought.parent}. "
        f"Run `make setup`, or install it (package {PACKAGES[name]})."
    )
