"""The limits of one socket, and of all together."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SocketLimits"]


class SocketLimits(NamedTuple):
    """The bounds of a socket; docs and defaults are in config/settings.py."""

    frames: str
    max_connections: int
    max_user_connections: int
    max_address_connections: int
    window: int
    max_frame: int
    max_content: int
    malformed_frames: int
    write_buffer: int
    ping_interval: float
    ping_timeout: float
    stall_timeout: float
    answer_timeout: float
