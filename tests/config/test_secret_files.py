"""Whether a file may be believed: owners and modes, on the whole way to it."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from config.secret_files import UnsafeFileError, require_safe

NOBODY = 65534
MODE, UID, GID = 0, 4, 5  # in os.stat_result


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that others can enter, as are those above it."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    return directory


Foreign = set[Path]


@pytest.fixture
def foreign() -> Foreign:
    """The files and directories whose group is one that others are in: only root can give that to them really."""
    return set()


@pytest.fixture
def file(place: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A secret of this user's own, where nobody else can write."""
    path = place / "keys.json"
    path.write_text("secret")
    path.chmod(0o600)
    stat = Path.stat

    def as_if(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = list(stat(self, follow_symlinks=follow_symlinks))
        if self in place.parents:  # directories of the test run's, which others cannot enter
            found[MODE], found[UID], found[GID] = 0o40755, 0, 0
        elif self in foreign:
            found[GID] = NOBODY
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", as_if)
    return path


def test_a_file_of_ones_own_is_safe(file: Path) -> None:
    """Also by a link, and where it does not exist yet."""
    require_safe(file, secret=True)
    link = file.with_name("link")
    link.symlink_to(file)
    require_safe(link, secret=True)
    require_safe(file.with_name("new"), secret=True)
    require_safe(Path("/dev/null"), secret=True)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read(file: Path, foreign: Foreign, mode: int) -> None:
    """It is refused, and what is no secret is not."""
    file.chmod(mode)
    foreign.add(file)
    with pytest.raises(UnsafeFileError, match=rf"^{file}: others can read .* chmod go= {file}$"):
        require_safe(file, secret=True)
    require_safe(file, secret=False)


@pytest.mark.parametrize("mode", [0o606, 0o660, 0o602])
def test_a_file_that_others_can_write(file: Path, foreign: Foreign, mode: int) -> None:
    """It is refused, secret or not: a key that somebody else has put there lets them in."""
    file.chmod(mode)
    foreign.add(file)
    with pytest.raises(UnsafeFileError, match=r"others can write to it; chmod go-w"):
        require_safe(file, secret=False)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_directory_that_others_can_write(file: Path, foreign: Foreign, mode: int) -> None:
    """They can replace the file, or plant one; a sticky bit keeps them from it, and an owner tells what is planted."""
    foreign.add(file.parent)
    file.parent.chmod(mode)
    for path in (file, file.with_name("new")):
        with pytest.raises(UnsafeFileError, match=rf"others can write to {file.parent}, and so replace it"):
            require_safe(path, secret=False)
    file.parent.chmod(mode | 0o1000)
    require_safe(file, secret=True)


def test_a_link_in_a_directory_that_others_can_write(file: Path, place: Path) -> None:
    """What it leads to may be safe, but it can be made to lead elsewhere."""
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "link").symlink_to(file)
    with pytest.raises(UnsafeFileError, match=rf"others can write to {open_to_all}"):
        require_safe(open_to_all / "link", secret=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user(file: Path) -> None:
    """That user can change it, and so can the owner of its directory."""
    os.chown(file, NOBODY, -1)
    with pytest.raises(UnsafeFileError, match=rf"{file} belongs to .*, who can change it"):
        require_safe(file, secret=False)
    os.chown(file, 0, -1)
    os.chown(file.parent, NOBODY, -1)
    with pytest.raises(UnsafeFileError, match=rf"{file.parent} belongs to "):
        require_safe(file, secret=False)


def test_what_others_cannot_reach(file: Path) -> None:
    """Behind a directory that lets nobody in, modes are nobody's concern."""
    file.chmod(0o666)
    file.parent.chmod(0o700)
    require_safe(file, secret=True)


def test_a_group_of_ones_own(file: Path, foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that only this user is in gives others nothing."""
    foreign.add(file)
    file.chmod(0o660)
    user = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(
        pwd, "getpwuid", lambda uid: pwd.struct_passwd((user.pw_name, "x", uid, NOBODY, "", "/", "/bin/sh"))
    )
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, [])))
    require_safe(file, secret=True)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, ["mallory"])))
    with pytest.raises(UnsafeFileError):
        require_safe(file, secret=True)
