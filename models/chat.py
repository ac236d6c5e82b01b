"""The chat: how a message gets from its sender to the store and to the sockets. The only place where these steps
stand in order.

A message is admitted by the limit rule, stored at its conversation's next `seq`, delivered, acknowledged.
One run of messages of a conversation is on its way at a time, stored in order as far as it goes; what is behind it
waits in the conversation's queue. Trying the place is the fence between processes: of two that insert at the same `seq`
one is told what stands there, delivers it, and goes on behind it. docs/design.md says why nothing is lost on this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog
from msgspec import structs

from models.blocks import Blocks
from models.conversation import Conversation, Draft, Sent
from models.deadlines import keep_deadline
from models.delivery import Delivery
from models.errors import Blocked, ChatError, EngineUnavailable, InvalidFrame, LimitReached, NotSent
from models.events import Barred, Event, Moved, Stored, Typing
from models.inboxes import Inboxes
from models.limits import LIMIT
from models.loading import Loader
from models.placing import Placed, Placer
from models.ports import Admission, BlockStore, Counters, Directory, Messages, Recount, Router, Sockets
from models.presence import Presence
from models.records import Message, conversation_of, key_of
from models.tasks import end

__all__ = ["Chat"]

NEVER = -1.0  # loop time
OPEN_FOR = 3600.0  # seconds for which a conversation is taken to stay open before the rule is asked again
# How many messages of one conversation travel together: the least, the most, and between these one for so many
# conversations that are being written. Where few others write, a long run would keep them waiting.
RUN = (8, 32)
FOR_EACH = 4
SWEEP_PACE = 0.005  # least seconds between two conversations of a sweep

_log = structlog.get_logger(__name__)


class Chat:
    """The conversations that are active in this process.

    `clock` returns seconds since the epoch, `new_key` the 16 bytes that tell a message without an id from every
    other. `suspected` is told of users whose sockets may have to be closed, `observe` of each answer to a message: its
    code, and how many seconds it took.
    """

    def __init__(
        self,
        messages: Messages,
        directory: Directory,
        counters: Counters,
        sockets: Sockets,
        router: Router,
        blocks: BlockStore,
        *,
        clock: Callable[[], float],
        new_key: Callable[[], bytes],
        suspected: Callable[[int], None] = lambda user: None,
        observe: Callable[[int, float], None] = lambda code, seconds: None,
    ) -> None:
        self._messages = messages
        self._directory = directory
        self._counters = counters
        self._sockets = sockets
        self._router = router
        self._clock = clock
        self._new_key = new_key
        self._observe = observe
        self._writing = 0  # conversations with a writer
        self.suspected = suspected
        self.loader = Loader(messages, clock)
        self.blocks = Blocks(blocks, sockets, router, self._barred)
        self.delivery = Delivery(messages, sockets, router, self.loader, self.blocks, self._delivered)
        self._placer = Placer(messages, self.loader, clock, self.delivery.arrive, self.delivery.lead_up_to)
        self.presence = Presence(sockets, router, directory, self.blocks)
        self._inboxes = Inboxes(self.delivery, directory, self.presence)

    # Who is here

    def join(self, user: int, peer: int | None, *, watching: bool) -> None:
        """A socket of `user` has opened that talks with `peer`, or with all (None).

        `watching` says that it wants to know when the peer comes and goes.
        """
        self._router.follow(user, peer or 0)
        self.presence.opened(user)
        if peer is None:
            self._inboxes.opened(user)
        else:
            conversation = self.delivery.enter(user, peer)
            conversation.sockets += 1
            if not self._router.alone:
                self.delivery.chase(conversation)  # from where it stands now, what others store is not to be missed
            if watching:
                self.presence.watch(user, peer)

    def leave(self, user: int, peer: int | None, *, watching: bool) -> None:
        """The counterpart of `join`."""
        if peer is None:
            self._inboxes.closed(user)
        else:
            conversation = self.delivery.enter(user, peer)
            conversation.sockets -= 1
            self.delivery.forget(conversation)
            if watching:
                self.presence.unwatch(user, peer)
        self.presence.closed(user)
        self._router.unfollow(user, peer or 0)

    async def follow(self, user: int, peer: int) -> None:
        """Sees to it that sockets of `user` get every message with `peer` that is stored from now on.

        What is read from the store afterwards, and what they get, have no gap between them.
        """
        await self._inboxes.looked(user)
        name = conversation_of(user, peer)
        newest = await self._messages.newest(name)
        if newest:  # else its first message is the first to be delivered anyhow
            self._inboxes.follow(user, peer, newest)
        conversation = self.delivery.get(name)
        if conversation is not None and conversation.seen is None:
            conversation.seen = newest

    # A message's way

    def send(
        self,
        sender: int,
        recipient: int,
        content: str,
        deadline: float,
        settled: Callable[[Draft], None],
        *,
        message_id: str = "",
        origin: object = None,
    ) -> Draft:
        """Takes a message; messages of one sender keep the order of these calls.

        The outcome is Sent once the message is durable, or a ChatError: LimitReached, Blocked, InvalidFrame for an
        id that was used for another content, or EngineUnavailable at the deadline (loop time), which promises nothing:
        the message may still be stored and delivered, and `settled` be called again.
        """
        loop = asyncio.get_running_loop()
        conversation = self.delivery.enter(sender, recipient)
        key = key_of(sender, message_id) if message_id else self._new_key()
        draft = Draft(
            sender, recipient, content, key, settled, message_id, origin, self._answered, loop.time(), deadline
        )
        conversation.queue.append(draft)
        keep_deadline(conversation, deadline)
        if conversation.writer is None:
            self._writing += 1
            conversation.writer = loop.create_task(self._write(conversation))
        return draft

    def _answered(self, draft: Draft) -> None:
        if draft.outcome is not None:
            self._observe(draft.outcome.code, asyncio.get_running_loop().time() - draft.taken)

    async def drain(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for messages on their way, then abandons those without an outcome."""
        writers = [c.writer for c in self.delivery if c.writer is not None]
        if not writers:
            return
        _, late = await asyncio.wait(writers, timeout=timeout)
        await end(*late)

    async def close(self) -> None:
        """Ends what goes on behind the sockets; to be called once they are closed."""
        await self.delivery.close()
        await self.presence.close()

    async def _write(self, conversation: Conversation) -> None:
        """Carries the conversation's messages through, one run after the other, until none waits."""
        try:
            while conversation.queue:
                conversation.carried = run = self._run_of(conversation)
                try:
                    await self._carry(conversation, run)
                except Exception as error:  # noqa: BLE001  # a bug must not stop the queue
                    _log.exception("message_failed", conversation=conversation.name)
                    for draft in run:
                        draft.settle(ChatError(str(error)))
                finally:
                    conversation.carried = []
                    conversation.placing = ()
                    self.delivery.serve(conversation)
        finally:
            self._writing -= 1
            conversation.writer = None
            self.delivery.forget(conversation)

    def _run_of(self, conversation: Conversation) -> list[Draft]:
        """The next messages from the queue that can travel together: those that the rule cannot refuse."""
        least, longest = RUN
        most = 1
        if conversation.open_until > self._clock():
            most = min(longest, max(least, self._writing // FOR_EACH))
        run = conversation.queue[:most]
        del conversation.queue[:most]
        return [draft for draft in run if draft.outcome is None]  # others waited too long, and were never tried

    async def _carry(self, conversation: Conversation, run: list[Draft]) -> None:
        """The steps of messages that travel together, in order; takes from `run` what has its outcome."""
        if not run:
            return
        admission = None
        try:
            if conversation.unblocked_until <= asyncio.get_running_loop().time():
                await self.blocks.require_open(conversation)
            if conversation.open_until <= self._clock():
                conversation.queue[:0] = run[1:]  # it may have been open until a moment ago
                del run[1:]
                first = run[0]
                admission = await self._counters.admit(
                    first.sender, first.recipient, self._recount(conversation, first)
                )
            run[:] = [draft for draft in run if draft.outcome is None]
            if not run:
                raise EngineUnavailable("storage", "no answer in time")
            async with aclosing(self._placer.place(conversation, run, admission)) as steps:
                async for placed in steps:
                    for each in placed:
                        await self._placed(conversation, run[0], each, admission)
                        del run[0]
        except (LimitReached, Blocked) as error:
            # A count that MongoDB knows to be true is kept: it is not given back.
            for draft in run:
                draft.settle(await self._repeated(conversation, draft) or error)
        except ChatError as error:
            # Whatever is raised here is raised for messages that are known not to be stored.
            await self._give_back(admission)
            if isinstance(error, NotSent) and any(draft.outcome is not None for draft in run):
                conversation.queue[:0] = [draft for draft in run if draft.outcome is None]  # they have time left
                return
            for draft in run:
                draft.settle(error)

    async def _placed(
        self, conversation: Conversation, draft: Draft, placed: Placed, admission: Admission | None
    ) -> None:
        """The steps of a message that is stored."""
        if placed.dup:
            await self._give_back(admission)
            draft.settle(await self._repeat(conversation, draft, placed.message))
            return
        if admission is not None and admission.theirs > 0 and await self._introduced(conversation):
            conversation.open_until = self._clock() + OPEN_FOR
        online = await self.delivery.publish(conversation, placed.message, draft.origin)
        draft.settle(Sent(placed.message.seq, placed.message.time, online))
        if admission is None:
            self._counters.gather(draft.sender, draft.recipient, self._recount(conversation, draft))

    async def _repeated(self, conversation: Conversation, draft: Draft) -> Sent | ChatError | None:
        """The answer to a message that is refused, if it repeats one that is stored."""
        if not draft.id:
            return None
        try:
            first = await self._messages.find(conversation.name, draft.key)
        except EngineUnavailable as error:
            return error
        return None if first is None else await self._repeat(conversation, draft, first)

    async def _repeat(self, conversation: Conversation, draft: Draft, first: Message) -> Sent | ChatError:
        """The answer to a message that was stored before."""
        if first.content != draft.content:
            return InvalidFrame("the id was used for another content")
        if conversation.seen is not None and first.seq > conversation.seen:  # nobody here knew of it
            conversation.placing = (first,)  # so that nobody else delivers it, also to the socket that gets the answer
            try:
                await self.delivery.lead_up_to(conversation, first.seq)
            except EngineUnavailable as error:
                return error
            online = await self.delivery.publish(conversation, first, draft.origin)
        else:
            online = await self._reaches(draft)
        return Sent(first.seq, first.time, online, dup=True)

    async def _reaches(self, draft: Draft) -> bool:
        """Whether the recipient is online, as far as the sender may know."""
        try:
            if await self.blocks.apart(draft.sender, draft.recipient):
                return False
        except EngineUnavailable:
            return False
        online = self._sockets.reaches(draft.recipient, draft.sender)
        return online or (not self._router.alone and await self._router.reaches(draft.recipient, draft.sender))

    def _recount(self, conversation: Conversation, draft: Draft) -> Recount:
        async def recount(until: int) -> tuple[int, int]:
            mine = await self._messages.count(conversation.name, draft.sender, until, LIMIT)
            return mine, await self._messages.count(conversation.name, draft.recipient, until, LIMIT)

        return recount

    async def _give_back(self, admission: Admission | None) -> None:
        if admission is None:
            return
        try:
            await self._counters.give_back(admission)
        except EngineUnavailable as error:
            # The count stays too high until it expires: the rule may refuse too early, never too late.
            _log.warning("count_not_given_back", sender=admission.sender, reason=str(error))

    async def _introduced(self, conversation: Conversation) -> bool:
        """Notes once that both have written; whether that is noted."""
        if conversation.head is None:
            return False
        if not conversation.head.mutual:
            try:
                await self._directory.introduce(conversation.name)
            except EngineUnavailable as error:
                _log.warning("not_introduced", conversation=conversation.name, reason=str(error))
                return False
            if conversation.head is not None:
                conversation.head = structs.replace(conversation.head, mutual=True)
        return True

    # What else happens

    def _delivered(self, conversation: Conversation, message: Message) -> None:
        self._inboxes.note(conversation, message)

    def typing(self, user: int, peer: int) -> None:
        """`user` is writing to `peer`."""
        self.delivery.tell(Typing(user, peer))

    def arrived(self, event: Event) -> None:
        """Another process tells of something that may concern sockets of this one."""
        if isinstance(event, Barred):
            self.blocks.heard(event.user, event.peer)
            return
        if not isinstance(event, Stored):
            if self.blocks.passes(event):
                self._sockets.tell(event)
            if isinstance(event, Moved):
                self.delivery.note(event)
            return
        message = event.message
        conversation = self.delivery.get(message.conversation)
        if conversation is None:
            conversation = self._inboxes.entered(message)
        if conversation is not None:
            self.delivery.arrive(conversation, message)

    def _barred(self, user: int, peer: int) -> None:
        """A block has come or gone: what was known of the two is not any more."""
        conversation = self.delivery.get(conversation_of(user, peer))
        if conversation is not None:
            conversation.unblocked_until = NEVER
        self.presence.doubt(user, peer)

    def followed(self, user: int, peer: int) -> None:
        """From now on this process hears of what is stored elsewhere; before, it may have missed something."""
        if self._router.alone:
            return
        if peer:
            conversation = self.delivery.get(conversation_of(user, peer))
            if conversation is not None:
                self.delivery.chase(conversation)
        else:
            self._inboxes.look(user)

    async def sweep(self, interval: float) -> None:
        """Looks again and again, every `interval` seconds or less often, for what was missed. Never returns."""
        while True:
            names = [c.name for c in self.delivery if c.sockets]
            pause = max(interval / (len(names) + 1), SWEEP_PACE)
            for name in names:
                await asyncio.sleep(pause)
                conversation = self.delivery.get(name)
                if conversation is not None:
                    self.delivery.chase(conversation)
            await asyncio.sleep(pause)
            self._inboxes.look_at_all()
            self.presence.look_at_all()

    def changed(self, user: int) -> None:
        """A user came or went in another process."""
        self.presence.look(user)

    def interrupted(self) -> None:
        """For a while this process heard nothing; conversations are looked at as each is followed again."""
        self.presence.look_at_all()
