"""Tests of the screen, with a fake keyboard and a fake terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from tornado.ioloop import IOLoop

from clients.client import Client
from clients.commands import Commands
from clients.outbox import Outbox
from clients.screen import Screen
from clients.server import Peer, Server, SessionOver
from server import Server as Serving
from tests.clients.conftest import Open, Pair
from tests.clients.device import Device, Proxy, close_sockets_of
from tests.conftest import Ask
from tests.support.patience import PATIENCE
from tests.support.sockets import until

ENTER, CTRL_C, CTRL_D, PAGE_UP, PAGE_DOWN, ALT_ENTER = "\r", "\x03", "\x04", "\x1b[5~", "\x1b[6~", "\x1b\r"
WIDTH, HEIGHT = 100, 20


class Terminal(DummyOutput):
    """A fake terminal of a given size."""

    def get_size(self) -> Size:
        return Size(rows=HEIGHT, columns=WIDTH)


class Sitting:
    """A user at a screen."""

    def __init__(self, keys: PipeInput, url: str, user: Peer, path: Path, to: str, max_lines: int) -> None:
        self.keys = keys
        self.screen = Screen(input_=keys, output=Terminal(), max_lines=max_lines)
        self.server = Server(url, uid=user.id)
        self.outbox = Outbox(path, time.time)
        self.client = Client(self.server, user, self.outbox, self.screen.heard, max_content=8192)
        self.running = asyncio.create_task(self.screen.run(self.client, to))

    def type(self, text: str) -> None:
        self.keys.send_text(text)

    @property
    def rows(self) -> list[str]:
        """Return the rows above the input line."""
        rows = self.screen.visible_rows(WIDTH, HEIGHT - 3)
        return ["".join(text for _, text in row) for row in rows if row]

    @property
    def bars(self) -> tuple[str, str]:
        """Return the first and the last row."""
        return tuple("".join(part[1] for part in bar()) for bar in (self.screen.title, self.screen.toolbar))

    async def shows(self, text: str) -> None:
        await until(lambda: any(text in row for row in (*self.rows, *self.bars)))

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.running


Sit = Callable[..., Awaitable[Sitting]]


@pytest.fixture
def sit(io_loop: IOLoop, http_server: Serving, tmp_path: Path) -> Iterator[Sit]:
    """Return a function that gives the user of a device a screen."""
    with create_pipe_input() as keys:
        sittings: list[Sitting] = []

        async def at(device: Device, to: str = "", *, max_lines: int = 100) -> Sitting:
            user = device.client.user
            path = tmp_path / "screen" / str(user.id)
            sittings.append(Sitting(keys, http_server.url, user, path, to, max_lines))
            await until(lambda: sittings[-1].client.status.connected)
            return sittings[-1]

        yield at

        async def end() -> None:
            for each in sittings:
                each.running.cancel()
                await asyncio.gather(each.running, return_exceptions=True)
                each.outbox.close()
                each.server.close()

        io_loop.run_sync(end)


Friends = tuple[Pair, Proxy]


async def test_a_conversation(friends: Friends, sit: Sit) -> None:
    """A message is written, acknowledged, received and read, and shows each of these."""
    (one, two), _ = friends
    sitting = await sit(one, "")
    await sitting.shows("anything else is a message")
    assert any(line.startswith("  1 ") for line in sitting.rows)
    sitting.type(f"/chat {two.client.user.name}{ENTER}")
    await until(lambda: sitting.bars[0].endswith("online"))
    await sitting.shows("hello yourself")
    await two.close()
    sitting.type(f"are you there?{ENTER}")
    await sitting.shows("are you there? ✓")
    assert not sitting.rows[-1].endswith("✓✓")
    await until(lambda: "online" not in sitting.bars[0])


async def test_control_characters(friends: Friends, sit: Sit) -> None:
    """Control characters are not sent: they stay in the field, with the reason."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    await sitting.shows("hello yourself")
    sitting.screen.buffer.insert_text("fg\x1a")
    sitting.type(ENTER)
    await sitting.shows("control characters cannot be sent")
    assert sitting.screen.buffer.text == "fg\x1a"
    assert len(sitting.outbox) == 0


