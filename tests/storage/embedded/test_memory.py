"""Tests of the usable memory: the machine's, and limits of control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from storage.embedded.memory import usable_memory

GB = 2**30


def lay(root: Path, files: dict[str, str]) -> Path:
    """Write files below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.high": str(GB)},
        {
            "proc/self/cgroup": "0::/system.slice/tandem.service\n",
            "sys/fs/cgroup/system.slice/tandem.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{GB}\n",
        },
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:hugetlb,memory:/docker/0123\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GB}\n",
        },
        {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/memory.max": f"{GB}\n"},
    ],
)
def test_a_bound_of_a_control_group_is_what_there_is(files: dict[str, str], tmp_path: Path) -> None:
    """The lowest limit of the control group and those above it applies, in versions 2 and 1."""
    assert usable_memory(lay(tmp_path, files)) == GB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/memory.max": "1"},
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
    ],
)
def test_without_a_bound_it_is_the_machine(files: dict[str, str], tmp_path: Path) -> None:
    """Without a readable limit, the usable memory is the machine's."""
    assert usable_memory(lay(tmp_path, files)) == psutil.virtual_memory().total
