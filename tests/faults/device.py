"""A client that loses nothing, as docs/protocol.md describes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketClosedError

from common.tasks import end
from tests.support.sockets import Client2, socket_path, websocket

__all__ = ["Acknowledged", "Device", "Received"]

WINDOW = 8  # the maximum of unacknowledged messages
POSITIONS = 40  # requested at once by a device in haste
POSITION = "position"
ACKNOWLEDGED, REFUSED, MESSAGE = (50004, 50005), 50006, 50001


class Acknowledged(NamedTuple):
    """The server's acknowledgement of a message."""

    peer: int
    content: str
    seq: int
    time: int


class Received(NamedTuple):
    """A message as the device received it, live or in a replay."""

    seq: int
    sender: int
    content: str
    id: str
    connection: int  # the device's first, second …
    replayed: bool


class Device:
    """One device of a user: on a pair socket with its only peer, or on an inbox socket with all of them.

    It sends about `rate` messages a second until `fall_silent`, to the server at `port`. `gives_up` says that it does
    not resend messages that the limit rule refused. A `hasty` device requests many positions as soon as it is
    connected, before it resumes, as a page does whose tabs all reconnect at once.
    """

    def __init__(
        self,
        name: str,
        user: int,
        peers: list[int],
        *,
        port: Callable[[], int],
        seed: str,
        rate: float,
        inbox: bool = False,
        gives_up: bool = False,
        hasty: bool = False,
    ) -> None:
        self.name = name
        self.user = user
        self.peers = peers
        self.inbox = inbox
        self.acknowledged: dict[str, Acknowledged] = {}
        self.given: dict[int, list[Received]] = {peer: [] for peer in peers}
        self.sent: dict[str, tuple[int, str]] = {}  # by id: the recipient and the content
        self.complaints: list[str] = []
        self.last_acknowledgement = 0.0
        self.connections = 0
        self.trouble = ""  # the error that ended the last connection or attempt to connect
        self.rate = rate
        self.gives_up = gives_up
        self.hasty = hasty
        self.resumed = 0  # the number of the connection that resumed last
        self._port = port
        self._random = random.Random(seed)
        self._held = dict.fromkeys(peers, 0)
        self._unacknowledged: dict[str, None] = {}  # in the order in which they were first sent
        self._again: asyncio.Event = asyncio.Event()  # set when a message has to be resent
        self._silent = False
        self._socket: Client2 | None = None
        self._written: dict[str, int] = {}  # on this connection: the position of a message among all
        self._confirmed: dict[int, tuple[int, int]] = {}  # on this connection, by peer: last position and its seq

    @property
    def settled(self) -> bool:
        """Whether all sent messages are acknowledged."""
        return not self._unacknowledged

    @property
    def unacknowledged(self) -> list[str]:
        """The ids of messages that are sent and not acknowledged."""
        return list(self._unacknowledged)

    def holds(self, peer: int) -> int:
        """Return the last `seq` that the device holds."""
        return self._held[peer]

    def fall_silent(self) -> None:
        """Send no new messages from now on."""
        self._silent = True

    def say(self, peer: int) -> None:
        """Send one more message, even when silent."""
        self._add(peer)
        self._again.set()

    def cut(self) -> None:
        """Abort the connection."""
        if self._socket is not None:
            self._socket.abort()

    async def run(self) -> None:
        """Connect again and again, until cancelled."""
        while True:
            try:
                await self._connected()
            except (OSError, TimeoutError, HTTPClientError, WebSocketClosedError) as error:
                self.trouble = repr(error)
            await asyncio.sleep(self._random.uniform(0.02, 0.3))

    async def _connected(self) -> None:
        path = socket_path(self.user, None if self.inbox else self.peers[0], v="2")
        connection = await websocket(self._port(), path, timeout=5, ping_interval=5, ping_timeout=5)
        self._socket = socket = Client2(connection, patience=None)  # pings find a server that is gone
        try:
            self.connections += 1
            self._written, self._confirmed = {}, {}
            await socket.read()
            if self.hasty:
                await self._ask_for_positions(socket)
            await self._resume(socket)
            self.resumed = self.connections
            sending = asyncio.create_task(self._send(socket))
            try:
                while True:
                    self._take(await socket.read())
            finally:
                await end(sending)
        finally:
            socket.close()

    async def _ask_for_positions(self, socket: Client2) -> None:
        for number in range(POSITIONS):
            peer = self.peers[number % len(self.peers)]
            whom = {"to": str(peer)} if self.inbox else {}
            await socket.write(4, id=POSITION, received=self._held[peer], **whom)

    async def _resume(self, socket: Client2) -> None:
        """Request missed messages until there are no more."""
        while True:
            after: Any = {str(p): seq for p, seq in self._held.items()} if self.inbox else self._held[self.peers[0]]
            await socket.write(6, id="resume", after=after)
            while (frame := await socket.read()).get("id") != "resume":
                pass  # the answer has these messages too
            for message in frame.get("messages", ()):
                self._hold(message, replayed=True)
            if frame["code"] == 50002 and frame["complete"]:
                return
            if frame["code"] != 50002:
                if frame["code"] != 40001:
                    self._complain(f"resume was answered {frame}")
                await asyncio.sleep(0.2)

    def _complain(self, complaint: str) -> None:
        if complaint not in self.complaints:
            self.complaints.append(complaint)

    def _take(self, frame: dict[str, Any]) -> None:
        code, name = frame["code"], frame.get("id", "")
        if name == POSITION and code in (50002, 40001):
            return
        if code == MESSAGE:
            self._hold(frame)
        elif code in ACKNOWLEDGED:
            self._acknowledge(name, frame)
        elif code == REFUSED and self.gives_up:
            self._unacknowledged.pop(name, None)
        elif code in (40001, REFUSED):
            self._written.pop(name, None)  # its order among the others is not guaranteed
            asyncio.get_running_loop().call_later(0.3, self._again.set)
        elif code not in (50003, 50007, 50009):
            self._complain(f"{frame} came")

    def _hold(self, message: dict[str, Any], *, replayed: bool = False) -> None:
        sender = int(message["from"])
        peer = int(message["to"]) if sender == self.user else sender
        seq = message["seq"]
        got = Received(seq, sender, message["content"], message.get("id", ""), self.connections, replayed)
        if seq <= self._held[peer] and (before := [given for given in self.given[peer] if given.seq == seq]):
            self._complain(f"{got} came twice: {before}")
        elif seq <= self._held[peer] and not replayed:
            self._complain(f"{got} came after the answer to a later one: another order")
        elif self.given[peer] and seq < self.given[peer][-1].seq:
            self._complain(f"{got} came after {self.given[peer][-1]}: another order")
        self.given[peer].append(got)
        self._held[peer] = max(self._held[peer], seq)

    def _acknowledge(self, name: str, frame: dict[str, Any]) -> None:
        peer, content = self.sent[name]
        told = Acknowledged(peer, content, frame["seq"], frame["time"])
        if self.acknowledged.setdefault(name, told) != told:
            self._complain(f"{name} was acknowledged as {self.acknowledged[name]} and as {told}")
        self._unacknowledged.pop(name, None)
        self._held[peer] = max(self._held[peer], told.seq)
        self.last_acknowledgement = time.monotonic()
        position = self._written.pop(name, None)
        if position is not None and not frame.get("dup"):
            before = self._confirmed.get(peer, (-1, 0))
            if (position > before[0]) != (told.seq > before[1]):
                self._complain(f"{name} was stored at {told.seq}, in another order than it was sent")
            self._confirmed[peer] = max(before, (position, told.seq))

    async def _send(self, socket: Client2) -> None:
        position = 0
        for name in list(self._unacknowledged):
            self._written[name], position = position, position + 1
            await self._write(socket, name)
        while True:
            pause = self._random.expovariate(self.rate) if self.rate else 3600.0
            try:
                async with asyncio.timeout(pause):
                    await self._again.wait()
                self._again.clear()
                for name in list(self._unacknowledged):
                    if name not in self._written:
                        await self._write(socket, name)
            except TimeoutError:
                if not self._silent and len(self._unacknowledged) < WINDOW:
                    name = self._add(self._random.choice(self.peers))
                    self._written[name], position = position, position + 1
                    await self._write(socket, name)

    def _add(self, peer: int) -> str:
        """Add one more message to send; return its id."""
        name = f"{self.name}.{len(self.sent)}"
        self.sent[name] = (peer, f"{name} {'x' * self._random.randrange(200)}")
        self._unacknowledged[name] = None
        return name

    async def _write(self, socket: Client2, name: str) -> None:
        peer, content = self.sent[name]
        whom = {"to": str(peer)} if self.inbox else {}
        await socket.write(1, id=name, content=content, **whom)
