"""Support for the client's tests: a client that records its events, and a proxy that can be cut."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pymysql

from clients.client import Client, Event, Outcome, Said, Status
from clients.conversation import Conversation
from clients.outbox import Outbox, Pending, path_of
from clients.server import Peer, Server
from clients.timeline import Message
from handlers.websocket.handler import ChatSocket
from tests.support.sockets import until


class Proxy:
    """A TCP proxy to a port on this machine, which may change. Its connections can be cut and held up."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.flowing = asyncio.Event()
        self.answering = asyncio.Event()  # set while data from the server passes
        self.flowing.set()
        self.answering.set()
        self.opened = self.closed = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.opened += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(back)
        for source, sink, gate in ((reader, back, self.flowing), (there, writer, self.answering)):
            task = asyncio.create_task(self._pass_on(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self.flowing.wait()
                await gate.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
        self.closed += 1


class Device:
    """A client of a user whom the server believes."""

    def __init__(self, user: Peer, server: Server, outbox: Outbox, max_content: int) -> None:
        self.events: list[Event] = []
        self.shown_twice: list[Message] = []  # stored and in the outbox at the same time
        self.client = Client(server, user, outbox, self._heard, max_content=max_content, chance=Random(7))
        self.running: asyncio.Task[None] = asyncio.create_task(self.client.run())

    def _heard(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Said):
            self.shown_twice += [each for each in event.messages if self.client.outbox.get(each.id) is not None]

    @classmethod
    async def open(cls, port: int, name: str, directory: Path) -> Device:
        server = Server(f"http://127.0.0.1:{port}")
        session = await server.session()
        user = await server.believed(name, session)
        assert user is not None
        device = cls(
            user, server, Outbox(path_of(directory, "test", session.log, user.id), time.time), session.max_content
        )
        await until(lambda: device.client.status.connected)
        return device

    async def talk(self, other: Device) -> Conversation:
        """Open the conversation with the user of another device."""
        return await self.client.open(other.client.user)

    def say(self, other: Device, content: str) -> Pending:
        return self.client.send(other.client.user.id, content)

    def given(self, other: Device) -> list[Message]:
        """Return the messages with the user of another device, in the order of the events."""
        peer = other.client.user.id
        return [
            message
            for event in self.events
            if isinstance(event, Said) and event.conversation.peer.id == peer
            for message in event.messages
        ]

    def outcomes(self) -> list[Pending]:
        return [event.pending for event in self.events if isinstance(event, Outcome)]

    def states(self) -> list[Status]:
        return [event for event in self.events if isinstance(event, Status)]

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.client.outbox.close()
        self.client.server.close()


def close_sockets_of(user: Peer, code: int) -> None:
    """Let the server of this process close a user's sockets with a code."""
    for socket in ChatSocket.hub.sockets_of((user.id,)):
        socket.shut(code, "")


def names_of(database: pymysql.Connection, ids: list[int]) -> list[str]:
    """Return the names of users."""
    with database.cursor() as cursor:
        names = []
        for user in ids:
            cursor.execute("SELECT user_name FROM `user` WHERE id = %s", (user,))
            names.append(cursor.fetchone()[0])
    return names
