"""How much memory this process may use: the machine's, or less in a container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["usable_memory"]

# Where control groups are, and the files with their bounds: cgroups(7), version 2, and version 1.
V2 = "sys/fs/cgroup"
V2_FILES: tuple[str, ...] = ("memory.max", "memory.high")
V1 = "sys/fs/cgroup/memory"
V1_FILES: tuple[str, ...] = ("memory.limit_in_bytes",)


def usable_memory(root: Path = Path("/")) -> int:
    """The machine's memory, or the least bound of a control group that this process is in; bytes.

    `root` is where /proc and /sys are.
    """
    return min([psutil.virtual_memory().total, *_bounds(root)])


def _bounds(root: Path) -> Iterator[int]:
    for directory, files in _groups(root):
        for name in files:
            # "max" is no bound, and what cannot be read is none. Version 1 has a huge number in its place.
            with suppress(OSError, ValueError):
                yield int((directory / name).read_text("ascii"))


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The control groups of this process, each with those above it: their bounds hold as well."""
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0":
                top, files = root / V2, V2_FILES
            elif "memory" in controllers.split(","):
                top, files = root / V1, V1_FILES
            else:
                continue
            # In a container the group may be named as outside, where its own bounds are at the top.
            parts = Path(group).parts[1:] if ".." not in group else ()
            for count in range(len(parts) + 1):
                yield top.joinpath(*parts[:count]), files
