"""What signals do: SIGTERM and SIGINT end the server, SIGHUP reads the certificate again, others do nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

__all__ = ["ending", "heed_hangups", "heed_nothing_else", "on_hangup"]

_log = structlog.get_logger(__name__)


def ending() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; the second signal ends the process at once."""
    told = asyncio.Event()

    def on_signal() -> None:
        if told.is_set():
            os._exit(1)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return told


def heed_hangups() -> None:
    """Let SIGHUP end the process no longer, but as SIGTERM does when its terminal is gone.

    Service managers send it to have settings read again, and a terminal that is closed sends it to what runs there:
    that would run on unseen, and keep the port. `nohup` has it ignored, and so it stays.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    had_terminal = _has_terminal()

    def on_signal(_number: int, _frame: object) -> None:
        if had_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
        else:
            _log.info("hangup_ignored", reason="without a certificate there is nothing to read again")

    signal.signal(signal.SIGHUP, on_signal)


def heed_nothing_else() -> None:
    """Let SIGUSR1 and SIGUSR2, which programs that rotate logs send, end the process no longer.

    They get a handler, since what is ignored would be ignored by the databases as well, for which they mean something.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: _log.info("signal_ignored", signal=signal.Signals(number).name))


def on_hangup(read_again: Callable[[], None], stack: AsyncExitStack) -> None:
    """Have SIGHUP call `read_again` on the running event loop; `stack` puts back what was before."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, read_again)

    def put_back() -> None:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)

    stack.callback(put_back)


def _has_terminal() -> bool:
    """Whether there is a terminal that this process belongs to; tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
