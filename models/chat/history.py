"""History: pages, unread messages, positions, resuming, and the list of conversations.

Each call that may take long has a deadline in the event loop's time, after which it raises StorageUnavailable. A user
who has blocked the peer reads up to the seq of the block. Few calls read from the database at once (common/turns.py);
the others wait, and read nothing if their deadline passes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from common.turns import Turns
from models.chat.blocks import EVERYTHING
from models.chat.events import PositionsChanged
from models.chat.ports import Directory, Messages, Unread
from models.chat.service import Chat
from models.errors import InvalidFrame, StorageUnavailable
from models.protocol.v2 import MOST
from models.records import Cursor, Message, ReadPositions, Summary, conversation_of

__all__ = ["COUNTED", "PAGE", "PAGE_BYTES", "History", "Listed", "Page", "Resumed", "Shown"]

PAGE = 10  # messages in an answer to a history request of protocol v1; the article, section 2.3.3
PAGE_BYTES = 262_144  # of content, as JSON, in one answer of protocol v2; a single message may be longer
CHUNK = 100  # messages read at once for an unread request of protocol v1
COUNTED = 100  # unread messages are counted up to here
ALL = 2**31  # more conversations than a user has
SHORT, LONG = 4, 2  # concurrent reads: of one conversation, of many; motor has ten threads in all

_encode = msgspec.json.Encoder().encode


class Shown(NamedTuple):
    """A part of the answer to an unread request of protocol v1.

    Once it is written, everything up to `upto` counts as read.
    """

    messages: list[Message]
    upto: int


class Page(NamedTuple):
    """Messages in ascending order; `complete` says that there are no more."""

    messages: list[Message]
    complete: bool


class Resumed(NamedTuple):
    """What was missed in several conversations, ascending in each. There is more with the peers in `more`.

    `held` has by peer up to which `seq` the user then has the conversation.
    """

    messages: list[Message]
    more: list[int]
    held: dict[int, int]


class Listed(NamedTuple):
    """A conversation in a user's list. `unread` is counted up to COUNTED + 1, `positions` are the peer's.

    `blocked` says that the user has blocked the peer.
    """

    summary: Summary
    unread: int
    positions: ReadPositions
    online: bool
    blocked: bool


class History:
    """Reads stored messages. `answer_timeout` (seconds) limits each further part of a long answer."""

    def __init__(self, chat: Chat, messages: Messages, directory: Directory, answer_timeout: float) -> None:
        self._chat = chat
        self._messages = messages
        self._directory = directory
        self._answer_timeout = answer_timeout
        self.turns = Turns(SHORT, LONG)

    # Protocol v1

    async def before_time(self, reader: int, peer: int, before: int | None, deadline: float) -> list[Message]:
        """Return the ten newest messages before a time (milliseconds; None: the newest of all), oldest first."""
        name = conversation_of(reader, peer)
        async with _until(deadline), self.turns.short():
            if before is None:
                last = await self._messages.newest(name)
            else:
                last = await self._messages.last_before(name, before)
            last = min(last, await self._chat.blocks.shown_upto(reader, peer))
            return await self._messages.page(name, last - PAGE + 1, last)

    async def unread(self, reader: int, peer: int, deadline: float) -> AsyncGenerator[Shown, None]:
        """Yield everything since the peer's first message that `reader` has not read, or the newest ten if all is read.

        The parts have messages of both users, oldest first. Call `shown` with each part once it is written. The
        deadline is for the first part.
        """
        with self._chat.conversations.lease(reader, peer) as conversation:
            async with _until(deadline), self.turns.short():
                # What this process has not delivered yet is not shown either: it will be delivered live.
                last = (await self._chat.loader.head(conversation)).seq
                last = min(last, await self._chat.blocks.shown_upto(reader, peer))
                read_state = await self._chat.loader.read_state(conversation, reader)
            if read_state.first_unread is None or read_state.first_unread > last:
                yield Shown(await self.before_time(reader, peer, None, deadline), read_state.read)
                return
            for first in range(read_state.first_unread, last + 1, CHUNK):
                upto = min(first + CHUNK - 1, last)
                async with _until(deadline), self.turns.short():
                    messages = await self._messages.page(conversation.name, first, upto)
                yield Shown(messages, upto)
                deadline = asyncio.get_running_loop().time() + self._answer_timeout

    def shown(self, reader: int, peer: int, upto: int) -> None:
        """Mark everything up to `upto`, which was shown to `reader`, as read."""
        conversation = self._chat.conversations.get(conversation_of(reader, peer))
        read_state = None if conversation is None else conversation.read_states.get(reader)
        if conversation is not None and read_state is not None and read_state.read < upto:
            read_state.shown(upto, conversation.head.seq if conversation.head else upto)
            self._messages.mark_read(conversation.name, reader, read_state.read)
            self._chat.delivery.tell(PositionsChanged(reader, peer, read_state.read, read_state.read))

    # Protocol v2

    async def before(self, reader: int, peer: int, seq: int | None, most: int, deadline: float) -> Page:
        """Return the last messages before `seq`, or the last of all."""
        async with _until(deadline), self.turns.short():
            upto = await self._chat.blocks.shown_upto(reader, peer)
            end = upto + 1 if seq is None else min(seq, upto + 1)
            messages = await self._messages.before(conversation_of(reader, peer), end, most + 1)
        newest_first = _cut(messages[::-1], most)
        return Page(newest_first.messages[::-1], newest_first.complete)

    async def after(self, reader: int, peer: int, seq: int, most: int, deadline: float) -> Page:
        """Return the first messages after `seq`."""
        async with _until(deadline), self.turns.short():
            return await self._after(reader, peer, seq, most)

    async def first_unread(self, reader: int, peer: int, deadline: float) -> Page:
        """Return the peer's first messages that `reader` has not read."""
        async with _until(deadline), self.turns.short():
            found = await self._messages.unread(conversation_of(reader, peer), reader, peer, MOST + 1)
            return _cut(await self._shown(reader, peer, found), MOST)

    async def resume(self, reader: int, after: Mapping[int, int], most: int, deadline: float) -> Resumed:
        """Return what came after a `seq` in the conversations with these peers, at most so many messages in all.

        Raises InvalidFrame for a `seq` that does not exist yet. Nothing is read where nothing came after the `seq`, as
        with peers who have never written.
        """
        messages: list[Message] = []
        more: list[int] = []
        held: dict[int, int] = {}
        bytes_left = PAGE_BYTES
        async with _until(deadline), self.turns.long(reader):
            newest = await self._chat.follow(reader, after)
            for peer, seq in after.items():
                if seq > newest.get(peer, 0):
                    await self._require_given(reader, peer, seq, begun=peer in newest)
            upto = await self._chat.blocks.shown_all(reader)
            for peer, seq in after.items():
                held[peer] = seq
                if min(newest.get(peer, 0), upto.get(peer, EVERYTHING)) <= seq:
                    continue
                page = Page([], complete=False)
                if bytes_left > 0 and len(messages) < most:
                    page = await self._after(reader, peer, seq, most - len(messages), bytes_left)
                if page.messages:
                    messages += page.messages
                    bytes_left -= _size_of(page.messages)
                    held[peer] = page.messages[-1].seq
                if not page.complete:
                    more.append(peer)
        return Resumed(messages, more, held)

    async def mark(self, reader: int, peer: int, wanted: ReadPositions, deadline: float) -> ReadPositions:
        """Move the positions of `reader` forward and return them. Raises InvalidFrame as `resume` does."""
        async with _until(deadline):
            await self._require_given(reader, peer, max(wanted.received, wanted.read))
            positions, moved = await self._messages.mark(conversation_of(reader, peer), reader, wanted)
        if moved:
            self._chat.delivery.moved(PositionsChanged(reader, peer, positions.received, positions.read))
        return positions

    async def conversations(self, user: int, before: Cursor | None, most: int, deadline: float) -> list[Listed]:
        """Return the user's conversations after `before` in the list, newest first.

        Conversations of which the user is shown no message are left out.
        """
        async with _until(deadline), self.turns.long(user):
            upto = await self._chat.blocks.shown_all(user)
            summaries = await self._directory.conversations(user, before, most, upto)
            peers = [summary.peer for summary in summaries]
            await self._chat.watches(user)  # changes after this answer are then sent to the inbox
            between = await asyncio.gather(*(self._chat.blocks.between(user, peer) for peer in peers))
            apart = {peer: ends for peer, ends in zip(peers, between, strict=True) if ends != (None, None)}
            try:
                online = await self._chat.presence.online([s.peer for s in summaries if s.mutual])
            except StorageUnavailable:  # then no peer is known to be
                online = set()
            unread = await self._unread(summaries)
        return [
            Listed(
                summary,
                unread.get(summary.last.conversation, 0),
                ReadPositions() if summary.peer in apart else summary.theirs,
                online=summary.mutual and summary.peer in online and summary.peer not in apart,
                blocked=summary.peer in apart and apart[summary.peer][0] is not None,
            )
            for summary in summaries
        ]

    async def _unread(self, summaries: list[Summary]) -> dict[str, int]:
        """Count by conversation the unread messages up to the last one in the list.

        A client that has this list counts later messages itself.
        """
        asked = [
            Unread(summary.last.conversation, summary.peer, summary.mine.read, summary.last.seq)
            for summary in summaries
            if summary.mine.read < summary.last.seq
        ]
        return await self._messages.unread_counts(asked, COUNTED + 1) if asked else {}

    async def _after(self, reader: int, peer: int, seq: int, most: int, most_bytes: int = PAGE_BYTES) -> Page:
        """Return the first messages after `seq`, with at most `most_bytes` of content.

        The first message may be longer if the whole answer is for this conversation.
        """
        found = await self._messages.after(conversation_of(reader, peer), seq, most + 1)
        return _cut(await self._shown(reader, peer, found), most, most_bytes)

    async def _shown(self, reader: int, peer: int, messages: list[Message]) -> list[Message]:
        """Return those of the messages, which are in ascending order, that a user is shown."""
        upto = await self._chat.blocks.shown_upto(reader, peer)
        return [message for message in messages if message.seq <= upto]

    async def everything(self, user: int) -> AsyncGenerator[list[Message], None]:
        """Yield all messages of all conversations that `user` is shown, in parts that are not empty."""

        def deadline() -> float:
            return asyncio.get_running_loop().time() + self._answer_timeout

        async with _until(deadline()), self.turns.long(user):
            summaries = await self._directory.conversations(user, None, ALL)
        for summary in summaries:
            page, seq = Page([], complete=False), 0
            while not page.complete:
                page = await self.after(user, summary.peer, seq, MOST, deadline())
                if page.messages:
                    seq = page.messages[-1].seq
                    yield page.messages

    async def _require_given(self, reader: int, peer: int, seq: int, *, begun: bool = True) -> None:
        """Raise InvalidFrame unless `seq` is 0 or was assigned once.

        `begun` says whether the conversation has any message.
        """
        name = conversation_of(reader, peer)
        conversation = self._chat.conversations.get(name)
        delivered = 0 if conversation is None else conversation.delivered_seq or 0
        if seq > delivered and not (begun and seq <= (await self._messages.head(name)).seq):
            raise InvalidFrame(f"seq: {seq} does not exist yet")


def _size_of(messages: list[Message]) -> int:
    """Return the size of their content in a frame, in bytes."""
    return sum(len(_encode(message.content)) for message in messages)


def _cut(messages: list[Message], most: int, most_bytes: int = PAGE_BYTES) -> Page:
    """Return the first messages, as many as fit into one answer of `most_bytes`."""
    size = 0
    for index, message in enumerate(messages[:most]):
        size += _size_of([message])
        if size > most_bytes and (index or most_bytes < PAGE_BYTES):
            return Page(messages[:index], complete=False)
    return Page(messages[:most], complete=len(messages) <= most)


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """Raise StorageUnavailable if the work inside has not ended, or not begun, at the deadline."""
    if asyncio.get_running_loop().time() >= deadline:
        raise StorageUnavailable("storage", "no answer in time")
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise StorageUnavailable("storage", "no answer in time") from None
