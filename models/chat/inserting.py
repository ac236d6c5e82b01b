"""Step 3 of the pipeline: store messages at the next seqs, and retry until the outcome is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from models.chat.conversation import Conversation, PendingMessage
from models.chat.loading import Loader
from models.chat.ports import Admission, Insert, Messages
from models.chat.stranger_limit import DAY, LIMIT, REFUSED_DAYS
from models.errors import LimitReached, NotSent, StorageUnavailable
from models.records import Head, Message

__all__ = ["ANNOUNCED_FOR", "BACKOFF", "Inserted", "Inserter"]

BACKOFF = (0.05, 1.0)  # seconds between attempts with an unknown outcome: first, and at most
ANNOUNCED_FOR = 60.0  # seconds for which messages may be stored after an announcement
# Milliseconds from now to the latest time of such a message; more than needed, so that a clock's step is harmless.
ANNOUNCED_TO = 120_000
SPREAD = 1000  # different times at which conversations that begin together are announced again


class Inserted(NamedTuple):
    """A stored message. `dup` says that an earlier attempt to send it had stored it."""

    message: Message
    dup: bool


class Inserter:
    """Inserts messages at the next seqs of their conversations.

    `clock` returns seconds since the epoch. `found` is called with another process's message that has the seq.
    `deliver_through` gives the sockets the messages up to a `seq`.
    """

    def __init__(
        self,
        messages: Messages,
        loader: Loader,
        clock: Callable[[], float],
        found: Callable[[Conversation, Message], None],
        deliver_through: Callable[[Conversation, int], Awaitable[None]],
    ) -> None:
        self._messages = messages
        self._loader = loader
        self._clock = clock
        self._found = found
        self._deliver_through = deliver_through

    async def insert(
        self,
        conversation: Conversation,
        pending: Sequence[PendingMessage],
        admission: Admission | None,
        insert: Insert | None = None,
    ) -> AsyncGenerator[list[Inserted], None]:
        """Store messages. Yield them as they are stored, some or all at a time, in order.

        Raises a ChatError only if all messages that were not yielded are known not to be stored. The conversation's
        `inserting` stays set until the caller has delivered the last message and clears it. With `insert`, the first
        attempt was made already: that of `inserting`.
        """
        left = tuple(pending)
        pause = BACKOFF[0]
        uncertain = False  # an earlier attempt may have stored some of `inserting`, or may still do so
        if insert is None:
            conversation.inserting = ()
        while left:
            if not conversation.inserting:
                conversation.inserting = await self._next(conversation, left, admission)
                uncertain = False
            run = conversation.inserting
            try:
                if insert is None and not self._announced(conversation, run[-1].time):
                    await self._announce(conversation, run[-1].time)
                attempt, insert = insert or self._messages.insert(*run), None
                conflict = await attempt
            except StorageUnavailable as error:
                if not uncertain and isinstance(error, NotSent):
                    if any(each.outcome is not None for each in left):
                        raise  # these are not stored; the others are tried again without them
                else:
                    uncertain = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACKOFF[1])
                continue
            existing = None if conflict is None else conflict.existing
            count = len(run) if conflict is None else conflict.offset
            inserted = [Inserted(message, dup=False) for message in run[:count]]
            rest: Sequence[Message] = ()
            if existing is not None and existing.key == run[count].key:
                ours = uncertain and existing == run[count]  # an attempt of this request stored it
                inserted.append(Inserted(existing, dup=not ours))
                if ours:  # otherwise no attempt has stored what comes after it
                    rest = run[count + 1 :]
            if inserted:
                yield inserted
            left = left[len(inserted) :]
            conversation.inserting = rest
            if existing is not None and len(inserted) == count:  # another process's message has the seq
                self._found(conversation, existing)
                conversation.advance(existing)  # also if the sockets were given it before the head was read

    def ready(self, conversation: Conversation, pending: Sequence[PendingMessage], now: float) -> Sequence[Message]:
        """Return the messages with the next seqs, as many as are reserved; none if something has to be awaited first.

        `now` is the loop's time.
        """
        head = conversation.head
        if head is None or not self._loader.knows(conversation):
            return ()
        if conversation.delivered_seq is not None and conversation.delivered_seq < head.seq:
            return ()
        if conversation.announced_until <= now:
            return ()
        messages = self._numbered(head, pending)
        return messages if messages and messages[-1].time <= conversation.announced_to else ()

    def _announced(self, conversation: Conversation, time: int) -> bool:
        """Return whether a message of this time (milliseconds) that is stored from now on is announced."""
        return conversation.announced_until > asyncio.get_running_loop().time() and time <= conversation.announced_to

    async def _announce(self, conversation: Conversation, time: int) -> None:
        """Announce messages of about this time (milliseconds). Raises StorageUnavailable."""
        begun = asyncio.get_running_loop().time()
        await self._messages.announce(conversation.name, time + ANNOUNCED_TO)
        self._note_announced(conversation, begun, time + ANNOUNCED_TO)

    def _note_announced(self, conversation: Conversation, begun: float, to: int) -> None:
        """Note what was announced by a call that began at `begun` (loop time)."""
        spread = sum(conversation.users) % SPREAD / SPREAD
        conversation.announced_until = begun + ANNOUNCED_FOR * (1 + spread) / 2
        conversation.announced_to = to

    def _numbered(self, head: Head, pending: Sequence[PendingMessage]) -> Sequence[Message]:
        now = max(int(self._clock() * 1000), head.time)
        seqs = range(head.seq + 1, head.reserved + 1)
        return [each.at(seq, now) for each, seq in zip(pending, seqs, strict=False)]

    async def _next(
        self, conversation: Conversation, pending: Sequence[PendingMessage], admission: Admission | None
    ) -> Sequence[Message]:
        """Return the messages with the seqs after the last one that exists, as many as are reserved."""
        head = await self._loader.head(conversation)
        if admission is not None and admission.theirs == 0 and self._exhausted(head, pending[0].sender):
            raise LimitReached
        if not self._loader.knows(conversation):
            for user in conversation.users:
                await self._loader.read_state(conversation, user)
        while True:  # other processes may store messages whenever something is awaited
            head = await self._loader.head(conversation)
            time = max(int(self._clock() * 1000), head.time)
            if head.seq >= head.reserved:
                begun = asyncio.get_running_loop().time()
                reserved = await self._messages.reserve(conversation.name, head.seq + 1, time + ANNOUNCED_TO)
                self._note_announced(conversation, begun, time + ANNOUNCED_TO)
                if conversation.head is not None:
                    conversation.head = structs.replace(
                        conversation.head, reserved=max(reserved, conversation.head.reserved)
                    )
            elif not self._announced(conversation, time + 1000):  # some time will pass until it is stored
                await self._announce(conversation, time)
            elif conversation.delivered_seq is not None and conversation.delivered_seq < head.seq:
                await self._deliver_through(conversation, head.seq)
            else:
                break
        return self._numbered(head, pending)

    def _exhausted(self, head: Head, sender: int) -> bool:
        """Return whether MongoDB shows that the sender's count is used up, whatever Redis knows.

        A count lives for at least 30 days after each message that it counted. So three messages of the sender in that
        time and none of the peer's are a full count. That holds also if Redis lost the count a moment ago, and another
        process's messages had not reached MongoDB when it was rebuilt.
        """
        since = (self._clock() - REFUSED_DAYS * DAY) * 1000
        return len(head.senders) == LIMIT and all(who == sender and when > since for who, when in head.senders)