async def test_ctrl_z(friends: Friends, sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z suspends the program as in a shell, and is not part of the text."""
    (one, two), _ = friends
    sitting, suspended = await sit(one, two.client.user.name), []
    monkeypatch.setattr(sitting.screen.app, "suspend_to_background", lambda: suspended.append(1))
    sitting.type("f\x1ag")
    await until(lambda: sitting.screen.buffer.text == "fg")
    assert suspended == [1]


async def test_ticks(friends: Friends, sit: Sit) -> None:
    """Received and read are shown when the peer's positions arrive."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    sitting.type(f"well?{ENTER}")
    await sitting.shows("well? ✓✓")
    styles = [style for row in sitting.screen.visible_rows(WIDTH, HEIGHT) for style, text in row if text == "✓✓"]
    assert styles[-1] == "class:tick"
    theirs = two.client.conversations[one.client.user.id]
    two.client.shown(theirs, theirs.timeline.held)
    mine = sitting.client.conversations[two.client.user.id]
    await until(lambda: mine.read == mine.timeline.held)
    styles = [style for row in sitting.screen.visible_rows(WIDTH, HEIGHT) for style, text in row if text == "✓✓"]
    assert styles[-1] == "class:read"


async def test_what_is_on_the_screen_is_read(friends: Friends, sit: Sit) -> None:
    """Messages that have scrolled out are unread until the user scrolls back; other conversations count as unread."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    talk = two.client.conversations[one.client.user.id]
    for number in range(60):
        two.say(one, f"number {number}")
    await until(lambda: talk.read == 62)
    sitting.type(PAGE_UP)
    await sitting.shows("PageDown: newer")
    shown = sitting.rows
    two.say(one, "meanwhile")
    await sitting.shows("1 unread")
    assert sitting.rows == shown
    assert talk.read == 62
    sitting.type(PAGE_DOWN + PAGE_DOWN)
    await sitting.shows("meanwhile")
    await until(lambda: talk.read == 63)
    assert "unread" not in sitting.bars[1]


async def test_scrolling_up_brings_history(friends: Friends, sit: Sit, http_server: Serving, device: Open) -> None:
    """Scrolling up loads history, as far as there is any."""
    (one, two), _ = friends
    for number in range(120):
        one.say(two, f"number {number}")
    await until(lambda: len(one.client.outbox) == 0)
    sitting = await sit(one, two.client.user.name)
    await sitting.shows("number 119")
    async with asyncio.timeout(PATIENCE):
        while not any("hello" in row for row in sitting.rows):
            sitting.type(PAGE_UP)
            await asyncio.sleep(0)
    conversation = sitting.client.conversations[two.client.user.id]
    assert conversation.beginning
    assert len(conversation.messages) == 122


async def test_typing(friends: Friends, sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typing is sent for a message, not for a command; the peer's typing is shown, and disappears."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    await until(lambda: sitting.screen.current)
    talk = two.client.conversations[one.client.user.id]
    with monkeypatch.context() as patch:
        typed: list[int] = []
        patch.setattr(sitting.client, "typing", typed.append)
        sitting.type("/help")
        await until(lambda: sitting.screen.buffer.text == "/help")
        assert typed == []
    sitting.type(CTRL_C + "h")
    await until(lambda: talk.typing_until)
    two.client.typing(one.client.user.id)
    await sitting.shows("is typing…")
    two.say(one, "done")
    await until(lambda: "typing" not in sitting.bars[1])
    mine = sitting.client.conversations[two.client.user.id]
    mine.typing_until = asyncio.get_running_loop().time() + 0.1
    assert "typing" in sitting.bars[1]
    await until(lambda: "typing" not in sitting.bars[1])


async def test_keys(friends: Friends, sit: Sit) -> None:
    """Alt-Enter begins another line, Ctrl-C empties the line, Ctrl-D ends the program if the line is empty."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    await until(lambda: sitting.screen.current)
    sitting.type(f"thrown away{CTRL_C}")
    await sitting.shows("/quit or Ctrl-D ends")
    sitting.type(f"one{ALT_ENTER}two{CTRL_D}{ENTER}")
    await until(lambda: two.given(one)[-1].content == "one\ntwo")
    assert not sitting.running.done()
    sitting.type(CTRL_D)
    assert await sitting.ended() == 0


async def test_quit(friends: Friends, sit: Sit) -> None:
    """/quit ends the program with status 0."""
    (one, _), _ = friends
    sitting = await sit(one, "")
    sitting.type(f"/quit{ENTER}")
    assert await sitting.ended() == 0


async def test_escapes_have_no_effect(friends: Friends, sit: Sit) -> None:
    """Control characters of another user's message are shown as symbols."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    two.say(one, "\x1b[2J\x9b1m\u202eabc\x07")
    await sitting.shows("␛[2J<U+009B>1m<U+202E>abc␇")


async def test_a_refused_message(friends: Friends, sit: Sit, ask: Ask) -> None:
    """A refused message stays with its reason until it is sent again or discarded."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    await ask("PUT", f"/user/blocks/{one.client.user.id}?uid={two.client.user.id}", body="")
    sitting.type(f"please{ENTER}")
    await sitting.shows("please !")
    await sitting.shows("one of you has blocked the other; /retry or /discard")
    await ask("DELETE", f"/user/blocks/{one.client.user.id}?uid={two.client.user.id}")
    sitting.type(f"/retry{ENTER}")
    await sitting.shows("please ✓")
    assert len(sitting.outbox) == 0


async def test_a_session_that_ends(friends: Friends, sit: Sit) -> None:
    """The end of the session ends the screen, with the reason."""
    (one, _), _ = friends
    sitting = await sit(one, "")
    close_sockets_of(one.client.user, 1008)
    with pytest.raises(SessionOver, match="signed out"):
        await sitting.ended()


async def test_without_a_connection(friends: Friends, sit: Sit) -> None:
    """Without a connection the screen says so, and keeps what is written as pending."""
    (one, two), _ = friends
    sitting = await sit(one, two.client.user.name)
    await until(lambda: sitting.screen.current)
    url, sitting.server.url = sitting.server.url, "http://127.0.0.1:1"
    close_sockets_of(one.client.user, 1001)
    await sitting.shows("connecting…")
    sitting.type(f"later{ENTER}")
    await sitting.shows("later ·")
    sitting.server.url = url
    await sitting.shows("later ✓")
    assert "connecting" not in sitting.bars[1]
    await until(lambda: two.given(one)[-1].content == "later")


async def test_completion(friends: Friends, sit: Sit) -> None:
    """Commands and names are completed; control characters in names are visible."""
    (one, two), _ = friends
    sitting = await sit(one, "")
    name = two.client.user.name
    await until(lambda: sitting.client.conversations)
    sitting.client.conversations[-1] = type(next(iter(sitting.client.conversations.values())))(Peer(-1, "a\x1b", ""), 0)

    def completions(text: str) -> list[str]:
        completer = sitting.screen.buffer.completer
        return [each.text for each in completer.get_completions(Document(text), CompleteEvent())]

    assert completions("/h") == ["/history", "/help"]
    assert completions("/chat ") == [name]
    assert completions(f"/chat {name[:4]}") == [name]
    assert completions("/chat a\x1b") == completions("h") == completions("/list ") == []
    del sitting.client.conversations[-1]


async def test_what_was_typed_waits_for_what_takes_long(
    friends: Friends, sit: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed lines are carried out before Ctrl-D ends the program.

    A line that does not fit into the queue stays in the field.
    """
    (one, two), _ = friends
    most, gate, run = 5, asyncio.Event(), Commands.run
    sitting = await sit(one, two.client.user.name, max_lines=most)
    await until(lambda: sitting.screen.current)

    async def slowly(commands: Commands, line: str) -> bool:
        await gate.wait()
        return await run(commands, line)

    monkeypatch.setattr(Commands, "run", slowly)

    def sent() -> list[str]:
        """Return the messages that have arrived, and those in the outbox; one may be in both for a moment."""
        arrived = {message.id: message.content for message in two.given(one)[2:]}
        return list((arrived | {each.id: each.content for each in sitting.outbox}).values())

    # The first is carried out as usual, the second is taken from the queue and takes long.
    lines = [f"{number}" for number in range(most + 2)]
    for typed, line in enumerate(lines, 1):
        sitting.type(f"{line}{ENTER}")
        await until(lambda typed=typed: sitting.screen.waiting == max(0, typed - 2) and (typed > 1 or sent()))
    sitting.type(f"one too many{ENTER}")
    await until(lambda: sitting.screen.buffer.text == "one too many")
    gate.set()
    await until(lambda: sent() == lines)
    sitting.type(ENTER)
    await until(lambda: sent() == [*lines, "one too many"])
    gate.clear()
    sitting.type(f"held{ENTER}")
    await until(lambda: not sitting.screen.buffer.text and not sitting.screen.waiting)
    sitting.type(f"last{ENTER}")
    await until(lambda: sitting.screen.waiting)
    sitting.type(CTRL_D)
    await until(lambda: sitting.screen.waiting == 2)
    gate.set()
    assert await sitting.ended() == 0
    await until(lambda: sent() == [*lines, "one too many", "held", "last"])
