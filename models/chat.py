"""The chat: send, history, unread. The only place where the steps of a message stand in order.

A message is admitted by the limit rule, stored at its conversation's next `seq`, acknowledged, delivered.
One message of a conversation is on its way at a time; what is behind it waits in the conversation's queue.
Trying the place is the fence between processes: of two that insert at the same `seq` one is told what
stands there, delivers it, and goes on behind it. docs/design.md says why nothing is lost on this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from models.conversation import Conversation, Draft, Reading, Sent
from models.errors import ChatError, EngineUnavailable, LimitReached, NotSent
from models.limits import ACCEPTED_DAYS, LIMIT, REFUSED_DAYS
from models.ports import Admission, Counters, Messages, Recount, Sockets
from models.records import Head, Message, conversation_of

__all__ = ["PAGE", "Chat", "Shown"]

PAGE = 10  # messages in an answer to a history request; the article, section 2.3.3
CHUNK = 100  # messages read at once for an unread request
DAY = 86_400
OPEN_FOR = 3600.0  # seconds for which a conversation is taken to stay open before the rule is asked again
BACKOFF = (0.05, 1.0)  # seconds between attempts whose outcome is not known: first, and at most

_log = structlog.get_logger(__name__)


class Shown(NamedTuple):
    """A part of an answer to an unread request; once written, all up to `upto` counts as read."""

    messages: list[Message]
    upto: int


class Chat:
    """The conversations that are active in this process.

    `clock` returns seconds since the epoch, `new_key` the 16 bytes that tell a message from every other;
    `answer_timeout` (seconds) bounds each further part of a long answer. Every request has a deadline of its own,
    in the event loop's time.
    """

    def __init__(
        self,
        messages: Messages,
        counters: Counters,
        sockets: Sockets,
        *,
        clock: Callable[[], float],
        new_key: Callable[[], bytes],
        answer_timeout: float,
    ) -> None:
        self._messages = messages
        self._counters = counters
        self._sockets = sockets
        self._clock = clock
        self._new_key = new_key
        self._answer_timeout = answer_timeout
        self._conversations: dict[str, Conversation] = {}

    def join(self, user: int, peer: int) -> None:
        """A socket of `user` that talks with `peer` has opened."""
        self._enter(user, peer).sockets += 1

    def leave(self, user: int, peer: int) -> None:
        """The counterpart of `join`."""
        conversation = self._enter(user, peer)
        conversation.sockets -= 1
        self._forget(conversation)

    def send(self, sender: int, recipient: int, content: str, deadline: float) -> asyncio.Future[Sent | ChatError]:
        """Takes a message; messages of one sender keep the order of these calls.

        The answer is Sent once the message is durable, or a ChatError: LimitReached, or EngineUnavailable
        at the deadline, which promises nothing: the message may still be stored and delivered.
        """
        loop = asyncio.get_running_loop()
        conversation = self._enter(sender, recipient)
        draft = Draft(sender, recipient, content, self._new_key(), loop)
        draft.timer = loop.call_at(deadline, draft.settle, EngineUnavailable("storage", "no answer yet"))
        conversation.queue.append(draft)
        if conversation.writer is None:
            conversation.writer = loop.create_task(self._write(conversation))
        return draft.answer

    async def history(self, reader: int, peer: int, before: int | None, deadline: float) -> list[Message]:
        """The ten newest messages before a time (milliseconds; None: the newest of all), oldest first.

        Raises EngineUnavailable at the deadline.
        """
        name = conversation_of(reader, peer)
        async with _until(deadline):
            if before is None:
                last = await self._messages.newest(name)
            else:
                last = await self._messages.last_before(name, before)
            return await self._messages.page(name, last - PAGE + 1, last)

    async def unread(self, reader: int, peer: int, deadline: float) -> AsyncGenerator[Shown, None]:
        """Everything since the peer's first message that `reader` has not read; the newest ten if there is none.

        In parts, both directions, oldest first; call `mark` with each part once it is written. Raises
        EngineUnavailable when the first part is not there at the deadline, or a further one in time.
        """
        conversation = self._enter(reader, peer)
        try:
            async with _until(deadline):
                # What this process has not delivered yet is not shown either: it is about to come by itself.
                last = (await self._load(conversation)).seq
                reading = await self._reading(conversation, reader)
            if reading.first_unread is None:
                yield Shown(await self.history(reader, peer, None, deadline), reading.read)
                return
            for first in range(reading.first_unread, last + 1, CHUNK):
                upto = min(first + CHUNK - 1, last)
                async with _until(deadline):
                    messages = await self._messages.page(conversation.name, first, upto)
                yield Shown(messages, upto)
                deadline = asyncio.get_running_loop().time() + self._answer_timeout
        finally:
            self._forget(conversation)

    def mark(self, reader: int, peer: int, upto: int) -> None:
        """Marks everything up to `upto` as read by `reader`."""
        conversation = self._conversations.get(conversation_of(reader, peer))
        reading = conversation.readings.get(reader) if conversation else None
        if conversation is None or reading is None or reading.read >= upto:
            return
        reading.shown(upto, conversation.head.seq if conversation.head else upto)
        self._messages.mark_read(conversation.name, reader, reading.read)

    async def drain(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for messages on their way, then abandons those without an outcome."""
        writers = [c.writer for c in self._conversations.values() if c.writer is not None]
        if not writers:
            return
        _, late = await asyncio.wait(writers, timeout=timeout)
        for writer in late:
            writer.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _enter(self, one: int, other: int) -> Conversation:
        name = conversation_of(one, other)
        conversation = self._conversations.get(name)
        if conversation is None:
            conversation = self._conversations[name] = Conversation(one, other)
        return conversation

    def _forget(self, conversation: Conversation) -> None:
        if conversation.idle:
            self._conversations.pop(conversation.name, None)

    async def _load(self, conversation: Conversation) -> Head:
        """Where the conversation stands; read from the store when it is not known, or known for too long."""
        head = conversation.head
        # A head whose message may have expired says nothing: `seq` goes on elsewhere then (storage/messages.py).
        if head is None or (head.seq and head.time < (self._clock() - ACCEPTED_DAYS * DAY) * 1000):
            head = await self._messages.head(conversation.name)
            conversation.head = head
            conversation.readings.clear()
        return head

    async def _reading(self, conversation: Conversation, reader: int) -> Reading:
        reading = conversation.readings.get(reader)
        if reading is None:
            bookmarks = await self._messages.bookmarks(conversation.name, reader, conversation.other(reader))
            seen = conversation.head.seq if conversation.head else 0
            reading = Reading(bookmarks.read, bookmarks.first_unread, seen if bookmarks.first_unread else 0)
            # Whoever asked first is right: messages may have arrived since.
            reading = conversation.readings.setdefault(reader, reading)
        return reading

    async def _write(self, conversation: Conversation) -> None:
        """Carries the conversation's messages through, one after the other, until none waits."""
        try:
            while conversation.queue:
                draft = conversation.queue.popleft()
                if draft.answer.done():  # waited too long, and was never tried
                    continue
                try:
                    await self._carry(conversation, draft)
                except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
                    _log.exception("message_failed", conversation=conversation.name)
                    draft.settle(ChatError(str(error)))
        finally:
            conversation.writer = None
            self._forget(conversation)

    async def _carry(self, conversation: Conversation, draft: Draft) -> None:
        """The steps of one message, in order."""
        admission = None
        try:
            if conversation.open_until <= self._clock():
                admission = await self._counters.admit(
                    draft.sender, draft.recipient, self._recount(conversation, draft)
                )
            if draft.answer.done():
                raise EngineUnavailable("storage", "no answer in time")
            message = await self._place(conversation, draft, admission)
        except ChatError as error:
            # Whatever is raised here is raised for a message that is known not to be stored. A count that
            # MongoDB knows to be true is kept all the same.
            if admission is not None and not isinstance(error, LimitReached):
                await self._give_back(admission)
            draft.settle(error)
            return
        online = self._deliver(conversation, message)
        draft.settle(Sent(message.seq, message.time, online))
        if admission is None:
            self._counters.gather(draft.sender, draft.recipient, self._recount(conversation, draft))
        elif admission.theirs > 0:
            conversation.open_until = self._clock() + OPEN_FOR

    async def _place(self, conversation: Conversation, draft: Draft, admission: Admission | None) -> Message:
        """Stores a message at its conversation's next place, whatever it takes to know the outcome.

        Raises a ChatError only when the message is known not to be stored.
        """
        message: Message | None = None
        uncertain = False
        pause = BACKOFF[0]
        while True:
            if message is None:
                message = await self._next_place(conversation, draft, admission)
                uncertain = False
            try:
                occupied = await self._messages.insert(message)
            except EngineUnavailable as error:
                if not uncertain and isinstance(error, NotSent):
                    if draft.answer.done():
                        raise
                else:
                    uncertain = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACKOFF[1])
                continue
            if occupied is None or occupied.standing.key == message.key:
                return message
            self._deliver(conversation, occupied.standing)
            message = None

    async def _next_place(self, conversation: Conversation, draft: Draft, admission: Admission | None) -> Message:
        head = await self._load(conversation)
        if admission is not None and admission.theirs == 0 and self._exhausted(head, draft.sender):
            raise LimitReached
        for user in conversation.users:
            await self._reading(conversation, user)
        message = draft.at(head.seq + 1, max(int(self._clock() * 1000), head.time))
        if message.seq > head.reserved:
            reserved = await self._messages.reserve(conversation.name, message.seq)
            conversation.head = Head(head.seq, head.time, reserved, head.senders)
        return message

    def _exhausted(self, head: Head, sender: int) -> bool:
        """Whether MongoDB shows that the sender's count was used up, whatever Redis remembers.

        A count lives for at least 30 days after each message that it counted. Three messages of the sender
        in that time and none of the peer's are a full count, also when Redis lost it a moment ago and another
        process's messages were still on their way to MongoDB when it was rebuilt.
        """
        since = (self._clock() - REFUSED_DAYS * DAY) * 1000
        return len(head.senders) == LIMIT and all(who == sender and when > since for who, when in head.senders)

    def _deliver(self, conversation: Conversation, message: Message) -> bool:
        """Hands a stored message to the recipient's sockets; whether one took it."""
        conversation.advance(message)
        live = self._sockets.deliver(message)
        own = conversation.readings.get(message.sender)
        if own is not None:
            own.sent(message.seq)
        reading = conversation.readings.get(message.recipient)
        if reading is not None and reading.received(message.seq, live=live):
            self._messages.mark_read(conversation.name, message.recipient, message.seq)
        return live

    def _recount(self, conversation: Conversation, draft: Draft) -> Recount:
        async def recount(until: int) -> tuple[int, int]:
            mine = await self._messages.count(conversation.name, draft.sender, until, LIMIT)
            return mine, await self._messages.count(conversation.name, draft.recipient, until, LIMIT)

        return recount

    async def _give_back(self, admission: Admission) -> None:
        try:
            await self._counters.give_back(admission)
        except EngineUnavailable as error:
            # The count stays too high until it expires: the rule may refuse too early, never too late.
            _log.warning("count_not_given_back", sender=admission.sender, reason=str(error))


@asynccontextmanager
async def _until(deadline: float) -> AsyncIterator[None]:
    """Raises EngineUnavailable when the work inside is not done at the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise EngineUnavailable("storage", "no answer in time") from None
