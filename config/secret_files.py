"""Whether a file that settings name can be trusted: no other user may have written it, nor read a secret in it.

The rules are ssh's. The file, and the directory that it is in, belong to this user or to root. No other user can
write to it, nor to a directory on the way to it, where the sticky bit does not keep them from replacing things. A
secret of this user's own cannot be read by others; one that root has put there is root's to guard. What others cannot
reach, since a directory above lets them not in, is neither written nor read by them.

Not looked at are pipes and devices, and the modes of what lies on a read-only file system: those of secrets that a
container is given are chosen by who mounts them.
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
    """A file cannot be believed, or its secret is none; the text says why, and what to do."""


def require_safe(path: Path, *, secret: bool) -> None:
    """Raise UnsafeFileError for a file that others can write, or can read where it holds a secret.

    A file that is not there may be made: then the directory alone is looked at.
    """
    with suppress(OSError, RuntimeError, ValueError):  # reading the file tells what is wrong with the path
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
            raise UnsafeFileError(f"{real}: {each} belongs to {_user(found.st_uid)}, who can change it; see chown")
    if status is None or os.statvfs(real).f_flag & os.ST_RDONLY:
        return
    if (others and status.st_mode & stat.S_IWOTH) or (group and _group_may(status, stat.S_IWGRP)):
        raise UnsafeFileError(f"{real}: others can write to it; chmod go-w {real}")
    own = status.st_uid == os.geteuid()
    if secret and own and ((others and status.st_mode & stat.S_IROTH) or (group and _group_may(status, stat.S_IRGRP))):
        raise UnsafeFileError(f"{real}: others can read the secret in it; chmod go= {real}")


def _reach(path: Path) -> tuple[bool, bool]:
    """Whether members of other groups, and all others, get to what is in the directory of `path`.

    Raises UnsafeFileError where they could replace what is on the way.
    """
    group = others = True
    for directory in reversed(path.parents):
        found = directory.stat()
        # A user who may write but not enter can replace nothing.
        enters_group, enters_others = group and _group_may(found, stat.S_IXGRP), others and found.st_mode & stat.S_IXOTH
        writes = (enters_group and found.st_mode & stat.S_IWGRP) or (enters_others and found.st_mode & stat.S_IWOTH)
        if writes and not found.st_mode & stat.S_ISVTX and not os.statvfs(directory).f_flag & os.ST_RDONLY:
            raise UnsafeFileError(f"{path}: others can write to {directory}, and so replace it; chmod go-w {directory}")
        others = bool(enters_others)
        group = bool(enters_group or enters_others)
    return group, others


def _group_may(found: os.stat_result, bit: int) -> bool:
    """Whether a bit for the group gives something to another user: not where the group is one user's own."""
    return bool(found.st_mode & bit) and found.st_gid != 0 and not any(_own_groups(found.st_gid))


def _own_groups(gid: int) -> Iterator[bool]:
    """Yields True if the group is this user's private one, as Debian and Fedora make one for each user."""
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
