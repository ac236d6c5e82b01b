"""The load generator: users who chat in pairs, at full speed or at a fixed rate."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Sequence
from time import perf_counter
from typing import TypeVar

from bench.alarm import Alarm, UnexpectedError
from bench.protocol_v2 import NumberedSocket
from bench.sockets import Connection, PlainSocket, Talker
from bench.wire import ACKNOWLEDGED_OFFLINE, Stream

__all__ = ["Pair", "connect", "open_pairs", "run_at", "run_flat_out", "settle", "sockets_of"]

OPENING = 150  # pairs that are opened at a time
PATIENCE = 60.0  # seconds without any progress after which missing messages count as lost
TICK = 0.001  # seconds between two checks whose turn it is to send
LOOK_EVERY = 0.005  # seconds between two checks whether everything has arrived

C = TypeVar("C", bound=Connection)


class Pair:
    """Two users, each with a socket. The first one writes; the second one may be offline."""

    def __init__(self, one: int, two: int) -> None:
        self.users = (one, two)
        self.sockets: list[Talker] = []

    @property
    def writer(self) -> Talker:
        """The first user's socket."""
        return self.sockets[0]

    @property
    def reader(self) -> Talker:
        """The second user's."""
        return self.sockets[1]

    async def open(self, port: int, alarm: Alarm, *, version: int = 1, tls: ssl.SSLContext | None = None) -> None:
        """Connect both users, and let each write once, which opens the limit rule. Raises UnexpectedError."""
        one, two = self.users
        there, back = f"/ws?uid={one}&toUid={two}", f"/ws?uid={two}&toUid={one}"
        first: Talker
        second: Talker
        if version == 2:
            first, second = (NumberedSocket(f"{path}&v=2", alarm) for path in (there, back))
        else:
            onward, backward = Stream(one), Stream(two)
            first, second = PlainSocket(there, alarm, onward, backward), PlainSocket(back, alarm, backward, onward)
        first.peer, second.peer = second, first
        self.sockets = [await connect(port, first, tls), await connect(port, second, tls)]
        for socket in self.sockets:
            socket.send_now(1, perf_counter())
            await settle([socket])

    def leave(self) -> None:
        """Close the second user's socket. Once the server has noticed, call `offline`."""
        self.reader.close()
        self.writer.peer = None

    def offline(self) -> None:
        """From now on expect answers that say that the second user is offline. For protocol v1."""
        if isinstance(self.writer, PlainSocket):
            self.writer.expect(ACKNOWLEDGED_OFFLINE)

    def close(self) -> None:
        """Close both sockets."""
        for socket in self.sockets:
            if not socket.closing:
                socket.close()


async def connect(port: int, socket: C, tls: ssl.SSLContext | None = None) -> C:
    """Open a socket; return when it is greeted. Raises UnexpectedError."""
    await asyncio.get_running_loop().create_connection(lambda: socket, "127.0.0.1", port, ssl=tls)
    await socket.opened
    return socket


async def open_pairs(
    port: int, users: Sequence[int], alarm: Alarm, *, version: int = 1, tls: ssl.SSLContext | None = None
) -> list[Pair]:
    """Make a pair of each two users, connected and free to write. Raises UnexpectedError."""
    pairs = [Pair(one, two) for one, two in zip(users[::2], users[1::2], strict=True)]
    for at in range(0, len(pairs), OPENING):
        await asyncio.gather(*(pair.open(port, alarm, version=version, tls=tls) for pair in pairs[at : at + OPENING]))
    return pairs


def sockets_of(pairs: Sequence[Pair]) -> list[Talker]:
    """Return the open sockets of pairs."""
    return [socket for pair in pairs for socket in pair.sockets if not socket.closing]


async def settle(sockets: Sequence[Talker], patience: float = PATIENCE) -> None:
    """Wait until everything is acknowledged and has arrived.

    Raises UnexpectedError if nothing has come for `patience` seconds.
    """
    before, since = -1, perf_counter()
    while left := sum(socket.unacknowledged.count + socket.undelivered.count for socket in sockets):
        if left != before:
            before, since = left, perf_counter()
        elif perf_counter() - since > patience:
            raise UnexpectedError(f"lost: {left} acknowledgements or messages have not come for {patience:g} s")
        await asyncio.sleep(LOOK_EVERY if len(sockets) > 1 else TICK)


async def run_flat_out(writers: Sequence[Talker], window: int, until: float) -> None:
    """Let each writer keep `window` messages in flight until a time."""
    for writer in writers:
        writer.window = window
        writer.send_now(window, perf_counter())
    await asyncio.sleep(until - perf_counter())
    for writer in writers:
        writer.window = 0


async def run_at(writers: Sequence[Talker], rate: float, until: float) -> None:
    """Let the writers together send `rate` messages a second until a time, in turns and evenly."""
    writers = random.Random(1).sample(writers, len(writers))  # noqa: S311  # an order, not a secret
    begun, number = perf_counter(), 0
    while (now := perf_counter()) < until:
        due: dict[int, list[float]] = {}
        while (intended := begun + number / rate) <= now:
            due.setdefault(number % len(writers), []).append(intended)
            number += 1
        for index, times in due.items():
            writers[index].send(times)
        await asyncio.sleep(TICK)
