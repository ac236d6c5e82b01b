"""Open and hold thousands of sockets, at as little cost to the load generator as Python allows.

So these are plain sockets, without the clients of tests/support.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from functools import partial

from bench.alarm import Alarm, UnexpectedError
from bench.wire import GREETING, PING, PONG, client_frame

__all__ = ["hang_up", "hold", "open_all", "release"]

PATIENCE = 30.0  # seconds for an answer
UPGRADED = b"HTTP/1.1 101 "
MOST_READ = 4096  # bytes


def open_all(port: int, handshakes: Sequence[bytes], at_a_time: int) -> list[socket.socket]:
    """Open a socket with each handshake, so many at a time; return when all are greeted. Blocks.

    Raises UnexpectedError if one is refused.
    """
    opened: list[socket.socket] = []
    waiting: dict[int, tuple[socket.socket, bytes]] = {}
    left = iter(handshakes)
    with select.epoll() as epoll:

        def begin() -> None:
            if (request := next(left, None)) is not None:
                one = socket.socket()
                opened.append(one)
                one.settimeout(PATIENCE)
                one.connect(("127.0.0.1", port))
                one.send(request)
                one.setblocking(False)
                waiting[one.fileno()] = (one, b"")
                epoll.register(one.fileno(), select.EPOLLIN)

        try:
            for _ in range(at_a_time):
                begin()
            while waiting:
                if not (events := epoll.poll(PATIENCE)):
                    raise UnexpectedError(f"{len(waiting)} handshakes are not answered")
                for number, _ in events:
                    one, before = waiting[number]
                    data = one.recv(MOST_READ)
                    answer = before + data
                    if not data or not answer.startswith(UPGRADED[: len(answer)]):
                        raise UnexpectedError(f"not let in: {answer[:200]!r}")
                    if answer.endswith(GREETING):
                        epoll.unregister(number)
                        del waiting[number]
                        begin()
                    else:
                        waiting[number] = (one, answer)
        except BaseException as error:
            hang_up(opened)
            if isinstance(error, OSError):
                raise UnexpectedError(f"not let in: {error}") from None
            raise
    return opened


def hang_up(sockets: Sequence[socket.socket]) -> None:
    """Close the sockets."""
    for one in sockets:
        one.close()


def hold(sockets: Sequence[socket.socket], alarm: Alarm) -> None:
    """Let the running loop answer the server's pings on them; anything else rings the alarm."""
    loop = asyncio.get_running_loop()
    for one in sockets:
        loop.add_reader(one.fileno(), partial(_answer, one, alarm))


def release(sockets: Sequence[socket.socket]) -> None:
    """Close the held sockets."""
    loop = asyncio.get_running_loop()
    for one in sockets:
        loop.remove_reader(one.fileno())
    hang_up(sockets)


def _answer(one: socket.socket, alarm: Alarm) -> None:
    try:
        data = one.recv(MOST_READ)
    except OSError as error:
        data = str(error).encode()
    if len(data) < 2 or data[0] != PING or len(data) != 2 + data[1]:
        asyncio.get_running_loop().remove_reader(one.fileno())
        alarm.ring(UnexpectedError(f"an idle socket got {data!r}"))
    else:
        one.send(client_frame(data[2:], PONG))
