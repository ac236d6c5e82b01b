"""Accepting the connections of a listening socket, with a pause while the system has no file descriptor left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import structlog

__all__ = ["Acceptor"]

PAUSE = 1.0  # seconds; the clients wait in the queue of the listening socket meanwhile
AT_ONCE = 128  # connections that are accepted before the event loop runs other callbacks
QUIET = 60.0  # seconds between two log lines about the same thing

_log = structlog.get_logger(__name__)


class Acceptor:
    """Call `take` with each connection and its peer's address, from now on until `stop`.

    Tornado's own accept handler raises if there is no descriptor left, and is then called again at once, without end.
    """

    def __init__(self, listening: socket.socket, take: Callable[[socket.socket, Any], None]) -> None:
        self._listening = listening
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None  # set during a pause
        self._failing = False
        self._logged = -QUIET  # when a failure was logged last (loop time)
        self._stopped = False
        self._loop.add_reader(listening, self._accept)

    def stop(self) -> None:
        """Accept no more connections."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()
        else:
            self._loop.remove_reader(self._listening)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._stopped:
                return
            try:
                connection, address = self._listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # the client has given up
                continue
            except OSError as error:
                self._pause(error)
                return
            if self._failing:
                self._failing = False
                _log.info("accept_resumed")
            self._take(connection, address)

    def _pause(self, error: OSError) -> None:
        now = self._loop.time()
        if now - self._logged >= QUIET:
            self._logged, self._failing = now, True
            _log.error("accept_paused", reason=error.strerror, again_after=PAUSE)
        self._loop.remove_reader(self._listening)
        self._waiting = self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._waiting = None
        self._loop.add_reader(self._listening, self._accept)
