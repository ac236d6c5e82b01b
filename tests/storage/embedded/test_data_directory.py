"""Tests of the data directory: which server may use it, and where its sockets are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.embedded.data_directory import SOCKETS_FILE, DataDirectory, DataDirectoryError
from tests.support.processes import ROOT


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory with a short name."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as path:
        yield Path(path)


def test_sockets_are_in_the_directory_itself(base: Path) -> None:
    """Sockets are in the data directory if their paths are short and have only letters, digits and common signs."""
    directory = DataDirectory(base / "my chat+项目")
    directory.claim()
    assert directory.socket("mongod") == directory.path / "mongod.sock"
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.release()


ODD = ["x" * 120, "/".join(["deep"] * 40), "a,b", "a:b", "[::1]", "a%2fb", "a?b#c", "quo'te\"", "tab\t", "caf\udce9"]


@pytest.mark.parametrize("name", ODD)
def test_sockets_are_elsewhere_where_they_cannot_be_in_it(name: str, base: Path) -> None:
    """Other sockets are in a directory for this user only, which the data directory names and `release` removes."""
    directory = DataDirectory(base / name)
    directory.claim()
    sockets = directory.socket("mongod").parent
    assert len(os.fsencode(sockets / "mongod.sock")) <= 107
    assert (directory.path / SOCKETS_FILE).read_text() == str(sockets)
    assert (stat.S_IMODE(sockets.stat().st_mode), sockets.stat().st_uid) == (0o700, os.geteuid())
    (sockets / "mongod.sock").touch()
    directory.release()
    assert not sockets.exists()
    assert not (directory.path / SOCKETS_FILE).exists()


# Claims a data directory, says where its sockets are, and waits.
CLAIMING = """
import sys, threading
from pathlib import Path
from storage.embedded.data_directory import DataDirectory

directory = DataDirectory(Path(sys.argv[1]))
directory.claim()
print(directory.socket("mongod").parent, flush=True)
threading.Event().wait()
"""


def test_sockets_of_a_killed_server_are_removed(base: Path) -> None:
    """The next start removes the directory of a killed server's sockets, and no other directory."""
    path = base / ("x" * 120)
    with subprocess.Popen([sys.executable, "-c", CLAIMING, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as server:
        assert server.stdout
        left = Path(os.fsdecode(server.stdout.readline().rstrip()))
        server.kill()
    assert left.exists()
    again = DataDirectory(path)
    again.claim()
    assert not left.exists()
    assert again.socket("mongod").parent.exists()
    again.release()

    others = base / "others"
    others.mkdir()
    (others / "x.sock").touch()
    (path / SOCKETS_FILE).write_text(str(others))
    again.claim()
    assert (others / "x.sock").exists()
    again.release()


def test_without_a_short_directory_it_says_so(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any directory for the sockets, the error names the setting, and what to set instead."""
    monkeypatch.setattr("storage.embedded.data_directory._temporary", lambda: iter([base / ("y" * 120)]))
    directory = DataDirectory(base / "a,b")
    with pytest.raises(DataDirectoryError, match=r"--data-dir: sockets in .* TMPDIR"):
        directory.claim()
    directory.release()


@pytest.mark.parametrize("name", ["nul\0", "new\nline", "loop", "lone \ud800", "/".join(["x" * 200] * 3)])
def test_what_is_no_path_is_refused(name: str, base: Path) -> None:
    """An invalid path is refused in one line that names the setting, before a directory is created."""
    if name == "loop":
        (base / "loop").symlink_to(base / "loop")
    with pytest.raises(DataDirectoryError, match="--data-dir: ") as caught:
        DataDirectory(base / name).claim()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_has_planted_is_refused(base: Path) -> None:
    """A directory with files of another user is refused, so that these are not used as the server's data."""
    (base / "server.lock").touch()
    (base / "mysql").mkdir()
    os.chown(base / "mysql", 65534, -1)
    with pytest.raises(DataDirectoryError, match=rf"--data-dir: {base}/mysql belongs to another user"):
        DataDirectory(base).claim()
