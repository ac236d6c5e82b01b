"""Find out how much memory this process may use, which in a container is less than the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["usable_memory"]

# The directories of control groups and the files with their memory limits, in versions 2 and 1; see cgroups(7).
V2 = "sys/fs/cgroup"
V2_FILES: tuple[str, ...] = ("memory.max", "memory.high")
V1 = "sys/fs/cgroup/memory"
V1_FILES: tuple[str, ...] = ("memory.limit_in_bytes",)


def usable_memory(root: Path = Path("/")) -> int:
    """Return the machine's memory, or the lowest limit of this process's control groups, in bytes.

    `root` is the directory with `proc` and `sys`.
    """
    return min([psutil.virtual_memory().total, *_bounds(root)])


def _bounds(root: Path) -> Iterator[int]:
    for directory, files in _groups(root):
        for name in files:
            # "max" means that there is no limit; version 1 has a huge number instead. Unreadable files are skipped.
            with suppress(OSError, ValueError):
                yield int((directory / name).read_text("ascii"))


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the control groups of this process and those above them, whose limits apply as well."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0":
                top, files = root / V2, V2_FILES
            elif "memory" in controllers.split(","):
                top, files = root / V1, V1_FILES
            else:
                continue
            # In a container the group may have its name from outside. Its own limits are then at the top.
            parts = Path(group).parts[1:] if ".." not in group else ()
            for count in range(len(parts) + 1):
                yield top.joinpath(*parts[:count]), files
