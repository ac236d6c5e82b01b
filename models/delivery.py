"""Step 4 and 5 of a message's way: to the sockets of this process, and to the other processes.

Sockets are given a conversation's messages in ascending order and without a gap. `seen` says up to where this
process has served them; what comes before its turn waits, and what does not come is fetched from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from models.blocks import Blocks
from models.conversation import Conversation
from models.errors import EngineUnavailable
from models.events import Moved, Stored, Told
from models.loading import Loader
from models.placing import BACKOFF
from models.ports import Messages, Reached, Router, Sockets
from models.records import Message, conversation_of
from models.tasks import end

__all__ = ["Delivery"]

CHUNK = 100  # messages fetched at once for sockets that are behind
FETCHES = 32  # conversations fetched at once
EARLY = 64  # messages of a conversation that are kept when they come before their turn


class Delivery:
    """The conversations that are active in this process, and what their sockets have been given.

    `delivered` is told of every message that the sockets are given, `blocks` tells who is not to be given any.
    """

    def __init__(
        self,
        messages: Messages,
        sockets: Sockets,
        router: Router,
        loader: Loader,
        blocks: Blocks,
        delivered: Callable[[Conversation, Message], None],
    ) -> None:
        self._messages = messages
        self._sockets = sockets
        self._router = router
        self._loader = loader
        self._blocks = blocks
        self._delivered = delivered
        self._conversations: dict[str, Conversation] = {}
        self._fetches = asyncio.Semaphore(FETCHES)

    def __iter__(self) -> Iterator[Conversation]:
        """The conversations, as they are now."""
        return iter(tuple(self._conversations.values()))

    def __len__(self) -> int:
        return len(self._conversations)

    def get(self, name: str) -> Conversation | None:
        """The state of a conversation, if it is active."""
        return self._conversations.get(name)

    def enter(self, one: int, other: int) -> Conversation:
        """The state of a conversation; to be given to `forget` when it is not needed any more."""
        name = conversation_of(one, other)
        conversation = self._conversations.get(name)
        if conversation is None:
            conversation = self._conversations[name] = Conversation(one, other)
        return conversation

    def forget(self, conversation: Conversation) -> None:
        """Lets go of a conversation that nobody needs."""
        if conversation.idle:
            self._conversations.pop(conversation.name, None)

    async def close(self) -> None:
        """Fetches nothing any more."""
        await end(*(conversation.chaser for conversation in self if conversation.chaser is not None))

    async def publish(self, conversation: Conversation, message: Message, origin: object) -> bool:
        """Delivers a message here and tells the other processes; whether a socket of the recipient gets it."""
        live = self.deliver(conversation, message, origin).live
        if self._router.alone:
            return live
        if live:
            self._router.tell(Stored(message))
            return True
        return await self._router.reach(message)

    def deliver(self, conversation: Conversation, message: Message, origin: object = None) -> Reached:
        """Hands the next message to the sockets of both, unless they have it."""
        conversation.advance(message)
        if conversation.seen is not None and message.seq <= conversation.seen:
            return Reached(live=False, read=False)
        conversation.seen = message.seq
        self._delivered(conversation, message)
        reached = self._sockets.deliver(message, origin, withheld=self._blocks.withholds(message))
        own = conversation.readings.get(message.sender)
        if own is not None:
            own.sent(message.seq)
        reading = conversation.readings.get(message.recipient)
        if reading is not None and reading.received(message.seq, live=reached.read):
            self._messages.mark_read(conversation.name, message.recipient, message.seq)
            self.tell(Moved(message.recipient, message.sender, message.seq, message.seq))
        return reached

    def tell(self, event: Told) -> None:
        """Tells the peer, here and elsewhere, of what is not a message."""
        if not self._blocks.passes(event):
            return
        self._sockets.tell(event)
        if not self._router.alone:
            self._router.tell(event)

    def moved(self, event: Moved) -> None:
        """A user's positions have moved: tells the peer."""
        self.note(event)
        self.tell(event)

    def note(self, event: Moved) -> None:
        """Notes what a user has read, for the sockets that count by it."""
        conversation = self._conversations.get(conversation_of(event.user, event.peer))
        reading = conversation.readings.get(event.user) if conversation else None
        if conversation is not None and reading is not None:
            reading.shown(event.read, conversation.seen or event.read)

    def arrive(self, conversation: Conversation, message: Message) -> None:
        """Delivers a stored message if its turn has come, else sees to it that its turn comes."""
        if conversation.seen is None:
            conversation.seen = message.seq - 1
        if message.seq <= conversation.seen:
            return
        if len(conversation.early) < EARLY:
            conversation.early[message.seq] = message
        else:
            conversation.behind = True
        self.serve(conversation)

    def serve(self, conversation: Conversation) -> None:
        """Delivers what is known, then has the rest fetched; not while a message of ours is being placed."""
        if conversation.placing or not (conversation.early or conversation.behind):
            return
        while conversation.seen is not None and (message := conversation.early.pop(conversation.seen + 1, None)):
            self.deliver(conversation, message)
        if conversation.early or conversation.behind:
            conversation.behind = False
            self.chase(conversation)

    def chase(self, conversation: Conversation) -> None:
        """Has what the sockets miss fetched from the store, soon."""
        if conversation.chaser is None:
            conversation.chaser = asyncio.get_running_loop().create_task(self._chase(conversation))

    async def _chase(self, conversation: Conversation) -> None:
        pause = BACKOFF[0]
        try:
            while conversation.sockets or conversation.writer is not None:
                try:
                    async with self._fetches:
                        await self.catch_up(conversation)
                        # What comes from elsewhere and is delivered here may count as read (dialect 1).
                        for user in conversation.users:
                            await self._loader.reading(conversation, user)
                except EngineUnavailable:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, BACKOFF[1])
                    continue
                break
        finally:
            conversation.chaser = None
        self.serve(conversation)
        self.forget(conversation)

    async def lead_up_to(self, conversation: Conversation, seq: int) -> None:
        """Delivers what stands before `seq` and the sockets have not been given. Raises EngineUnavailable."""
        while conversation.seen is not None and conversation.seen < seq - 1:
            last = min(conversation.seen + CHUNK, seq - 1)
            for message in await self._messages.page(conversation.name, conversation.seen + 1, last):
                self.deliver(conversation, message)
            conversation.seen = max(conversation.seen, last)  # also over what has expired

    async def catch_up(self, conversation: Conversation) -> None:
        """Delivers what the store has and the sockets have not. Raises EngineUnavailable."""
        if conversation.seen is None:
            newest = await self._messages.newest(conversation.name)
            if conversation.seen is None:
                conversation.seen = newest
            return
        while True:
            messages = await self._messages.after(conversation.name, conversation.seen, CHUNK)
            for message in messages:
                if conversation.placing:  # ours may be among these, and its sender gets another copy
                    conversation.behind = True
                    return
                self.deliver(conversation, message)
            if len(messages) < CHUNK:
                break
        conversation.early = {seq: m for seq, m in conversation.early.items() if seq > conversation.seen}
