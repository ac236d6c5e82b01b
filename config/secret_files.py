"""Check that no other user can change a file that the settings name, or read a secret in it.

The rules are those of ssh:

- The file and its directory belong to this user or to root.
- No other user can write to the file, nor to a directory above it unless that has the sticky bit, which prevents
  replacing files.
- A file with a secret that belongs to this user cannot be read by others. If it belongs to root, its mode is root's
  decision.
- Permissions of the file do not matter if other users cannot enter a directory above it.

Pipes and devices are not checked. On a read-only file system modes are not checked: the modes of secrets that are
mounted into a container are chosen outside it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["UnsafeFileError", "require_safe"]


class UnsafeFileError(Exception):
    """Another user can change a file, or read the secret in it. The text says why, and what to do."""


def require_safe(path: Path, *, secret: bool) -> None:
    """Raise UnsafeFileError if other users can write a file, or read one with a `secret`.

    For a file that does not exist yet, only the directory is checked.
    """
    with suppress(OSError, RuntimeError, ValueError):  # for an invalid path, reading the file raises the right error
        real = path.resolve()
        for way in {path.absolute().parent.resolve() / path.name, real}:
            _check(way, real, secret=secret)


def _check(way: Path, real: Path, *, secret: bool) -> None:
    status = _status(real)
    if status is not None and not stat.S_ISREG(status.st_mode):
        return
    group, others = _reach(way)
    trusted = {0, os.geteuid()}
    link = way.lstat() if way.is_symlink() else None
    for each, found in ((way.parent, way.parent.stat()), (way, link), (real, status)):
        if found is not None and found.st_uid not in trusted:
            raise UnsafeFileError(f"{real}: {each} belongs to {_user(found.st_uid)}, who can change it; use chown")
    if status is None or os.statvfs(real).f_flag & os.ST_RDONLY:
        return
    if (others and status.st_mode & stat.S_IWOTH) or (group and _group_may(status, stat.S_IWGRP)):
        raise UnsafeFileError(f"{real}: others can write to it; run chmod go-w {real}")
    own = status.st_uid == os.geteuid()
    if secret and own and ((others and status.st_mode & stat.S_IROTH) or (group and _group_may(status, stat.S_IRGRP))):
        raise UnsafeFileError(f"{real}: others can read the secret in it; run chmod go= {real}")


def _reach(path: Path) -> tuple[bool, bool]:
    """Return whether the members of a group, and all other users, can enter the directory of `path`.

    Raises UnsafeFileError if they could replace a directory above it.
    """
    group = others = True
    for directory in reversed(path.parents):
        found = directory.stat()
        # A user who may write but not enter can replace nothing.
        enters_group, enters_others = group and _group_may(found, stat.S_IXGRP), others and found.st_mode & stat.S_IXOTH
        writes = (enters_group and found.st_mode & stat.S_IWGRP) or (enters_others and found.st_mode & stat.S_IWOTH)
        if writes and not found.st_mode & stat.S_ISVTX and not os.statvfs(directory).f_flag & os.ST_RDONLY:
            raise UnsafeFileError(
                f"{path}: others can write to {directory}, and so replace the file; run chmod go-w {directory}"
            )
        others = bool(enters_others)
        group = bool(enters_group or enters_others)
    return group, others


def _group_may(found: os.stat_result, bit: int) -> bool:
    """Return whether the group has this permission and has other members than this user."""
    return bool(found.st_mode & bit) and found.st_gid != 0 and not any(_own_groups(found.st_gid))


def _own_groups(gid: int) -> Iterator[bool]:
    """Yield True if the group is this user's private one. Debian and Fedora make such a group for each user."""
    with suppress(KeyError):
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
        yield gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
