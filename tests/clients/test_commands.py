"""Tests of commands and messages that a user types."""

from __future__ import annotations

import pytest

from clients.commands import COMMANDS, Commands, unread_text
from clients.conversation import COUNTED
from server import Server
from tests.clients.conftest import Open, Pair
from tests.clients.device import Device, Proxy
from tests.support.sockets import until

Friends = tuple[Pair, Proxy]


class Desk:
    """The commands of a device, and their output."""

    def __init__(self, device: Device) -> None:
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.commands = Commands(device.client, self.said.append, self.complaints.append)

    async def type(self, line: str) -> list[str]:
        """Carry out a line. Return its output, complaints last."""
        self.said.clear()
        self.complaints.clear()
        assert await self.commands.run(line)
        return self.said + self.complaints


async def test_messages_and_commands(friends: Friends) -> None:
    """A line is a message unless it begins with one slash; without an open conversation nothing is sent."""
    (one, two), _ = friends
    desk = Desk(one)
    assert await desk.type("to nobody") == ["no conversation is open: /chat NAME opens one, /list shows them"]
    assert await desk.type(f"/chat {two.client.user.name}") == []
    for line in ("hi", "  indented", "//usr/bin", "", "   "):
        assert await desk.type(line) == []
    await until(lambda: len(two.given(one)) == 5)
    assert [message.content for message in two.given(one)[2:]] == ["hi", "  indented", "/usr/bin"]
    assert (await desk.type("/frobnicate"))[0].startswith("/frobnicate is not a command")
    assert desk.complaints
    assert await desk.commands.run("/quit") is False


async def test_the_list(friends: Friends, http_server: Server, device: Open, names: list[str]) -> None:
    """The list is newest first, with numbers for /chat, and with control characters made visible."""
    (one, two), _ = friends
    three = await device(http_server.port, names[2])
    await three.talk(one)
    three.say(one, "look \x1b[31mhere")
    await until(lambda: one.given(three))
    desk = Desk(one)
    lines = await desk.type("/list")
    assert [line.split()[:2] for line in lines] == [["1", names[2]], ["2", names[1]]]
    assert lines[0].endswith("[1 unread] look ␛[31mhere")
    assert "you:" not in lines[1]
    await desk.type("2")
    assert desk.commands.current is one.client.conversations[two.client.user.id]
    await desk.type("/chat 1")
    assert desk.commands.current is one.client.conversations[three.client.user.id]
    await desk.type("2")
    await until(lambda: contents(three, one)[-1] == "2")


def contents(device: Device, other: Device) -> list[str]:
    return [message.content for message in device.given(other)]


async def test_what_cannot_be_done(friends: Friends, names: list[str]) -> None:
    """Errors are shown, and nothing ends."""
    (one, _), proxy = friends
    desk = Desk(one)
    assert await desk.type("/chat") == ["/chat needs a name, or a number from /list"]
    assert await desk.type("/chat nobody\x1b") == ["/chat nobody␛: no user of that name"]
    assert await desk.type(f"/chat {names[0]}") == [f"/chat {names[0][:34]}: that is you"]
    assert await desk.type("/history") == ["no conversation is open"]
    await desk.type(f"/chat {names[1]}")
    assert (await desk.type("x" * 9000))[0].endswith("9000 characters, and the server takes 8192")
    assert await desk.type("/history") == ["this is all there is"]
    proxy.target = 1
    proxy.cut()
    await until(lambda: not one.client.status.connected)
    assert "127.0.0.1" in (await desk.type("/list"))[-1]


async def test_retry_and_discard(http_server: Server, device: Open, names: list[str]) -> None:
    """/retry and /discard apply to the failed messages of the open conversation."""
    one, two = await device(http_server.port, names[0]), await device(http_server.port, names[1])
    desk = Desk(one)
    await desk.type(f"/chat {names[1]}")
    assert await desk.type("/retry") == await desk.type("/discard") == ["nothing has failed"]
    for number in range(5):
        await desk.type(f"{number}")
    await until(lambda: len(desk.commands.failed()) == 2)
    await desk.type(f"/chat {names[2]}")
    assert await desk.type("/retry") == ["nothing has failed"]
    await desk.type(f"/chat {names[1]}")
    await two.talk(one)
    two.say(one, "go on")
    await until(lambda: len(one.given(two)) == 4)
    assert await desk.type("/retry") == ["2 messages to be sent again"]
    await until(lambda: len(one.client.outbox) == 0)
    assert contents(one, two)[-2:] == ["3", "4"]


async def test_discard(http_server: Server, device: Open, names: list[str]) -> None:
    """Only failed messages are discarded."""
    one, _ = await device(http_server.port, names[0]), await device(http_server.port, names[1])
    desk = Desk(one)
    await desk.type(f"/chat {names[1]}")
    for number in range(4):
        await desk.type(f"{number}")
    await until(lambda: len(desk.commands.failed()) == 1)
    assert await desk.type("/discard") == ["1 message discarded"]
    assert len(one.client.outbox) == 0


async def test_help(friends: Friends) -> None:
    """The help names every command."""
    (one, _), _ = friends
    lines = await Desk(one).type("/help")
    assert [line.split()[0] for line in lines[:-1]] == list(COMMANDS)


@pytest.mark.parametrize(("count", "text"), [(1, "1 unread"), (100, "100 unread"), (COUNTED, "100+ unread")])
def test_unread(count: int, text: str) -> None:
    """More than a hundred unread messages are not counted."""
    assert unread_text(count) == text
