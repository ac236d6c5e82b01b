"""The pipeline: the steps of a message in order, from its conversation's queue to the answer to its sender.

A message is admitted by the limit rule, stored at its conversation's next `seq`, delivered, and acknowledged. One run
of messages of a conversation is in progress at a time, and is stored in order as far as possible. Messages after it
wait in the conversation's queue. The insert is the fence between processes: if two insert at the same `seq`, one gets
the other's message, delivers it, and tries the next seq. docs/design.md explains why nothing is lost.

While only the insert has to be awaited, a run goes without a task: it is inserted where it arrives, and continues in
the callback of the insert. Everything else is done by a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import structlog
from msgspec import structs

from common.tasks import end
from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation, PendingMessage, Stored
from models.chat.conversations import Conversations
from models.chat.deadlines import keep_deadline
from models.chat.delivery import Delivery
from models.chat.departures import Departures
from models.chat.inserting import Inserted, Inserter
from models.chat.loading import Loader
from models.chat.ports import Admission, Cluster, Counters, Insert, Messages, Recount, Sockets
from models.chat.stranger_limit import LIMIT
from models.errors import Blocked, ChatError, InvalidFrame, LimitReached, NotSent, StorageUnavailable, UnknownUser
from models.records import Message

__all__ = ["Writer"]

OPEN_FOR = 3600.0  # seconds for which a conversation is taken to be open before the rule is checked again
# How many messages of one conversation make a run: at least, at most, and between these one for every FOR_EACH
# conversations with pending messages. With few of them, a long run would delay the others.
RUN = (8, 32)
FOR_EACH = 4

_log = structlog.get_logger(__name__)


class Writer:
    """Runs the pipeline for the messages of all conversations. `clock` returns seconds since the epoch."""

    def __init__(
        self,
        conversations: Conversations,
        messages: Messages,
        acquaintances: Acquaintances,
        counters: Counters,
        sockets: Sockets,
        cluster: Cluster,
        blocks: Blocks,
        departures: Departures,
        loader: Loader,
        delivery: Delivery,
        clock: Callable[[], float],
    ) -> None:
        self._conversations = conversations
        self._messages = messages
        self._acquaintances = acquaintances
        self._counters = counters
        self._spent = counters.spent
        self._sockets = sockets
        self._cluster = cluster
        self._blocks = blocks
        self._departures = departures
        self._delivery = delivery
        self._inserter = Inserter(messages, loader, clock, delivery.on_remote_message, delivery.deliver_through)
        self._clock = clock
        self._writing = 0  # conversations with pending messages

    def take(self, conversation: Conversation, pending: PendingMessage) -> None:
        """Accept a message. Messages of one conversation keep the order of these calls."""
        conversation.queue.append(pending)
        keep_deadline(conversation, pending.deadline)
        if conversation.writer is None:
            self._writing += 1
            self._go_on(conversation)

    async def drain(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for pending messages, then abandon those without an outcome."""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        while writers := [c.writer for c in self._conversations if c.writer is not None]:
            await asyncio.wait(writers, timeout=max(0.0, deadline - now()))
            if now() >= deadline:
                await end(*(c.writer for c in self._conversations if c.writer is not None))
                break

    def _go_on(self, conversation: Conversation) -> None:
        """Start the next run, if the queue is not empty."""
        if not conversation.queue:
            self._rest(conversation)
        elif not self._sent_off(conversation):
            conversation.writer = asyncio.get_running_loop().create_task(self._write(conversation))

    def _sent_off(self, conversation: Conversation) -> bool:
        """Insert the next run without a task. Return whether that was possible: only the insert has to be awaited."""
        now = asyncio.get_running_loop().time()
        if conversation.unblocked_until <= now or not self._is_open(conversation) or not self._cluster.single_process:
            return False
        run = self._run_of(conversation)
        inserting = self._inserter.ready(conversation, run, now)
        conversation.queue[:0] = run[len(inserting) :]
        if not inserting:
            return False
        conversation.carried, conversation.inserting = run[: len(inserting)], inserting
        conversation.writer = insert = self._messages.insert(*inserting)
        insert.add_done_callback(partial(self._landed, conversation))
        return True

    def _landed(self, conversation: Conversation, insert: Insert) -> None:
        """Continue a run whose insert without a task has ended."""
        if insert.cancelled():  # the server ends
            self._clear(conversation)
            self._rest(conversation)
            return
        if insert.exception() is not None or insert.result() is not None or not self._cluster.single_process:
            conversation.writer = asyncio.get_running_loop().create_task(self._write(conversation, insert))
            return
        run = conversation.carried
        try:
            for pending, message in zip(run, conversation.inserting, strict=True):
                online = self._delivery.deliver(conversation, message, pending.origin).live
                self._acknowledge(conversation, pending, message, online=online)
        except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
            self._failed(conversation, run, error)
        self._clear(conversation)
        self._go_on(conversation)

    async def _write(self, conversation: Conversation, insert: Insert | None = None) -> None:
        """Run the conversation's messages through the pipeline, until they can go without a task again.

        With `insert`, the first run was inserted already.
        """
        sent_off = False
        try:
            while not sent_off and (conversation.queue or insert is not None):
                if insert is None:
                    conversation.carried = self._run_of(conversation)
                run = conversation.carried
                try:
                    await self._carry(conversation, run, insert)
                except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
                    self._failed(conversation, run, error)
                finally:
                    insert = None
                    self._clear(conversation)
                sent_off = self._sent_off(conversation)
        finally:
            if not sent_off:
                self._rest(conversation)

    def _failed(self, conversation: Conversation, run: list[PendingMessage], error: Exception) -> None:
        _log.error("message_failed", conversation=conversation.name, exc_info=error)
        for pending in run:
            pending.resolve(ChatError(str(error)))

    def _clear(self, conversation: Conversation) -> None:
        """Note that no run of the conversation is in progress."""
        conversation.carried = []
        conversation.inserting = ()
        self._delivery.drain_buffered(conversation)

    def _rest(self, conversation: Conversation) -> None:
        """Release a conversation that has no pending messages."""
        self._writing -= 1
        conversation.writer = None
        self._conversations.release(conversation)

    def _is_open(self, conversation: Conversation) -> bool:
        """Return whether neither the limit rule nor a quota is known to refuse."""
        if self._spent and not self._spent.isdisjoint(conversation.users):
            return False
        return conversation.open_until > self._clock()

    def _run_of(self, conversation: Conversation) -> list[PendingMessage]:
        """Take the next messages from the queue that can make a run: those that the rule cannot refuse."""
        least, longest = RUN
        most = 1
        if self._is_open(conversation):
            most = min(longest, max(least, self._writing // FOR_EACH))
        run = conversation.queue[:most]
        del conversation.queue[:most]
        # The others have passed their deadline, and were never tried.
        return [pending for pending in run if pending.outcome is None]

    async def _carry(self, conversation: Conversation, run: list[PendingMessage], insert: Insert | None) -> None:
        """Take a run through the steps in order; remove messages that have their outcome from `run`."""
        if not run:
            return
        admission = None
        try:
            if insert is None:
                admission = await self._admit(conversation, run)
                run[:] = [pending for pending in run if pending.outcome is None]
                if not run:
                    raise StorageUnavailable("storage", "no answer in time")
            async with aclosing(self._inserter.insert(conversation, run, admission, insert)) as steps:
                async for inserted in steps:
                    for each in inserted:
                        await self._on_inserted(conversation, run[0], each, admission)
                        del run[0]
        except (LimitReached, Blocked, UnknownUser) as error:
            # A count that MongoDB confirms is not given back.
            for pending in run:
                pending.resolve(await self._repeated(conversation, pending) or error)
        except ChatError as error:
            # Any error here is about messages that are known not to be stored.
            await self._give_back(admission)
            if isinstance(error, NotSent) and any(pending.outcome is not None for pending in run):
                conversation.queue[:0] = [pending for pending in run if pending.outcome is None]  # they have time left
                return
            for pending in run:
                pending.resolve(error)

    async def _admit(self, conversation: Conversation, run: list[PendingMessage]) -> Admission | None:
        """Check what has to be checked before a run may be stored. Put back messages that have to wait for the result.

        Raises Blocked, UnknownUser, LimitReached, StorageUnavailable.
        """
        if conversation.unblocked_until <= asyncio.get_running_loop().time():
            self._departures.require_here(conversation)
            await self._blocks.require_open(conversation)
        if not self._is_open(conversation):
            conversation.queue[:0] = run[1:]  # it may have been open until a moment ago
            del run[1:]
            first = run[0]
            return await self._counters.admit(first.sender, first.recipient, self._recount(conversation, first))
        return None

    async def _on_inserted(
        self, conversation: Conversation, pending: PendingMessage, inserted: Inserted, admission: Admission | None
    ) -> None:
        """Do the steps that follow when a message is stored."""
        if inserted.dup:
            await self._give_back(admission)
            pending.resolve(await self._repeat(conversation, pending, inserted.message))
            return
        if admission is not None and admission.theirs > 0 and await self._introduced(conversation):
            conversation.open_until = self._clock() + OPEN_FOR
        online = await self._delivery.publish(conversation, inserted.message, pending.origin)
        self._acknowledge(conversation, pending, inserted.message, online=online, counted=admission is not None)

    def _acknowledge(
        self,
        conversation: Conversation,
        pending: PendingMessage,
        message: Message,
        *,
        online: bool,
        counted: bool = False,
    ) -> None:
        """Acknowledge a message: the last step. A message that the rule did not count is counted afterwards."""
        pending.resolve(Stored(message.seq, message.time, online))
        if counted:
            self._counters.weigh(pending.sender, pending.content)
        else:
            self._counters.gather(
                pending.sender, pending.recipient, self._recount(conversation, pending), pending.content
            )

    async def _repeated(self, conversation: Conversation, pending: PendingMessage) -> Stored | ChatError | None:
        """Return the answer to a refused message if it is a resend of one that is stored."""
        if not pending.id:
            return None
        try:
            first = await self._messages.find(conversation.name, pending.key)
        except StorageUnavailable as error:
            return error
        return None if first is None else await self._repeat(conversation, pending, first)

    async def _repeat(self, conversation: Conversation, pending: PendingMessage, first: Message) -> Stored | ChatError:
        """Return the answer to a message that was stored before."""
        if first.content != pending.content:
            return InvalidFrame("id: was used for another content")
        if conversation.delivered_seq is not None and first.seq > conversation.delivered_seq:
            # While it counts as being inserted, nothing else delivers it, also to the socket that gets the answer.
            conversation.inserting = (first,)
            try:
                await self._delivery.deliver_through(conversation, first.seq - 1)
            except StorageUnavailable as error:
                return error
            online = await self._delivery.publish(conversation, first, pending.origin) and await self._may_know(pending)
        else:
            online = await self._reaches(pending)
        return Stored(first.seq, first.time, online, dup=True)

    async def _reaches(self, pending: PendingMessage) -> bool:
        """Return whether the recipient is online, as far as the sender may know."""
        if not await self._may_know(pending):
            return False
        online = self._sockets.reaches(pending.recipient, pending.sender)
        return online or (
            not self._cluster.single_process and await self._cluster.reaches(pending.recipient, pending.sender)
        )

    async def _may_know(self, pending: PendingMessage) -> bool:
        """Return whether the sender may be told any number of times if the recipient is online, as with presence."""
        try:
            return not await self._blocks.apart(pending.sender, pending.recipient) and (
                await self._acquaintances.acquainted(pending.sender, pending.recipient)
            )
        except StorageUnavailable:
            return False

    def _recount(self, conversation: Conversation, pending: PendingMessage) -> Recount:
        async def recount(until: int) -> tuple[int, int]:
            mine = await self._messages.count(conversation.name, pending.sender, until, LIMIT)
            return mine, await self._messages.count(conversation.name, pending.recipient, until, LIMIT)

        return recount

    async def _give_back(self, admission: Admission | None) -> None:
        if admission is None:
            return
        try:
            await self._counters.give_back(admission)
        except StorageUnavailable as error:
            # The count stays too high until it expires. The rule may refuse too early, but never too late.
            _log.warning("count_not_given_back", sender=admission.sender, reason=str(error))

    async def _introduced(self, conversation: Conversation) -> bool:
        """Record once that both have written. Return whether that is recorded."""
        if conversation.head is None:
            return False
        if not conversation.head.mutual:
            try:
                await self._acquaintances.introduce(conversation.name)
            except StorageUnavailable as error:
                _log.warning("not_introduced", conversation=conversation.name, reason=str(error))
                return False
            if conversation.head is not None:
                conversation.head = structs.replace(conversation.head, mutual=True)
        return True
