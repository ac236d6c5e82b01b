"""Blocks: while one of two users has blocked the other, nothing passes between them.

Neither can send, and neither learns of the other's typing, positions or presence. A block is stored with the last `seq`
of that moment. The user who blocks is shown the conversation up to there: live, in history and when resuming. So what
another process stored just before it learned of the block stays hidden, and the conversation has no hole when the block
is lifted.

All blocks of the users who have connections here are held in memory, and read again every few seconds. A message
between two such users needs no look at the store. For others the store is asked, and the answer is cached for a moment.
A connection is counted from its handshake on, so that the blocks are held before its socket can get a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from common.sweep import Sweep
from models.chat.conversation import NEVER, Conversation
from models.chat.events import BlockChanged, PeerEvent
from models.chat.ports import BlockStore, Cluster, Sockets
from models.errors import Blocked, StorageUnavailable
from models.records import Message

__all__ = ["EVERYTHING", "Blocks"]

EVERYTHING = 2**62  # the seq up to which a user is shown a conversation without a block
REMEMBERED = 4.0  # seconds for which "no block" counts after it was read, unless an event reports one
ASKING = 0.0  # the value of `unblocked_until` while the store is asked
HELD_WITHIN = 1.0  # seconds that a socket's opening waits for its user's blocks
LOOK_EVERY = 2.0  # seconds between two reads of the blocks of users who have sockets here; half of REMEMBERED


class Blocks:
    """The blocks that concern this process. `changed` is called with both users when a block is made or lifted."""

    def __init__(
        self, store: BlockStore, sockets: Sockets, cluster: Cluster, changed: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._sockets = sockets
        self._cluster = cluster
        self._changed = changed
        self._here: set[int] = set()  # the users with connections here
        self._held: dict[int, dict[int, int]] = {}  # by user here: peers and the blocks' seqs, once they are read
        # By user here (loop time): when the held blocks were read, and up to when a read does not count, since an event
        # came or the first connection began.
        self._read_at: dict[int, float] = {}
        self._doubted_at: dict[int, float] = {}
        self._awaited: dict[int, asyncio.Future[None]] = {}  # by user: done when the blocks are held
        self._withheld: set[tuple[int, int]] = set()  # user and peer: a message was not shown
        self.sweep = Sweep(LOOK_EVERY, lambda: self._here, self._look, "blocks_not_read", StorageUnavailable)

    # Users

    def hold(self, user: int) -> None:
        """Hold the blocks of a user from now on. They are read soon; until then the user is shown nothing."""
        self._here.add(user)
        self._doubt(user)

    async def wait_held(self, user: int) -> None:
        """Wait until the blocks of a user are held, at most HELD_WITHIN seconds.

        The caller has a connection of the user, so that they are not released meanwhile.
        """
        if user in self._held:
            return
        known = self._awaited.get(user)
        if known is None:
            known = self._awaited[user] = asyncio.get_running_loop().create_future()
        else:  # another connection has waited before, so the read takes long or has failed
            self.sweep.mark_dirty(user)
        with suppress(TimeoutError):  # then nothing is shown for now
            async with asyncio.timeout(HELD_WITHIN):
                await asyncio.shield(known)

    def release(self, user: int) -> None:
        """Undo `hold`, and forget what was known of the user."""
        self._here.discard(user)
        for known in (self._held, self._read_at, self._doubted_at, self._awaited):
            known.pop(user, None)
        self._withheld = {(who, peer) for who, peer in self._withheld if who != user}

    # What a block hides

    def passes(self, event: PeerEvent) -> bool:
        """Return whether a user may see an event of a peer, by the blocks of those of the two who have sockets here."""
        for user, peer in ((event.peer, event.user), (event.user, event.peer)):
            if user in self._here and (user not in self._held or peer in self._held[user]):
                return False
        return True

    def withholds(self, message: Message) -> bool:
        """Return whether a message is hidden from its recipient, who has a socket here, or that is not known yet."""
        if message.recipient not in self._here:
            return False
        if message.recipient in self._held:
            upto = self._held[message.recipient].get(message.sender)
            if upto is None or message.seq <= upto:
                return False
        self._withheld.add((message.recipient, message.sender))
        return True

    def known_open_until(self, conversation: Conversation) -> float:
        """Return until when (loop time) neither of the two is taken to have blocked the other, by what is in memory.

        That time has passed if one has, or if it is not known.
        """
        one, other = conversation.users
        read_at = min(self._read_at.get(one, NEVER), self._read_at.get(other, NEVER))
        if read_at == NEVER or other in self._held[one] or one in self._held[other]:
            return NEVER
        return read_at + REMEMBERED

    async def require_open(self, conversation: Conversation) -> None:
        """Raise Blocked if one of the two has blocked the other, StorageUnavailable if that is not known.

        There is no need to call it before `unblocked_until`.
        """
        conversation.keep_unblocked(ASKING)
        if await self.apart(*conversation.users):
            raise Blocked
        if conversation.unblocked_until == ASKING:  # else an event reported a block meanwhile
            conversation.keep_unblocked(asyncio.get_running_loop().time() + REMEMBERED)

    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        """Return the `seq` of the block of each by the other, None where there is none."""
        return await self._store.between(one, other)

    async def apart(self, one: int, other: int) -> bool:
        """Return whether one of the two has blocked the other."""
        return any(upto is not None for upto in await self.between(one, other))

    async def shown_upto(self, reader: int, peer: int) -> int:
        """Return up to which `seq` a user is shown a conversation."""
        if reader in self._held:
            return self._held[reader].get(peer, EVERYTHING)
        upto, _ = await self.between(reader, peer)
        return EVERYTHING if upto is None else upto

    async def shown_all(self, user: int) -> Mapping[int, int]:
        """Return up to which `seq` a user is shown the conversations with the peers whom that user has blocked."""
        if user in self._held:
            return self._held[user]
        return (await self._store.by([user])).get(user, {})

    # Blocking

    async def block(self, user: int, peer: int) -> None:
        """Block `peer` for `user`. Raises Forbidden if that would be one too many."""
        upto = await self._store.block(user, peer)
        if user in self._held:
            self._held[user][peer] = upto
        self._publish(user, peer)

    async def unblock(self, user: int, peer: int) -> None:
        """Lift a block of `user`. There is no error if there is none."""
        await self._store.unblock(user, peer)
        with suppress(StorageUnavailable):  # the sweep repeats it
            await self._look({user})  # a client that gets the answer can resume at once
        self._publish(user, peer)

    async def of(self, user: int) -> list[int]:
        """Return the peers whom `user` has blocked."""
        return sorted((await self._store.by([user])).get(user, {}))

    def _publish(self, user: int, peer: int) -> None:
        self.heard(user, peer)
        if not self._cluster.single_process:
            self._cluster.publish(BlockChanged(user, peer))

    def heard(self, user: int, peer: int) -> None:
        """Note that a block of `user` was made or lifted, here or in another process."""
        self._changed(user, peer)
        if user in self._here:
            self._doubt(user)

    def _doubt(self, user: int) -> None:
        """Have the blocks of a user read again, and ask the store until then."""
        self._doubted_at[user] = asyncio.get_running_loop().time()
        self._read_at.pop(user, None)
        self.sweep.mark_dirty(user)

    async def _look(self, users: set[int]) -> None:
        wanted = [user for user in users if user in self._here]
        begun = asyncio.get_running_loop().time()
        found = await self._store.by(wanted)
        for user in wanted:
            if self._doubted_at.get(user, NEVER) > begun:
                continue  # an event or the first connection came since, and with it a later read, perhaps done by now
            blocks = found.get(user, {})
            over = {peer: upto for peer, upto in self._held.get(user, {}).items() if peer not in blocks}
            hidden = {(user, peer) for peer, upto in over.items() if await self._goes_beyond(user, peer, upto)}
            if user in self._here:
                self._withheld |= hidden
                self._set_held(user, blocks)
                if self._doubted_at.get(user, NEVER) < begun:
                    self._read_at[user] = begun

    async def _goes_beyond(self, user: int, peer: int, upto: int) -> bool:
        """Return whether a block has hidden messages, also from sockets that opened after these were stored."""
        try:
            return await self._store.newest(user, peer) > upto
        except StorageUnavailable:
            return True

    def _set_held(self, user: int, blocks: dict[int, int]) -> None:
        """Set the blocks of a user that are held.

        After a block was lifted, make the sockets resume that it hid messages from.
        """
        self._held[user] = blocks
        known = self._awaited.pop(user, None)
        if known is not None:
            known.set_result(None)
        for peer in [peer for who, peer in self._withheld if who == user and peer not in blocks]:
            self._withheld.discard((user, peer))
            self._sockets.resume(user, peer)
