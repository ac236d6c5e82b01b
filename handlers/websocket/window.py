"""How many requests a socket may have in flight."""

from __future__ import annotations

import asyncio

__all__ = ["Window"]


class Window:
    """The number of requests that a socket may have in flight.

    When it is reached, the socket is not read. It is read again when half of them are answered.
    """

    __slots__ = ("_capacity", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._capacity: asyncio.Future[None] | None = None  # set while the socket is not read

    @property
    def full(self) -> bool:
        """Whether the socket is not read."""
        return self._capacity is not None

    def wait_for_capacity(self, in_flight: int) -> asyncio.Future[None] | None:
        """Return None, or a future to await before the next request is read, if too many are in flight."""
        if in_flight >= self._size and self._capacity is None:
            self._capacity = asyncio.get_running_loop().create_future()
        return self._capacity

    def release(self, in_flight: int) -> None:
        """Note that a request was answered, and how many are in flight still."""
        if 2 * in_flight <= self._size:
            self.open()

    def open(self) -> None:
        """Let the socket be read again, however many requests are in flight."""
        if self._capacity is not None:
            if not self._capacity.done():
                self._capacity.set_result(None)
            self._capacity = None
