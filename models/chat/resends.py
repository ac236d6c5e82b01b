"""Resends: messages that a client sends again with the same id, since it has not seen the answer.

A message with an id has a key made of its sender and the id, and the store has each key once in a conversation. So a
resend is recognised when it is inserted, or, if it is refused before that, by looking its key up.
"""

from __future__ import annotations

from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation, PendingMessage, Run, Stored
from models.chat.delivery import Delivery
from models.chat.ports import Cluster, Messages, Sockets
from models.errors import ChatError, InvalidFrame, StorageUnavailable
from models.records import Message

__all__ = ["Resends"]


class Resends:
    """Answers resends like the first copies of their messages."""

    def __init__(
        self,
        messages: Messages,
        acquaintances: Acquaintances,
        sockets: Sockets,
        cluster: Cluster,
        blocks: Blocks,
        delivery: Delivery,
    ) -> None:
        self._messages = messages
        self._acquaintances = acquaintances
        self._sockets = sockets
        self._cluster = cluster
        self._blocks = blocks
        self._delivery = delivery

    async def find(self, conversation: Conversation, run: Run, pending: PendingMessage) -> Stored | ChatError | None:
        """Return the answer to a refused message of `run` if it is a resend, None if it is not.

        The answer is StorageUnavailable if that cannot be known.
        """
        if not pending.id:
            return None
        try:
            first = await self._messages.find(conversation.name, pending.key)
        except StorageUnavailable as error:
            return error
        return None if first is None else await self.answer(conversation, run, pending, first)

    async def answer(
        self, conversation: Conversation, run: Run, pending: PendingMessage, first: Message
    ) -> Stored | ChatError:
        """Return the answer to a message of `run`, whose first copy is stored as `first`.

        It is InvalidFrame if the first copy has another content, and StorageUnavailable if a database fails. The
        sockets have all messages up to `first` before the answer names its seq.
        """
        if first.content != pending.content:
            return InvalidFrame("id: was used for another content")
        if conversation.delivered_seq is None or first.seq <= conversation.delivered_seq:
            online = await self._reaches(pending)
            return Stored(first.seq, first.time, online, dup=True)
        try:
            with run.delivering(first):  # otherwise it could be delivered to `origin` as a copy
                await self._delivery.deliver_through(conversation, first.seq - 1)
                live = self._delivery.deliver(conversation, first, pending.origin).live
                published = self._delivery.publish(first, live=live)
                online = published if isinstance(published, bool) else await published
        except StorageUnavailable as error:
            return error
        return Stored(first.seq, first.time, online and await self._may_know(pending), dup=True)

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
