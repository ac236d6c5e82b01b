"""Tests of the checks of a file's owner and mode, and of those of the directories above it."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from config.secret_files import UnsafeFileError, require_safe

OTHER_USER = 65534
MODE, UID, GID = 0, 4, 5  # in os.stat_result


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A directory that other users can enter, as they can all directories above it."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


Foreign = set[Path]


@pytest.fixture
def foreign() -> Foreign:
    """The files and directories that are shown with a group of other users. Only root could change their group."""
    return set()


@pytest.fixture
def file(etc: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a secret of this user, in a directory that other users cannot write to."""
    path = etc / "keys.json"
    path.write_text("secret")
    path.chmod(0o600)
    stat = Path.stat

    def as_if(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = list(stat(self, follow_symlinks=follow_symlinks))
        if self in etc.parents:  # the test run's directories, which other users cannot enter
            found[MODE], found[UID], found[GID] = 0o40755, 0, 0
        elif self in foreign:
            found[GID] = OTHER_USER
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", as_if)
    return path


def test_a_file_of_ones_own_is_safe(file: Path) -> None:
    """A user's own file is safe, also by a link or before it exists, and a device is not checked."""
    require_safe(file, secret=True)
    link = file.with_name("link")
    link.symlink_to(file)
    require_safe(link, secret=True)
    require_safe(file.with_name("new"), secret=True)
    require_safe(Path("/dev/null"), secret=True)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read(file: Path, foreign: Foreign, mode: int) -> None:
    """A file that others can read is refused if it holds a secret, and accepted if not."""
    file.chmod(mode)
    foreign.add(file)
    with pytest.raises(UnsafeFileError, match=rf"^{file}: others can read .*; run chmod go= {file}$"):
        require_safe(file, secret=True)
    require_safe(file, secret=False)


@pytest.mark.parametrize("mode", [0o606, 0o660, 0o602])
def test_a_file_that_others_can_write(file: Path, foreign: Foreign, mode: int) -> None:
    """A file that others can write is refused, with a secret or not: a key in it could be another user's."""
    file.chmod(mode)
    foreign.add(file)
    with pytest.raises(UnsafeFileError, match=r"others can write to it; run chmod go-w"):
        require_safe(file, secret=False)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_directory_that_others_can_write(file: Path, foreign: Foreign, mode: int) -> None:
    """A file is refused where others could replace or create it. With a sticky bit they cannot replace it."""
    foreign.add(file.parent)
    file.parent.chmod(mode)
    for path in (file, file.with_name("new")):
        with pytest.raises(UnsafeFileError, match=rf"others can write to {file.parent}, and so replace the file"):
            require_safe(path, secret=False)
    file.parent.chmod(mode | 0o1000)
    require_safe(file, secret=True)


def test_a_link_in_a_directory_that_others_can_write(file: Path, etc: Path) -> None:
    """A link to a safe file is refused where others could replace the link."""
    open_to_all = etc / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "link").symlink_to(file)
    with pytest.raises(UnsafeFileError, match=rf"others can write to {open_to_all}"):
        require_safe(open_to_all / "link", secret=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user(file: Path) -> None:
    """A file is refused if it or its directory belongs to another user, who could change it."""
    os.chown(file, OTHER_USER, -1)
    with pytest.raises(UnsafeFileError, match=rf"{file} belongs to .*, who can change it"):
        require_safe(file, secret=False)
    os.chown(file, 0, -1)
    os.chown(file.parent, OTHER_USER, -1)
    with pytest.raises(UnsafeFileError, match=rf"{file.parent} belongs to "):
        require_safe(file, secret=False)


def test_what_others_cannot_reach(file: Path) -> None:
    """A file's mode does not matter in a directory that others cannot enter."""
    file.chmod(0o666)
    file.parent.chmod(0o700)
    require_safe(file, secret=True)


def test_a_group_of_ones_own(file: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions of a group are accepted if this user is its only member."""
    foreign.add(file)
    file.chmod(0o660)
    user = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: pwd.struct_passwd((user.pw_name, "x", uid, OTHER_USER, "", "/", "/bin/sh"))
    )
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, [])))
    require_safe(file, secret=True)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, ["mallory"])))
    with pytest.raises(UnsafeFileError):
        require_safe(file, secret=True)
