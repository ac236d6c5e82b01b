"""The pipeline: the steps of a message in order, from its conversation's queue to the answer to its sender.

Each conversation has a queue and at most one run in progress, which is the part of the queue that is stored together.

              send, _next_run
    (idle) --------------------> is anything to be awaited first?
       ^                            | yes                | no
       |                            v                    v
       |        _prepare: blocks, limit rule, -------> _insert <------- same documents ----+
       |        head, seqs, earlier messages             |                               |
       |           |           ^                         |                               |
       |   refused |           | new seqs                |                               |
       |           v           |                         v                               |
       |        _refuse     _settle <---- conflict -- _landed -- not sent or unknown --> _retry
       |           |           |   or first answer       | stored                        | expired
       |           v           v                         v                               v
       +------- _next_run <--------- _finish: deliver, publish, count, acknowledge    _next_run

A run begins in the turn of the loop after its first message came. So messages that came together are stored together,
and their answers leave together.

Steps are plain calls and callbacks of the insert. `_prepare`, `_settle`, `_refuse` and `_retry` await something, and
run as the conversation's only task meanwhile. They lead back into the same steps, which are the same with one process
or many. `_settle` goes on with `_insert` if an earlier attempt may have stored what is left.

The insert is the fence between processes: if two insert at the same `seq`, one gets the other's message, delivers it,
and tries the next seq. docs/design.md explains why nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from common.backoff import Backoff
from common.tasks import end
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation, PendingMessage, Run, Stored
from models.chat.conversations import Conversations
from models.chat.delivery import BACKOFF, Delivery
from models.chat.departures import Departures
from models.chat.loading import Loader
from models.chat.ports import Conflict, Insert, Messages
from models.chat.resends import Resends
from models.chat.stranger_limit import StrangerLimit
from models.errors import Blocked, ChatError, LimitReached, NotSent, Overloaded, StorageUnavailable, UnknownUser
from models.records import Head, Message, key_of

__all__ = ["ANNOUNCED_FOR", "Pipeline"]

# The longest run has a message for every CONVERSATIONS_A_MESSAGE conversations in progress, within these limits. If few
# are in progress, a long run would delay the others.
SHORT_RUN, LONG_RUN = 8, 32
CONVERSATIONS_A_MESSAGE = 4
ANNOUNCED_FOR = 60.0  # seconds for which messages may be stored after an announcement
# Milliseconds from now to the latest time of such a message; more than needed, so that a clock's step is harmless.
ANNOUNCED_TO = 120_000
SPREAD = 1000  # different times at which conversations that begin together are announced again

Step = Callable[..., Coroutine[Any, Any, None]]  # takes a conversation, its run, and what the step needs besides

_log = structlog.get_logger(__name__)


class Pipeline:
    """Run the messages of all conversations through the steps.

    `clock` returns seconds since the epoch, `new_key` the 16-byte key of a message without an id. `observe` is called
    with the code of each answer to a message and the seconds it took.
    """

    def __init__(
        self,
        conversations: Conversations,
        messages: Messages,
        *,
        limit: StrangerLimit,
        blocks: Blocks,
        departures: Departures,
        loader: Loader,
        delivery: Delivery,
        resends: Resends,
        clock: Callable[[], float],
        new_key: Callable[[], bytes],
        observe: Callable[[int, float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()  # kept: on Python 3.11 each get_running_loop() calls getpid()
        self._conversations = conversations
        self._messages = messages
        self._limit = limit
        self._blocks = blocks
        self._departures = departures
        self._loader = loader
        self._delivery = delivery
        self._resends = resends
        self._clock = clock
        self._new_key = new_key
        self._observe = observe
        self._running = 0  # conversations with a run in progress
        self._published: set[asyncio.Future[bool]] = set()  # answers that acknowledgements wait for
        self._closed = False

    def send(
        self,
        sender: int,
        recipient: int,
        content: str,
        deadline: float,
        resolved: Callable[[PendingMessage], None],
        *,
        message_id: str = "",
        origin: object = None,
    ) -> PendingMessage:
        """Accept a message. Messages of one conversation keep the order of these calls.

        The outcome is Stored once the message is durable, or a ChatError. LimitReached, Blocked, and UnknownUser if one
        of the two is gone, refuse the message; so does InvalidFrame if its id was used for another content.
        StorageUnavailable at the deadline (loop time) promises nothing: the message may still be stored and delivered,
        and `resolved` be called again. Overloaded means that the pipeline is closed.
        """
        conversation = self._conversations.write(sender, recipient)
        key = key_of(sender, message_id) if message_id else self._new_key()
        taken = self._loop.time()
        pending = PendingMessage(
            sender, recipient, content, key, resolved, message_id, origin, self._answered, taken, deadline
        )
        if self._closed:
            self._loop.call_soon(pending.resolve, Overloaded("the server is going away; connect again"))
            self._conversations.release(conversation)
            return pending
        idle = not conversation.queue and conversation.run is None
        conversation.enqueue(pending)
        if idle:
            self._running += 1
            self._loop.call_soon(self._next_run, conversation)
        return pending

    def _answered(self, pending: PendingMessage) -> None:
        if pending.outcome is not None:
            self._observe(pending.outcome.code, self._loop.time() - pending.taken)

    async def drain(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for pending messages. Then abandon those without an outcome, and close."""
        deadline = self._loop.time() + timeout
        await asyncio.sleep(0)  # for the runs that are about to begin
        while works := self._works():
            await asyncio.wait(works, timeout=max(0.0, deadline - self._loop.time()))
            if self._loop.time() >= deadline:
                await self.close()
                break

    async def close(self) -> None:
        """Accept no messages and begin no runs any more. Abandon what is in progress."""
        self._closed = True
        await asyncio.sleep(0)  # for the runs that were about to begin
        while works := self._works():
            await end(*works)
            await asyncio.sleep(0)  # for the callbacks of what has ended

    def _works(self) -> list[asyncio.Future[Any]]:
        runs = (each.run for each in self._conversations if each.run is not None)
        return [*(run.work for run in runs if run.work is not None), *self._published]

    # A run begins

    def _next_run(self, conversation: Conversation) -> None:
        """Begin the next run, or release the conversation if its queue is empty."""
        if self._closed or not conversation.queue:
            self._release(conversation)
            return
        run: Run | None = None
        try:
            is_open = self._limit.is_open(conversation)
            run = conversation.take_run(self._longest_run() if is_open else 1)  # the rule decides on each message
            if run is None:  # all have passed their deadline
                self._release(conversation)
            elif is_open and self._is_unblocked(conversation) and self._is_ready(conversation):
                self._insert(conversation, run)
            else:
                self._start(conversation, run, self._prepare)
        except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
            if run is None and conversation.take_run(len(conversation.queue)) is None:
                self._release(conversation)
            self._fail(conversation, error)

    def _longest_run(self) -> int:
        wanted = self._running // CONVERSATIONS_A_MESSAGE
        return SHORT_RUN if wanted < SHORT_RUN else min(wanted, LONG_RUN)

    def _is_unblocked(self, conversation: Conversation) -> bool:
        """Return whether both accounts exist and neither user blocks the other, as far as that is known."""
        now = self._loop.time()
        if conversation.unblocked_until > now:
            return True
        until = self._blocks.known_open_until(conversation)
        if until <= now or not self._departures.are_here(conversation):
            return False
        conversation.keep_unblocked(until)
        return True

    def _start(self, conversation: Conversation, run: Run, step: Step, *args: Any) -> None:
        """Run a step that awaits something as the conversation's only task."""
        run.work = task = self._loop.create_task(self._guard(conversation, run, step, *args))
        task.add_done_callback(partial(self._on_task_done, conversation))

    async def _guard(self, conversation: Conversation, run: Run, step: Step, *args: Any) -> None:
        try:
            await step(conversation, run, *args)
        except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
            self._fail(conversation, error)

    def _on_task_done(self, conversation: Conversation, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # the server ends
            self._release(conversation)

    def _end_run(self, conversation: Conversation, run: Run) -> None:
        """End a run, and begin the next one."""
        run.documents = ()
        try:
            self._delivery.drain_buffered(conversation)
        except Exception:  # noqa: BLE001  # a bug must not stop the queue
            _log.exception("delivery_failed", conversation=conversation.name)
        self._next_run(conversation)

    def _release(self, conversation: Conversation) -> None:
        """Release a conversation that has no run in progress."""
        self._running -= 1
        conversation.end_run()
        self._conversations.release(conversation)

    def _fail(self, conversation: Conversation, error: Exception) -> None:
        """Answer the messages of the run in progress after a bug. Some of them may be stored."""
        _log.error("message_failed", conversation=conversation.name, exc_info=error)
        run = conversation.run
        if run is not None:
            for pending in run.pending:
                pending.resolve(ChatError(str(error)))
            conversation.forget_head()
            conversation.need_fetch()
            self._end_run(conversation, run)

    async def _prepare(self, conversation: Conversation, run: Run) -> None:
        """Do what has to be awaited before the run can be inserted."""
        try:
            await self._admit(conversation, run)
            await self._make_ready(conversation, run)
            run.drop_resolved()
            if not run.pending:
                raise StorageUnavailable("storage", "no answer in time")
        except ChatError as error:  # none of the run's messages is stored
            await self._refuse(conversation, run, error)
        else:
            self._insert(conversation, run)

    # Step 1: admit

    async def _admit(self, conversation: Conversation, run: Run) -> None:
        """Check accounts, blocks and the limit rule. Put messages back that have to wait for the rule's answer.

        Raises Blocked, UnknownUser, LimitReached, StorageUnavailable.
        """
        if conversation.unblocked_until <= self._loop.time():
            self._departures.require_here(conversation)
            await self._blocks.require_open(conversation)
        if run.admission is None and not self._limit.is_open(conversation):
            first, *others = run.pending  # the rule may have been known to pass until a moment ago
            conversation.put_back(others)
            run.pending = [first]
            run.admission = await self._limit.admit(conversation, first)

    # Step 2: find the next seq

    def _is_ready(self, conversation: Conversation) -> bool:
        """Return whether a message can be inserted after the head."""
        head = conversation.head
        return (
            head is not None
            and head.seq < head.reserved
            and (conversation.delivered_seq is None or conversation.delivered_seq >= head.seq)
            and self._loader.knows(conversation)
            and conversation.is_announced(self._loop.time(), self._time_after(head))
        )

    async def _make_ready(self, conversation: Conversation, run: Run) -> None:
        """Read and write what is missing for an insert after the head. Raises LimitReached, StorageUnavailable."""
        while True:  # other processes may store messages whenever something is awaited
            head = await self._loader.head(conversation)
            if run.admission is not None:
                self._limit.require_left(head, run.admission)
            if self._is_ready(conversation):
                return
            if head.seq >= head.reserved:
                await self._reserve(conversation, head)
            elif not self._loader.knows(conversation):
                await self._loader.read_states(conversation)
            elif conversation.delivered_seq is not None and conversation.delivered_seq < head.seq:
                await self._delivery.deliver_through(conversation, head.seq)
            else:
                await self._announce(conversation, self._time_after(head))

    async def _reserve(self, conversation: Conversation, head: Head) -> None:
        """Reserve seqs after the head, which announces messages as well. Raises StorageUnavailable."""
        begun, to = self._loop.time(), self._time_after(head) + ANNOUNCED_TO
        conversation.note_reserved(await self._messages.reserve(conversation.name, head.seq + 1, to))
        self._note_announced(conversation, begun, to)

    async def _announce(self, conversation: Conversation, time: int) -> None:
        """Announce messages of about this time (milliseconds). Raises StorageUnavailable."""
        begun, to = self._loop.time(), time + ANNOUNCED_TO
        await self._messages.announce(conversation.name, to)
        self._note_announced(conversation, begun, to)

    def _note_announced(self, conversation: Conversation, begun: float, to: int) -> None:
        spread = sum(conversation.users) % SPREAD / SPREAD
        conversation.note_announced(begun + ANNOUNCED_FOR * (1 + spread) / 2, to)

    def _time_after(self, head: Head) -> int:
        """Return the time (milliseconds) of a message that is stored now: never earlier than the one before it."""
        return max(int(self._clock() * 1000), head.time)

    # Step 3: insert

    def _insert(self, conversation: Conversation, run: Run) -> None:
        """Insert the run at the seqs after the head, as much of it as is reserved. The rest goes back to the queue.

        If an earlier attempt may have stored the run, it is inserted at the same seqs again.
        """
        if not run.documents:
            head = conversation.head
            if head is None:
                raise RuntimeError("a head that was read is gone")
            conversation.put_back(run.assign_seqs(head, self._time_after(head)))
        run.work = insert = self._messages.insert(*run.documents)
        insert.add_done_callback(partial(self._landed, conversation, run))

    def _landed(self, conversation: Conversation, run: Run, insert: Insert) -> None:
        """Continue a run whose insert has ended."""
        if insert.cancelled():  # the server ends
            self._release(conversation)
            return
        try:
            conflict = insert.result()
            if conflict is not None or (run.admission is not None and run.admission.theirs > 0):
                self._start(conversation, run, self._settle, conflict)
                return
            self._finish(conversation, run, len(run.documents))
        except StorageUnavailable as error:
            self._start(conversation, run, self._retry, error)
        except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
            self._fail(conversation, error)
        else:
            self._end_run(conversation, run)

    async def _retry(self, conversation: Conversation, run: Run, error: StorageUnavailable) -> None:
        """Insert the same documents at the same seqs again after a pause, until the outcome is known.

        Messages that have passed their deadline are dropped, but only if no attempt can have stored them.
        """
        if not isinstance(error, NotSent):
            run.uncertain = True
        run.backoff = run.backoff or Backoff(*BACKOFF)
        while run.uncertain or all(pending.outcome is None for pending in run.pending):
            await asyncio.sleep(run.backoff.next_pause())
            time = run.documents[-1].time
            try:
                if not conversation.is_announced(self._loop.time(), time):
                    await self._announce(conversation, time)
            except StorageUnavailable:
                continue
            self._insert(conversation, run)
            return
        await self._give_back(run)
        conversation.put_back(run.pending)  # those that have time left
        self._end_run(conversation, run)

    async def _settle(self, conversation: Conversation, run: Run, conflict: Conflict | None) -> None:
        """Finish what an insert has stored, if that has to await something, and go on with the rest of the run."""
        stored = len(run.documents) if conflict is None else conflict.offset
        ours = conflict is not None and run.uncertain and conflict.existing == run.documents[stored]
        stored += ours  # an earlier attempt stored this one, and perhaps those after it
        if stored and run.admission is not None and run.admission.theirs > 0:
            await self._limit.open(conversation)  # before the answer
        self._finish(conversation, run, stored)
        if conflict is not None and not ours:
            await self._on_conflict(conversation, run, conflict.existing)
        if run.documents:
            self._insert(conversation, run)
        elif run.pending:
            await self._prepare(conversation, run)
        else:
            self._end_run(conversation, run)

    async def _on_conflict(self, conversation: Conversation, run: Run, existing: Message) -> None:
        """Take notice of a message that has the seq or the key of the run's first document: no document is stored."""
        first, run.documents = run.documents[0], ()
        if existing.key != first.key:  # another process's message has the seq
            self._delivery.on_remote_message(conversation, existing)
            conversation.advance(existing)  # also if the sockets were given it before the head was read
            return
        await self._give_back(run)
        pending = run.pending[0]
        pending.resolve(await self._resends.answer(conversation, run, pending, existing))
        del run.pending[0]

    # Step 4: deliver, publish, count and acknowledge

    def _finish(self, conversation: Conversation, run: Run, count: int) -> None:
        """Finish the run's first `count` documents, which are stored."""
        admitted = run.admission is not None
        for message in run.documents[:count]:
            pending = run.pending.pop(0)
            try:
                live = self._delivery.deliver(conversation, message, pending.origin).live
                online = self._delivery.publish(message, live=live)
                self._limit.count(conversation, pending, admitted=admitted)
                if online is True or online is False:
                    pending.resolve(Stored(message.seq, message.time, online))
                else:
                    self._published.add(online)
                    online.add_done_callback(partial(self._on_published, pending, message))
            except Exception as error:  # noqa: BLE001  # a bug must not stop the messages after it
                _log.exception("message_failed", conversation=conversation.name)
                pending.resolve(ChatError(str(error)))
        run.documents = run.documents[count:]

    def _on_published(self, pending: PendingMessage, message: Message, online: asyncio.Future[bool]) -> None:
        """Acknowledge a message once it is known whether another process has a socket of the recipient."""
        self._published.discard(online)
        pending.resolve(Stored(message.seq, message.time, not online.cancelled() and online.result()))

    # Refused

    async def _refuse(self, conversation: Conversation, run: Run, error: ChatError) -> None:
        """Answer the run's messages with an error, and end it. They are known not to be stored."""
        run.documents = ()
        if not isinstance(error, LimitReached):  # a count that MongoDB confirms is not given back
            await self._give_back(run)
        refused = isinstance(error, (LimitReached, Blocked, UnknownUser))
        for pending in run.pending:
            known = await self._resends.find(conversation, run, pending) if refused else None
            pending.resolve(known or error)
        self._end_run(conversation, run)

    async def _give_back(self, run: Run) -> None:
        """Take back what the limit rule counted for the run."""
        admission, run.admission = run.admission, None
        if admission is not None:
            await self._limit.give_back(admission)
