"""Real deadlines of the tests, all in one file.

A deadline here only ends a test that hangs. Each is many times what a busy machine needs, and no test waits until one
passes. A test about a deadline gives the server a short one itself.
"""

from __future__ import annotations

from handlers.websocket.handler import ChatSocket

__all__ = ["PATIENCE", "PATIENT", "TEST_TIME", "answer_within"]

PATIENCE = 60.0  # seconds after which an awaited event counts as missing
TEST_TIME = 280.0  # seconds for a coroutine test; pyproject.toml has the bound for all tests, just above it
# The server's own deadlines, longer than their defaults, which a busy machine would miss.
PATIENT = (
    f"--answer-timeout={PATIENCE}",
    f"--engine-timeout={PATIENCE}",
    f"--handshake-timeout={PATIENCE}",
    f"--password-timeout={PATIENCE}",
    f"--ping-timeout={PATIENCE}",
    f"--start-timeout={PATIENCE}",
)


def answer_within(seconds: float) -> None:
    """Give the open sockets of this process's server so many seconds for each answer from now on.

    So a test can shorten a deadline only for the step in which it has to pass.
    """
    for socket in ChatSocket.hub.sockets_of(ChatSocket.hub.users()):
        if socket.session is not None:
            socket.session.timeout = seconds
