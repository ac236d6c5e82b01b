"""Delivery to the sockets of this process, and publishing to the other processes: the pipeline's last step.

Sockets are given a conversation's messages in ascending order and without a gap. `delivered_seq` says up to where this
process has delivered. Messages that come out of order are buffered, and missing ones are read from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from common.backoff import Backoff
from common.tasks import end
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation
from models.chat.conversations import Conversations
from models.chat.events import MessageStored, PeerEvent, PositionsChanged
from models.chat.loading import Loader
from models.chat.ports import Cluster, Messages, Reached, Sockets
from models.errors import StorageUnavailable
from models.records import Message, conversation_of

__all__ = ["Delivery"]

CHUNK = 100  # messages read at once when catching up
FETCHES = 32  # conversations that catch up at once
BACKOFF = (0.05, 1.0)  # seconds until a database is tried again: the first pause, and the longest

_log = structlog.get_logger(__name__)


class Delivery:
    """Delivers the messages of the active conversations to the sockets of this process.

    `delivered` is called with every message that the sockets are given. `blocks` says which users may not see one.
    """

    def __init__(
        self,
        conversations: Conversations,
        messages: Messages,
        sockets: Sockets,
        cluster: Cluster,
        loader: Loader,
        blocks: Blocks,
        delivered: Callable[[Conversation, Message], None],
    ) -> None:
        self._conversations = conversations
        self._messages = messages
        self._sockets = sockets
        self._cluster = cluster
        self._loader = loader
        self._blocks = blocks
        self._delivered = delivered
        self._fetches = asyncio.Semaphore(FETCHES)

    async def close(self) -> None:
        """Cancel the catch-up tasks."""
        await end(*(each.catch_up_task for each in self._conversations if each.catch_up_task is not None))

    def publish(self, message: Message, *, live: bool) -> bool | asyncio.Future[bool]:
        """Publish a message to the other processes. `live` says whether a socket of the recipient took it here.

        Return whether one takes it in any process; a future if only the other processes know.
        """
        if self._cluster.single_process:
            return live
        if live:
            self._cluster.publish(MessageStored(message))
            return True
        return self._cluster.publish_and_count(message)

    def deliver(self, conversation: Conversation, message: Message, origin: object = None) -> Reached:
        """Give the next message to the sockets of both users, unless they have it."""
        conversation.advance(message)
        if conversation.delivered_seq is not None and message.seq <= conversation.delivered_seq:
            return Reached(live=False, read=False)
        conversation.note_delivered(message.seq)
        self._delivered(conversation, message)
        reached = self._sockets.deliver(message, origin, withheld=self._blocks.withholds(message))
        own = conversation.read_states.get(message.sender)
        if own is not None:
            own.sent(message.seq)
        read_state = conversation.read_states.get(message.recipient)
        if read_state is not None and read_state.received(message.seq, live=reached.read):
            self._messages.mark_read(conversation.name, message.recipient, message.seq)
            self.tell(PositionsChanged(message.recipient, message.sender, message.seq, message.seq))
        return reached

    def tell(self, event: PeerEvent) -> None:
        """Send an event to the peer's sockets, here and in other processes."""
        if not self._blocks.passes(event):
            return
        self._sockets.tell(event)
        if not self._cluster.single_process:
            self._cluster.publish(event)

    def moved(self, event: PositionsChanged) -> None:
        """Tell the peer that the positions of a user have changed."""
        self.note(event)
        self.tell(event)

    def note(self, event: PositionsChanged) -> None:
        """Note what a user has read, for the sockets of protocol v1."""
        conversation = self._conversations.get(conversation_of(event.user, event.peer))
        read_state = conversation.read_states.get(event.user) if conversation else None
        if conversation is not None and read_state is not None:
            read_state.shown(event.read, conversation.delivered_seq or event.read)

    def on_remote_message(self, conversation: Conversation, message: Message) -> None:
        """Deliver a message that another process has stored. Buffer it if the one before it is missing."""
        self._conversations.begin(conversation, message.seq - 1)
        if not conversation.active or message.seq <= (conversation.delivered_seq or 0):
            return
        conversation.buffer(message)
        self.drain_buffered(conversation)

    def drain_buffered(self, conversation: Conversation) -> None:
        """Deliver the buffered messages that are next, and have missing ones read.

        Do nothing while an own insert is unresolved.
        """
        if conversation.inserting or not (conversation.out_of_order or conversation.needs_fetch):
            return
        while message := conversation.next_buffered():
            self.deliver(conversation, message)
        if conversation.out_of_order or conversation.needs_fetch:
            self.schedule_catch_up(conversation)  # a task that already runs ends with a call of this method

    def schedule_catch_up(self, conversation: Conversation) -> None:
        """Start a task that reads missing messages from the store, unless it runs already or no socket needs them."""
        if conversation.catch_up_task is None and conversation.active:
            conversation.catch_up_task = asyncio.get_running_loop().create_task(self._keep_catching_up(conversation))

    async def _keep_catching_up(self, conversation: Conversation) -> None:
        backoff = Backoff(*BACKOFF)
        try:
            while conversation.active:
                try:
                    async with self._fetches:
                        await self.catch_up(conversation)
                        # What other processes store and this one delivers may count as read (protocol v1).
                        await self._loader.read_states(conversation)
                    if not conversation.unconfirmed:
                        break
                    if backoff.bound == BACKOFF[1]:
                        seqs = conversation.drop_unconfirmed()  # if the store has them, the next sweep finds them
                        _log.warning("message_not_in_store", conversation=conversation.name, seqs=seqs)
                        break
                except StorageUnavailable:
                    pass
                await asyncio.sleep(backoff.next_pause())
        finally:
            conversation.catch_up_task = None
        self.drain_buffered(conversation)
        self._conversations.release(conversation)

    async def deliver_through(self, conversation: Conversation, seq: int) -> None:
        """Deliver the stored messages up to `seq` that the sockets do not have yet. Raises StorageUnavailable."""
        while conversation.delivered_seq is not None and conversation.delivered_seq < seq:
            last = min(conversation.delivered_seq + CHUNK, seq)
            for message in await self._messages.page(conversation.name, conversation.delivered_seq + 1, last):
                self.deliver(conversation, message)
            conversation.note_delivered(last)  # also over what has expired

    async def catch_up(self, conversation: Conversation) -> None:
        """Deliver the messages that are stored and that the sockets do not have. Raises StorageUnavailable."""
        if conversation.delivered_seq is None:
            newest = await self._loader.begin(conversation)
            if conversation.delivered_seq is None:
                return
            if conversation.delivered_seq >= newest and not conversation.out_of_order:
                return
        conversation.begin_fetch()
        while True:
            told = tuple(conversation.out_of_order)
            messages = await self._messages.after(conversation.name, conversation.delivered_seq, CHUNK)
            for message in messages:
                if conversation.inserting:  # it may be among these, and its sender would get a copy
                    conversation.need_fetch()
                    return
                self.deliver(conversation, message)
            if len(messages) < CHUNK:
                break
        conversation.end_fetch(told)
