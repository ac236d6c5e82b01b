"""Lower the limits on connections where the system allows a process few open files."""

from __future__ import annotations

import msgspec

from config.settings import Limits

__all__ = ["SPARE_FILES", "TooFewFilesError", "fitting"]

SPARE_FILES = 200  # open files besides those of connections
HTTP_SHARE = 6  # one connection in six is not a WebSocket, as in the defaults


class TooFewFilesError(Exception):
    """The configured connections need more open files than are allowed. The text names the settings and the limit."""


def fitting(limits: Limits, files: int) -> tuple[Limits, str | None]:
    """Return the limits for a process that may open `files` files, and a warning if they were lowered.

    Only defaults are lowered. Raises TooFewFilesError if configured limits do not fit, or if nothing is left.
    """
    wanted = limits.max_connections + limits.max_http_connections
    capacity = files - SPARE_FILES
    if wanted <= capacity:
        return limits, None
    sockets, others = limits.max_connections, limits.max_http_connections
    default = Limits()
    by_default = (sockets == default.max_connections, others == default.max_http_connections)
    if by_default == (True, True):
        others = max(1, capacity // HTTP_SHARE)
        sockets = capacity - others
    elif by_default[0]:
        sockets = capacity - others
    elif by_default[1]:
        others = capacity - sockets
    if min(sockets, others) < 1 or sockets + others > capacity:
        raise TooFewFilesError(
            f"--max-connections and --max-http-connections: {wanted} connections need {wanted + SPARE_FILES} open "
            f"files, but this process may have only {files} (ulimit -Hn)"
        )
    lowered = msgspec.structs.replace(limits, max_connections=sockets, max_http_connections=others)
    return lowered, (
        f"limited to {sockets} sockets and {others} other connections, since this process may have {files} open files; "
        f"for {wanted} connections, raise the hard limit to {wanted + SPARE_FILES} (ulimit -Hn; systemd: LimitNOFILE=)"
    )
