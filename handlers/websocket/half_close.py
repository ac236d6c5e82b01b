"""A connection whose sending half is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

__all__ = ["HalfClosed"]

CHUNK = 65_536  # bytes of one read


class HalfClosed:
    """Close the sending half of a socket, and drop what arrives until the peer closes its half. Then call `on_end`.

    A socket that is closed with unread bytes is reset, which can take away from the peer what it was told last.
    """

    __slots__ = ("_on_end", "_socket")

    def __init__(self, taken: socket.socket, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._socket = socket.socket(fileno=taken.detach())  # under TLS, the bytes are dropped as they are
        with suppress(OSError):  # the peer has reset the connection: reading says so
            self._socket.shutdown(socket.SHUT_WR)
        asyncio.get_running_loop().add_reader(self._socket, self._drop)

    @property
    def socket(self) -> socket.socket:
        """The operating system's socket."""
        return self._socket

    def close(self) -> None:
        """Close the other half too. `on_end` is called in the next turn of the loop, once."""
        if self._socket.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            self._socket.close()
            loop.call_soon(self._on_end)

    def _drop(self) -> None:
        try:
            if self._socket.recv(CHUNK):
                return
        except BlockingIOError:
            return
        except OSError:  # the peer has reset the connection
            pass
        self.close()
