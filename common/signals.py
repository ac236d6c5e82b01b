"""Signals: SIGTERM and SIGINT end the server, SIGHUP reads the certificate again, SIGUSR1 and SIGUSR2 do nothing."""

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
    """Return an event that SIGTERM and SIGINT set. A second signal ends the process at once.

    From now on the running event loop heeds hang-ups as well, see `heed_hangups`.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        if told.is_set():
            os._exit(1)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, _until_terminal_is_lost(_ignore_hangup))
    return told


def heed_hangups() -> None:
    """Ignore SIGHUP, unless the process has lost its terminal: then treat it as SIGTERM.

    Service managers send SIGHUP to have settings read again. A terminal that is closed sends it to its processes, which
    would otherwise run on unseen and keep the port. Under `nohup` SIGHUP stays ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    heed = _until_terminal_is_lost(_ignore_hangup)
    signal.signal(signal.SIGHUP, lambda _number, _frame: heed())


def heed_nothing_else() -> None:
    """Ignore SIGUSR1 and SIGUSR2, which programs that rotate logs send.

    A handler does this, since a signal set to SIG_IGN would be ignored by the databases too, which react to it.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _frame: _log.info("signal_ignored", signal=signal.Signals(number).name))


def on_hangup(read_again: Callable[[], None], stack: AsyncExitStack) -> None:
    """Call `read_again` on the running event loop at SIGHUP. `stack` restores the previous handler.

    When the process has lost its terminal, SIGHUP is treated as SIGTERM, but not under `nohup`.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(
        signal.SIGHUP, read_again if before is signal.SIG_IGN else _until_terminal_is_lost(read_again)
    )

    def put_back() -> None:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)

    stack.callback(put_back)


def _ignore_hangup() -> None:
    _log.info("hangup_ignored", reason="without a certificate there is nothing to read again")


def _until_terminal_is_lost(action: Callable[[], None]) -> Callable[[], None]:
    """Return what SIGHUP does: `action`, or SIGTERM once the process has lost the terminal that it has now.

    Kernel and shell may both send a SIGHUP for one terminal. SIGTERM is raised once, for a second one would end the
    process without draining. While a loop runs, the loop has to call the function: uvloop may report a signal twice
    that is raised by the handler of another one.
    """
    had_terminal = _has_terminal()
    lost = False

    def on_signal() -> None:
        nonlocal lost
        if had_terminal and not _has_terminal():
            if not lost:
                lost = True
                signal.raise_signal(signal.SIGTERM)
        else:
            action()

    return on_signal


def _has_terminal() -> bool:
    """Return whether this process has a controlling terminal; see tty(4)."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
