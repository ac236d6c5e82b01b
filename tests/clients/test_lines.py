"""Tests of the client's line mode."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from clients.client import Client
from clients.lines import Lines
from clients.outbox import Outbox
from clients.server import Peer, Refused, Server
from server import Server as Serving
from tests.clients.conftest import Open
from tests.clients.device import close_sockets_of
from tests.support.patience import PATIENCE
from tests.support.sockets import until


class Piped:
    """A client with a pipe as its input."""

    def __init__(self, url: str, user: Peer, path: Path, to: str, source: int | None) -> None:
        self.read, self.write = os.pipe()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.lines = Lines(self.read if source is None else source, self.out, self.err)
        self.server = Server(url, uid=user.id)
        self.outbox = Outbox(path, time.time)
        self.client = Client(self.server, user, self.outbox, self.lines.heard, max_content=8192)
        self.running = asyncio.create_task(self.lines.run(self.client, to))

    def type(self, text: str | bytes) -> None:
        os.write(self.write, text.encode() if isinstance(text, str) else text)

    async def end(self) -> int:
        """End the input, and return the exit status."""
        os.close(self.write)
        async with asyncio.timeout(PATIENCE):
            status = await self.running
        os.close(self.read)
        self.outbox.close()
        self.server.close()
        return status


Pipe = Callable[..., Piped]


@pytest.fixture
def pipe(http_server: Serving, tmp_path: Path, io_loop: IOLoop) -> Iterator[Pipe]:
    """Return a function that starts clients that read from a pipe."""

    def start(user: Peer, to: str, source: int | None = None) -> Piped:
        return Piped(http_server.url, user, tmp_path / "piped" / str(user.id), to, source)

    return start


async def test_it_ends_when_all_is_stored(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """The client ends when many messages are stored, the last one without a line end; invalid UTF-8 is replaced."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    await two.client.open(one.client.user)
    two.say(one, "hello")
    await until(lambda: one.given(two))
    piped = pipe(one.client.user, names[1])
    piped.type("".join(f"{number}\r\n" for number in range(250)).encode() + b"\xff \xe4\xbd\xa0 last")
    assert await piped.end() == 0
    assert len(two.client.conversations[one.client.user.id].messages) == 252
    sent = [message.content for message in two.given(one)[1:]]
    assert sent == [*map(str, range(250)), "\ufffd 你 last"]
    assert (piped.out.getvalue(), piped.err.getvalue()) == ("", "")


async def test_what_others_write(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """Messages are printed line by line, with control characters made visible, and then count as read.

    They stay unread if an earlier message was not printed.
    """
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    talk = await two.client.open(one.client.user)
    piped = pipe(one.client.user, names[1])
    piped.type("first\n")
    await until(lambda: len(two.given(one)) == 1)
    two.say(one, "one\nuser: two\x1b[2J")
    await until(lambda: piped.out.getvalue())
    await until(lambda: talk.read == 2)
    assert piped.out.getvalue() == f"{names[1]}: one\n  user: two␛[2J\n"
    assert await piped.end() == 0


async def test_history_and_read(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """/history prints the newest page, then older ones; what was printed without a gap is read."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    await one.client.open(two.client.user)
    one.say(two, "mine")
    await until(lambda: two.given(one))
    for number in range(60):
        two.say(one, f"{number}")
    await until(lambda: len(one.given(two)) == 61)
    await one.close()
    talk = two.client.conversations[one.client.user.id]
    piped = pipe(one.client.user, names[1])
    piped.type("go on\n")
    await until(lambda: len(two.given(one)) == 62)
    two.say(one, "live")
    await until(lambda: "live" in piped.out.getvalue())
    piped.type("/history\n")
    await until(lambda: "you: go on\n" in piped.out.getvalue())
    assert talk.read == 0
    piped.type("/history\n/history\n")
    await until(lambda: talk.read == 63)
    theirs = [f"{names[1]}: {number}" for number in range(60)]
    assert piped.out.getvalue().splitlines() == [
        f"{names[1]}: live",
        *theirs[10:],
        "you: go on",
        "you: mine",
        *theirs[:10],
    ]
    assert await piped.end() == 0
    assert piped.err.getvalue() == "this is all there is\n"


async def test_what_fails(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """A failed message is reported on standard error and by the exit status, and is kept."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    piped = pipe(one.client.user, names[1])
    piped.type("0\n1\n2\n3\n")
    assert await piped.end() == 1
    assert piped.err.getvalue() == "3: refused: you can send three messages to a user who has not answered\n"
    await until(lambda: len(two.given(one)) == 3)
    again = pipe(one.client.user, names[1])
    again.type("/frob\n/quit\nnot any more\n")
    assert await again.end() == 1
    assert again.err.getvalue().startswith("/frob is not a command")
    assert [pending.content for pending in again.client.outbox] == ["3"]


async def test_an_unknown_name(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """With an unknown name no input is read."""
    one = await device(http_server.port, names[0])
    piped = pipe(one.client.user, "nobody")
    with pytest.raises(Refused, match="no user of that name"):
        await piped.end()
    piped.outbox.close()
    piped.server.close()


async def test_a_closed_output(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """The client ends when its output is closed, as other programs in a pipe do."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    piped = pipe(one.client.user, names[1])
    await until(lambda: piped.client.status.connected)

    def broken(text: str) -> int:
        raise BrokenPipeError

    piped.out.write = broken  # type: ignore[method-assign]
    await two.client.open(one.client.user)
    two.say(one, "anybody there?")
    async with asyncio.timeout(PATIENCE):
        assert await piped.running == 1
    assert await piped.end() == 1


async def test_what_was_missed(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """Missed messages are printed when the connection is back, and count as read, however many they are."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    talk = await two.client.open(one.client.user)
    piped = pipe(one.client.user, names[1])
    piped.type("first\n")
    await until(lambda: len(two.given(one)) == 1)
    url, piped.server.url = piped.server.url, "http://127.0.0.1:1"
    close_sockets_of(one.client.user, 1001)
    await until(lambda: not piped.client.status.connected)
    for number in range(3):
        two.say(one, f"{number}")
    await until(lambda: len(two.given(one)) == 4)
    piped.server.url = url
    await until(lambda: talk.read == 4)
    assert piped.out.getvalue() == "".join(f"{names[1]}: {number}\n" for number in range(3))
    assert await piped.end() == 0


async def test_half_a_character_at_the_end(pipe: Pipe, http_server: Serving, device: Open, names: list[str]) -> None:
    """An incomplete character at the end is replaced, as other invalid UTF-8."""
    two, one = await device(http_server.port, names[1]), await device(http_server.port, names[0])
    await two.client.open(one.client.user)
    piped = pipe(one.client.user, names[1])
    piped.type(b"\xe4\xbd")
    assert await piped.end() == 0
    await until(lambda: [message.content for message in two.given(one)] == ["\ufffd"])


async def test_an_input_that_cannot_be_read(
    pipe: Pipe, http_server: Serving, device: Open, names: list[str], tmp_path: Path
) -> None:
    """An input that cannot be read is reported, and ends the client with status 1."""
    one = await device(http_server.port, names[0])
    directory = os.open(tmp_path, os.O_RDONLY)
    piped = pipe(one.client.user, "", directory)
    assert await piped.end() == 1
    os.close(directory)
    assert piped.err.getvalue() == "the input cannot be read: Is a directory\n"
