"""What a user can type: commands, and messages to the open conversation."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime

from clients.client import Client
from clients.conversation import COUNTED, Conversation
from clients.outbox import Pending
from clients.server import ClientError
from clients.text import visible

__all__ = ["COMMANDS", "Commands", "unread_text"]

COMMANDS = {
    "/list": "the conversations, newest first",
    "/chat": "NAME, or its number in the list: open a conversation",
    "/history": "the page before the oldest message that is shown",
    "/retry": "sends what failed again",
    "/discard": "forgets what failed",
    "/help": "these lines",
    "/quit": "ends; so does Ctrl-D",
}
_HINT = "// at the start of a line is a message that starts with one /"
_BEGINNING = 40  # characters of the last message that the list shows


class Commands:
    """Carries out the lines that a user typed, one after the other.

    `say` is called with each line of an answer, `complain` with the reason why a line failed.
    """

    def __init__(self, client: Client, say: Callable[[str], None], complain: Callable[[str], None]) -> None:
        self.current: Conversation | None = None
        self._client = client
        self._say = say
        self._complain = complain
        self._listed: list[Conversation] = []
        self._actions: dict[str, Callable[[str], Awaitable[None]]] = {
            "/list": self._list,
            "/chat": self.chat,
            "/history": self._history,
            "/retry": self._retry,
            "/discard": self._discard,
            "/help": self._help,
        }

    async def run(self, line: str) -> bool:
        """Carry out a line. Return False if it ends the program."""
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            return False
        try:
            if line.startswith("/") and not line.startswith("//"):
                if word in self._actions:
                    await self._actions[word](rest.strip())
                else:
                    self._complain(f"{visible(word)} is not a command: /help lists them, {_HINT}")
            elif self.current is None and word.isdigit() and not rest and self._listed:
                await self.chat(word)
            elif line.strip():
                self._send(line.removeprefix("/"))
        except (ClientError, sqlite3.Error, OSError) as error:
            self._complain(f"{visible(line[:_BEGINNING])}: {visible(str(error))}")
        return True

    def failed(self) -> list[Pending]:
        """The failed messages of the open conversation, or all failed messages if none is open."""
        current = self.current
        return [each for each in self._client.outbox if each.failed and current in (None, self._with(each.peer))]

    async def chat(self, name: str) -> None:
        """Open the conversation with a user. Raises ClientError."""
        number = int(name) if name.isascii() and name.isdigit() else 0
        if not name:
            self._complain("/chat needs a name, or a number from /list")
            return
        if 1 <= number <= len(self._listed):
            peer = self._listed[number - 1].peer
        else:
            peer = await self._client.find(name)
        self.current = await self._client.open(peer)

    def _with(self, peer: int) -> Conversation | None:
        return self._client.conversations.get(peer)

    def _send(self, text: str) -> None:
        if self.current is None:
            self._complain("no conversation is open: /chat NAME opens one, /list shows them")
        else:
            self._client.send(self.current.peer.id, text)

    async def _list(self, _: str) -> None:
        await self._client.refresh()
        listed = [each for each in self._client.conversations.values() if each.last is not None]
        self._listed = sorted(listed, key=lambda each: each.last.time if each.last else 0, reverse=True)
        for line in self._lines():
            self._say(line)
        if not self._listed:
            self._say("no conversations so far: /chat NAME begins one")

    def _lines(self) -> Iterator[str]:
        longest = max((len(visible(str(each.peer))) for each in self._listed), default=0)
        for number, each in enumerate(self._listed, 1):
            if each.last is None:
                continue
            when = datetime.fromtimestamp(each.last.time / 1000).astimezone()
            own = "you: " if each.last.sender == self._client.user.id else ""
            notes = [unread_text(each.unread)] if each.unread else []
            notes += ["online"] if each.online else []
            notes += ["blocked"] if each.blocked else []
            state = f" [{', '.join(notes)}]" if notes else ""
            beginning = visible(own + each.last.content[:_BEGINNING])
            yield f"{number:3} {visible(str(each.peer)):{longest}} {when:%d %b %H:%M}{state} {beginning}"

    async def _history(self, _: str) -> None:
        if self.current is None:
            self._complain("no conversation is open")
        elif self.current.opened and self.current.beginning:
            self._say("this is all there is")
        else:
            await self._client.older(self.current)

    async def _retry(self, _: str) -> None:
        failed = self.failed()
        for pending in failed:
            self._client.retry(pending)
        self._say(f"{_messages(len(failed))} to be sent again" if failed else "nothing has failed")

    async def _discard(self, _: str) -> None:
        failed = self.failed()
        for pending in failed:
            self._client.discard(pending)
        self._say(f"{_messages(len(failed))} discarded" if failed else "nothing has failed")

    async def _help(self, _: str) -> None:
        for name, what in COMMANDS.items():
            self._say(f"{name:9} {what}")
        self._say(f"anything else is a message; {_HINT}")


def unread_text(count: int) -> str:
    """Return a number of unread messages, as it is shown."""
    return f"{COUNTED - 1}+ unread" if count >= COUNTED else f"{count} unread"


def _messages(count: int) -> str:
    return f"{count} message" if count == 1 else f"{count} messages"
