"""The client in line mode, for pipes and scripts: plain text without colours and a screen.

Each line of the input is a command or a message. Messages are printed to standard output, everything else to standard
error. At the end of the input, the client waits until the outcome of every message is known.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TextIO

from clients.client import Client, Event, Outcome, Said, Status
from clients.commands import Commands
from clients.conversation import Conversation
from clients.text import lines_in, visible
from clients.timeline import Message

__all__ = ["Lines"]

AHEAD = 100  # lines that are read ahead of the one that is carried out, and pending messages
LONGEST = 1_000_000  # characters; a longer line is read in parts, which are too long to be sent
CHUNK = 65_536  # bytes


class Lines:
    """Reads from a file descriptor, and writes to two streams."""

    def __init__(self, source: int, out: TextIO, err: TextIO) -> None:
        self._source = source
        self._out = out
        self._err = err
        self._moved: asyncio.Event = asyncio.Event()
        self._deaf: asyncio.Event = asyncio.Event()  # set when the output is closed
        self._failed = False
        self._printed_from: dict[int, int] = {}  # by peer: the first `seq` that was printed
        self._client: Client | None = None

    def heard(self, event: Event) -> None:
        """Handle an event of the client."""
        if isinstance(event, Said):
            peer = event.conversation.peer.id
            theirs = [message for message in event.messages if message.sender == peer]
            for message in theirs:
                self._print(event.conversation, message)
                self._printed_from.setdefault(peer, message.seq)
            if theirs and event.conversation.unread <= len(theirs) and self._client is not None:  # none are older
                self._client.shown(event.conversation, theirs[-1].seq)
        elif isinstance(event, Outcome):
            self._moved.set()
            if event.pending.failed:
                self._complain(f"{visible(event.pending.content[:40])}: {event.pending.failed}")
        elif isinstance(event, Status) and not event.connected:
            self._say(f"connecting… ({visible(event.reason)})")

    async def run(self, client: Client, to: str) -> int:
        """Carry out the input, after opening the conversation with `to` if it is given. Raises ClientError.

        The exit status is 0 if all commands succeeded and every message was stored.
        """
        self._client = client
        commands = Commands(client, self._say, self._complain)
        tasks = [asyncio.create_task(each) for each in (client.run(), self._work(commands, to), self._until_deaf())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return int(self._failed)

    async def _work(self, commands: Commands, to: str) -> None:
        if to:
            await commands.chat(to)
        lines: asyncio.Queue[str | None] = asyncio.Queue(AHEAD)
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(), lines), daemon=True).start()
        while (line := await lines.get()) is not None:
            if line.strip() == "/history" and commands.current is not None:
                await self._history(commands, commands.current)
            elif not await commands.run(line):
                break
            await self._until_waiting(AHEAD)
        await self._until_waiting(0)

    async def _history(self, commands: Commands, conversation: Conversation) -> None:
        """Print a page of history: the one that came when the conversation was opened, then older ones."""
        held = conversation.timeline.held
        before = self._printed_from.get(conversation.peer.id, held + 1)
        if conversation.first >= before:
            await commands.run("/history")
        self._printed_from[conversation.peer.id] = conversation.first
        for message in conversation.messages:
            if message.seq < before:
                self._print(conversation, message)
        theirs = sum(message.sender == conversation.peer.id for message in conversation.messages)
        if theirs >= conversation.unread and self._client is not None:
            self._client.shown(conversation, held)

    async def _until_waiting(self, most: int) -> None:
        """Wait until at most so many messages are pending."""
        while self._client is not None and sum(not each.failed for each in self._client.outbox) > most:
            self._moved.clear()
            await self._moved.wait()

    async def _until_deaf(self) -> None:
        await self._deaf.wait()
        self._failed = True

    def _read(self, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
        """Read the input in a thread, since files cannot be awaited."""

        def put(line: str | None) -> None:
            putting = lines.put(line)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            finally:
                putting.close()

        try:
            try:
                for line in self._lines():
                    put(line)
            except OSError as error:
                loop.call_soon_threadsafe(self._complain, f"the input cannot be read: {error.strerror}")
            put(None)
        except (RuntimeError, CancelledError):
            return  # the loop has ended

    def _lines(self) -> Iterator[str]:
        """Yield the lines of the input. A line that is too long comes in parts. Raises OSError."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while chunk := os.read(self._source, CHUNK):
            *whole, rest = (rest + decoder.decode(chunk)).split("\n")
            yield from (line.removesuffix("\r") for line in whole)
            if len(rest) > LONGEST:
                yield rest
                rest = ""
        rest += decoder.decode(b"", final=True)
        if rest:
            yield rest

    def _print(self, conversation: Conversation, message: Message) -> None:
        name = visible(str(conversation.peer)) if message.sender == conversation.peer.id else "you"
        first, *rest = lines_in(message.content)
        try:
            print("\n  ".join([f"{name}: {first}", *rest]), file=self._out, flush=True)
        except OSError:
            self._deaf.set()

    def _say(self, text: str) -> None:
        print(text, file=self._err, flush=True)

    def _complain(self, text: str) -> None:
        self._failed = True
        self._say(text)
