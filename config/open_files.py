"""How many connections there may be where the system allows a process few open files."""

from __future__ import annotations

import msgspec

from config.settings import Limits

__all__ = ["SPARE_FILES", "TooFewFilesError", "fitting"]

SPARE_FILES = 200  # open files for everything but connections
HTTP_SHARE = 6  # of so many connections one is no socket, as in the defaults


class TooFewFilesError(Exception):
    """What was asked for cannot be had; the text names the settings, and the limit."""


def fitting(limits: Limits, files: int) -> tuple[Limits, str | None]:
    """The limits for a process that may open so many files, and a warning if they were lowered.

    Only defaults are lowered. Raises TooFewFilesError for a number that was asked for, or when nothing is left.
    """
    wanted = limits.max_connections + limits.max_http_connections
    room = files - SPARE_FILES
    if wanted <= room:
        return limits, None
    sockets, others = limits.max_connections, limits.max_http_connections
    default = Limits()
    by_default = (sockets == default.max_connections, others == default.max_http_connections)
    if by_default == (True, True):
        others = max(1, room // HTTP_SHARE)
        sockets = room - others
    elif by_default[0]:
        sockets = room - others
    elif by_default[1]:
        others = room - sockets
    if min(sockets, others) < 1 or sockets + others > room:
        raise TooFewFilesError(
            f"--max-connections and --max-http-connections: {wanted} connections need {wanted + SPARE_FILES} open "
            f"files, and this process may have {files} (ulimit -Hn)"
        )
    lowered = msgspec.structs.replace(limits, max_connections=sockets, max_http_connections=others)
    return lowered, (
        f"{sockets} sockets and {others} other connections at most, since this process may have {files} open files; "
        f"for the usual {wanted} raise the hard limit to {wanted + SPARE_FILES} (ulimit -Hn; LimitNOFILE= of systemd)"
    )
