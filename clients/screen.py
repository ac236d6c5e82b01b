"""The client on a terminal: a conversation that fills the screen, and the input line below it.

The screen is drawn anew from the client's state whenever that changes. So a tick appears after a message in its row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    CompletionsMenu,
    Dimension,
    Float,
    FloatContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    UIContent,
    UIControl,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from clients.client import TYPING_FOR, Changed, Client, Event, Said
from clients.commands import COMMANDS, Commands, unread_text
from clients.conversation import Conversation
from clients.rendering import STYLES, Row, notice_rows, rows_of
from clients.text import visible

__all__ = ["Screen"]

INPUT_ROWS = 5  # rows of the input line, at most
MOST_LINES = 100  # lines in the queue, at most


class Screen:
    """A screen on `input_` and `output`, or on the terminal of this process.

    At most `max_lines` typed lines wait until those before them are carried out.
    """

    def __init__(
        self, *, input_: Input | None = None, output: Output | None = None, max_lines: int = MOST_LINES
    ) -> None:
        self._client: Client | None = None
        self._commands: Commands | None = None
        self._notices: list[str] = []
        self._lines: asyncio.Queue[str] = asyncio.Queue(max_lines)
        self._below = 0  # rows that are below the screen
        self._rows: list[Row] = []
        self.buffer = Buffer(
            completer=_Completer(self._names),
            complete_while_typing=True,
            accept_handler=self._accept,
            on_text_changed=self._typed,
            multiline=False,
        )
        self._pane = Window(_Pane(self.visible_rows), height=Dimension(weight=1))
        self.app: Application[None] = Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=Style.from_dict(STYLES),
            full_screen=True,
            color_depth=ColorDepth.from_env(),
            input=input_,
            output=output,
        )

    def heard(self, event: Event) -> None:
        """Handle an event of the client."""
        if isinstance(event, Said) and self._below and event.conversation is self.current:
            known = len(self._rows)  # rows that are being read do not move
            self._below += max(len(self._drawn(self._width)) - known, 0)
        if isinstance(event, Changed) and event.conversation is not None and event.conversation.typing_until:
            asyncio.get_running_loop().call_later(TYPING_FOR, self.app.invalidate)  # to remove it again
        self._look()
        self.app.invalidate()

    @property
    def current(self) -> Conversation | None:
        """The open conversation."""
        return self._commands.current if self._commands else None

    @property
    def waiting(self) -> int:
        """How many typed lines wait."""
        return self._lines.qsize()

    async def run(self, client: Client, to: str) -> int:
        """Show the client until the user ends it, and return the exit status.

        Raises ClientError if the session is over.
        """
        self._client = client
        self._commands = Commands(client, self._notices.append, self._notices.append)
        self._lines.put_nowait(f"/chat {to}" if to else "/list")
        if not to:
            self._lines.put_nowait("/help")
        tasks = [
            asyncio.create_task(self.app.run_async()),
            asyncio.create_task(client.run()),
            asyncio.create_task(self._work(self._commands)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.app.is_running and not self.app.is_done:
                self.app.exit()
                await asyncio.gather(tasks[0], return_exceptions=True)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        return 0

    async def _work(self, commands: Commands) -> None:
        """Carry out the typed lines, one after the other."""
        while await commands.run(await self._lines.get()):
            self._look()
            self.app.invalidate()

    # The user's actions

    def _accept(self, buffer: Buffer) -> bool:
        if self._lines.full():
            return True  # the line stays in the field
        if any(letter < " " and letter not in "\n\t" for letter in buffer.text):
            self._notices[:] = ["control characters cannot be sent: they are shown as ^A to ^Z, take them out"]
            return True
        if buffer.text.strip():
            self._notices.clear()
            self._below = 0
            self._lines.put_nowait(buffer.text)
        return False

    def _typed(self, buffer: Buffer) -> None:
        if self._client and self.current and buffer.text and not buffer.text.startswith("/"):
            self._client.typing(self.current.peer.id)

    def _names(self) -> Iterable[str]:
        return [each.peer.name for each in self._client.conversations.values()] if self._client else []

    def _look(self) -> None:
        """Mark what is on the screen as read."""
        if self._client and self.current and not self._below:
            self._client.shown(self.current, self.current.timeline.held)

    def _scroll(self, rows: int) -> None:
        most = max(len(self._rows) - self._height, 0)
        if rows > 0 and self._below >= most and self.current and not self.current.beginning and not self._lines.full():
            self._lines.put_nowait("/history")
        self._below = min(max(self._below + rows, 0), most)
        self._look()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-d", filter=Condition(lambda: not self.buffer.text))
        def _(event: KeyPressEvent) -> None:
            if self._lines.empty():
                event.app.exit()
            elif not self._lines.full():
                self._lines.put_nowait("/quit")  # after earlier lines, which are not in the outbox yet

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            self.buffer.reset()
            self._notices[:] = ["/quit or Ctrl-D ends"]

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            event.app.suspend_to_background()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            self.buffer.insert_text("\n")

        @keys.add("pageup")
        def _(event: KeyPressEvent) -> None:
            self._scroll(max(self._height - 1, 1))

        @keys.add("pagedown")
        def _(event: KeyPressEvent) -> None:
            self._scroll(-max(self._height - 1, 1))

        return keys

    # The contents of the screen

    def _layout(self) -> Layout:
        control = BufferControl(self.buffer, input_processors=[BeforeInput("> ")])
        writing = Window(control, height=Dimension(min=1, max=INPUT_ROWS), dont_extend_height=True, wrap_lines=True)
        rows = HSplit(
            [
                Window(FormattedTextControl(self.title), height=1, style="class:title"),
                self._pane,
                writing,
                Window(FormattedTextControl(self.toolbar), height=1, style="class:toolbar"),
            ]
        )
        menu = Float(CompletionsMenu(max_height=8), xcursor=True, ycursor=True)
        return Layout(FloatContainer(rows, [menu]), focused_element=writing)

    @property
    def _width(self) -> int:
        return self._pane.render_info.window_width if self._pane.render_info else self.app.output.get_size().columns

    @property
    def _height(self) -> int:
        return self._pane.render_info.window_height if self._pane.render_info else self.app.output.get_size().rows

    def _drawn(self, width: int) -> list[Row]:
        if self._client is None or self.current is None:
            self._rows = notice_rows(self._notices, width)
        else:
            peer = self.current.peer.id
            pending = [each for each in self._client.outbox if each.peer == peer]
            self._rows = rows_of(self.current, self._client.user, pending, self._notices, width)
        return self._rows

    def visible_rows(self, width: int, height: int) -> list[Row]:
        """Return the rows above the input line, in a pane of that size."""
        rows = self._drawn(width)
        self._below = min(self._below, max(len(rows) - height, 0))
        end = len(rows) - self._below
        shown = rows[max(end - height, 0) : end]
        return [[]] * (height - len(shown)) + shown

    def title(self) -> StyleAndTextTuples:
        """Return the first row: the peer of the open conversation."""
        if self.current is None:
            return [("", " Tandem")]
        peer = self.current.peer
        nick = f" ({visible(peer.nick)})" if peer.nick and peer.nick != peer.name else ""
        state = " · blocked" if self.current.blocked else " · online" if self.current.online else ""
        return [("", f" {visible(str(peer))}{nick}{state}")]

    def toolbar(self) -> StyleAndTextTuples:
        """Return the last row: the user, the state of the connection, and what is new."""
        if self._client is None:
            return []
        parts = [visible(str(self._client.user))]
        if not self._client.status.connected:
            reason = self._client.status.reason
            parts.append(f"connecting… ({visible(reason)})" if reason else "connecting…")
        now = asyncio.get_running_loop().time()
        conversations = self._client.conversations.values()
        typing = [each for each in conversations if each.typing_until > now]
        parts += [f"{visible(str(each.peer))} is typing…" for each in typing]
        parts += [f"{visible(str(each.peer))}: {unread_text(each.unread)}" for each in conversations if each.unread]
        if self._below:
            parts.append("PageDown: newer")
        return [("", " " + " | ".join(parts))]


class _Pane(UIControl):
    """Shows as many rows as fit."""

    def __init__(self, rows: Callable[[int, int], list[Row]]) -> None:
        self._rows = rows

    def create_content(self, width: int, height: int) -> UIContent:
        """Return the rows for a pane of that size."""
        rows = self._rows(width, height)
        return UIContent(lambda number: list(rows[number]), line_count=len(rows), show_cursor=False)


class _Completer(Completer):
    """Completes commands, and the names of peers after /chat."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the completions of the text before the cursor."""
        text = document.text_before_cursor
        word, space, beginning = text.partition(" ")
        if word == "/chat" and space:
            for name in sorted(self._names()):
                if name.startswith(beginning) and name == visible(name):
                    yield Completion(name, -len(beginning))
        elif text.startswith("/") and not space:
            for command, what in COMMANDS.items():
                if command.startswith(text):
                    yield Completion(command, -len(text), display_meta=what)
