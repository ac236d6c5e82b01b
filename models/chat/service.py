"""The chat: the methods that sockets and other processes call, and the objects that carry them out.

The pipeline of a message is in models/chat/pipeline.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversation import Conversation, SocketKind
from models.chat.conversations import Conversations
from models.chat.delivery import Delivery
from models.chat.departures import Active, Departures, all_active
from models.chat.events import BlockChanged, Event, MessageStored, PositionsChanged, Typing
from models.chat.inboxes import Inboxes
from models.chat.loading import Loader
from models.chat.pipeline import Pipeline
from models.chat.ports import BlockStore, Cluster, Counters, Directory, Messages, Sockets
from models.chat.presence import Presence
from models.chat.resends import Resends
from models.chat.stranger_limit import StrangerLimit
from models.records import Message, conversation_of

__all__ = ["Chat"]

SWEEP_PACE = 0.005  # seconds between two checks of a sweep, at least


class Chat:
    """The conversations that are active in this process, on the running event loop.

    It is the hub's `Attendance`, and counts no sockets: what follows them has one entry for each user or pair.

    `clock` returns seconds since the epoch, `new_key` the 16-byte key of a message without an id. `active` takes ids of
    users and returns which of them are active. `account_changed` is called with users whose sockets may have to be
    closed, `observe` with the code of each answer to a message and the seconds it took. `offline_after` is how many
    seconds a user without a socket is still shown as online.
    """

    def __init__(
        self,
        messages: Messages,
        directory: Directory,
        counters: Counters,
        sockets: Sockets,
        cluster: Cluster,
        blocks: BlockStore,
        *,
        clock: Callable[[], float],
        new_key: Callable[[], bytes],
        active: Active = all_active,
        account_changed: Callable[[int], None] = lambda user: None,
        observe: Callable[[int, float], None] = lambda code, seconds: None,
        offline_after: float,
    ) -> None:
        self._messages = messages
        self._directory = directory
        self._counters = counters
        self._sockets = sockets
        self._cluster = cluster
        self.account_changed = account_changed
        # The lambdas resolve a cycle: an inbox follows conversations, which ask inboxes where delivery begins.
        self.conversations = Conversations(lambda one, other: self.inboxes.begins(one, other))
        self.loader = Loader(self.conversations, messages, clock, lambda one, other: self.inboxes.looked(one, other))
        self.blocks = Blocks(blocks, sockets, cluster, self._block_changed)
        self.delivery = Delivery(
            self.conversations, messages, sockets, cluster, self.loader, self.blocks, self._delivered
        )
        self.acquaintances = Acquaintances(directory)
        self.departures = Departures(active)
        limit = StrangerLimit(messages, counters, self.acquaintances, clock)
        resends = Resends(messages, self.acquaintances, sockets, cluster, self.blocks, self.delivery)
        self.pipeline = Pipeline(
            self.conversations,
            messages,
            limit=limit,
            blocks=self.blocks,
            departures=self.departures,
            loader=self.loader,
            delivery=self.delivery,
            resends=resends,
            clock=clock,
            new_key=new_key,
            observe=observe,
        )
        self.presence = Presence(sockets, cluster, self.acquaintances, self.blocks, offline_after)
        self.inboxes = Inboxes(self.conversations, self.delivery, directory, self.presence)

    # Sockets, as the hub tells

    def user_connecting(self, user: int) -> None:
        """Hold the blocks of a user who is about to have a socket."""
        self.blocks.hold(user)

    def user_disconnected(self, user: int) -> None:
        """Undo `user_connecting`."""
        self.blocks.release(user)

    def user_online(self, user: int) -> None:
        """Note that the first socket of `user` has joined."""
        self._cluster.mark_online(user)
        self.presence.changed(user)

    def user_offline(self, user: int) -> None:
        """Note that the last socket of `user` has left."""
        self.presence.changed(user)
        self._cluster.mark_offline(user)

    def pair_opened(self, user: int, peer: int | None) -> None:
        """Follow a conversation, or with None all of the user's, for the first socket."""
        self._cluster.follow(user, peer or 0)
        if peer is None:
            self.inboxes.open(user)
            return
        conversation = self.conversations.follow(user, peer, SocketKind.PAIR)
        if not self._cluster.single_process:
            # From where it stands now, nothing that is stored elsewhere is missed.
            self.delivery.schedule_catch_up(conversation)

    def pair_closed(self, user: int, peer: int | None) -> None:
        """Undo `pair_opened`."""
        if peer is None:
            self.inboxes.close(user)
        else:
            self.conversations.unfollow(user, peer, SocketKind.PAIR)
        self._cluster.unfollow(user, peer or 0)

    def pair_watched(self, user: int, peer: int) -> None:
        """Tell the sockets of `user` when the peer comes online and goes offline."""
        self.presence.watch(user, peer, SocketKind.PAIR)

    def pair_unwatched(self, user: int, peer: int) -> None:
        """Undo `pair_watched`."""
        self.presence.unwatch(user, peer, SocketKind.PAIR)

    async def watches(self, user: int) -> None:
        """Wait until an inbox of `user`, if there is one here, is told of presence changes."""
        await self.inboxes.looked(user)

    async def follow(self, user: int, peers: Collection[int]) -> dict[int, int]:
        """Make sure that sockets of `user` get every message with these peers that is stored from now on.

        There is no gap between what is read from the store afterwards and what they get. Return the last `seq` of each
        conversation as far as the store or this process knows it, 0 if all its messages are gone. Conversations that
        never had any are left out.
        """
        await self.inboxes.looked(user)
        names = {conversation_of(user, peer): peer for peer in peers}
        found = await self._messages.newest_of(tuple(names))
        for name, peer in names.items():
            newest = found.get(name, 0)
            if newest:  # otherwise its first message is the first to be delivered anyway
                self.inboxes.follow(user, peer, newest)
            conversation = self.conversations.get(name)
            if conversation is not None:
                self.conversations.begin(conversation, newest)
                if conversation.delivered_seq is None or conversation.delivered_seq < newest:
                    self.delivery.schedule_catch_up(conversation)
                # What was delivered meanwhile may have begun after a message that was missed.
                if conversation.delivered_seq:
                    found[name] = max(newest, conversation.delivered_seq)
        return {names[name]: newest for name, newest in found.items()}

    # Messages

    async def ask_for(self, user: int, peer: int) -> None:
        """Count an id without an account among the strangers of `user`, so that ids cannot be tried out.

        Raises QuotaReached, StorageUnavailable.
        """
        await self._counters.take_stranger(user, peer)

    async def close(self) -> None:
        """End the background tasks. Call it once all sockets are closed."""
        await self.pipeline.close()
        await self.delivery.close()
        await self.presence.close()
        await self.acquaintances.close()
        await self.departures.close()

    # Events

    def _delivered(self, conversation: Conversation, message: Message) -> None:
        self.inboxes.note(conversation, message)

    def typing(self, user: int, peer: int) -> None:
        """Tell `peer` that `user` is typing, if both have written before."""
        self.acquaintances.if_acquainted(user, peer, lambda: self.delivery.tell(Typing(user, peer)))

    def arrived(self, event: Event) -> None:
        """Handle an event of another process that may concern sockets of this one."""
        if isinstance(event, BlockChanged):
            self.blocks.heard(event.user, event.peer)
            return
        if not isinstance(event, MessageStored):
            if self.blocks.passes(event):
                self._sockets.tell(event)
            if isinstance(event, PositionsChanged):
                self.delivery.note(event)
            return
        message = event.message
        conversation = self.conversations.get(message.conversation)
        if conversation is None or not conversation.active:
            conversation = self.inboxes.entered(message)
        if conversation is not None:
            self.delivery.on_remote_message(conversation, message)

    def _block_changed(self, user: int, peer: int) -> None:
        """Forget what was known about two users: a block between them has changed."""
        conversation = self.conversations.get(conversation_of(user, peer))
        if conversation is not None:
            conversation.doubt_peers()
        self.presence.doubt(user, peer)

    def followed(self, user: int, peer: int) -> None:
        """Note that events for this user arrive from now on. Read what may have been missed before."""
        if self._cluster.single_process:
            return
        if peer:
            self._schedule_catch_up(conversation_of(user, peer))
        else:
            self.inboxes.look(user)

    async def sweep(self, interval: float) -> None:
        """Look for what was missed, every `interval` seconds or less often. Never return."""
        while True:
            looks = [
                *(
                    partial(self._schedule_catch_up, conversation.name)
                    for conversation in self.conversations
                    if conversation.followed
                ),
                *(partial(self.inboxes.look, user) for user in self.inboxes.users),
                *(partial(self.presence.look, user) for user in self.presence.watched),
            ]
            pause = max(interval / (len(looks) + 1), SWEEP_PACE)
            for look in looks:
                await asyncio.sleep(pause)
                look()
            await asyncio.sleep(pause)

    def _schedule_catch_up(self, name: str) -> None:
        conversation = self.conversations.get(name)
        if conversation is not None:
            self.delivery.schedule_catch_up(conversation)

    def presence_changed(self, user: int) -> None:
        """Note that a user came online or went offline in another process."""
        self.presence.look(user)

    def interrupted(self) -> None:
        """Note that no events arrived for a while. Conversations are checked as each is followed again."""
        self.presence.look_at_all()
