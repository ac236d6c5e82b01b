"""Blocks: while one of two has blocked the other, nothing passes between them.

Neither can send, and neither hears of the other's typing, positions or presence. A block is kept with the last `seq`
of then: whoever blocks is shown the conversation up to there, live, in history and when resuming. So what another
process took a moment before it heard of the block stays unseen, and the conversation has no hole when the block is
lifted.

Who sends is asked for in the store, and remembered for a moment; who is shown something has a socket here, and for
those users all their blocks are held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from common.sweep import Sweep
from models.chat.conversation import Conversation
from models.chat.events import BlockChanged, PeerEvent
from models.chat.ports import BlockStore, Cluster, Sockets
from models.errors import Blocked, EngineUnavailable
from models.records import Message

__all__ = ["EVERYTHING", "Blocks"]

EVERYTHING = 2**62  # the seq up to which somebody is shown a conversation without a block
REMEMBERED = 4.0  # seconds for which a sender's conversation is known to have no block, unless one is heard of
ASKING = 0.0  # stands for such a time while the store is asked
HELD_WITHIN = 1.0  # seconds that a socket's opening waits for its user's blocks
LOOK_EVERY = 4.0  # seconds between two looks at the blocks of those who have sockets here


class Blocks:
    """The blocks, as far as this process is concerned. `changed` is told of both when one comes or goes."""

    def __init__(
        self, store: BlockStore, sockets: Sockets, cluster: Cluster, changed: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._sockets = sockets
        self._cluster = cluster
        self._changed = changed
        self._here: Counter[int] = Counter()  # sockets by user
        self._held: dict[int, dict[int, int]] = {}  # by user with a socket here: whom, and up to which seq
        self._awaited: dict[int, asyncio.Future[None]] = {}  # by user: done when the blocks are held
        self._withheld: set[tuple[int, int]] = set()  # user and peer: something was not shown
        self.sweep = Sweep(LOOK_EVERY, lambda: self._here, self._look, "blocks_not_read", EngineUnavailable)

    # Who has sockets here

    async def opening(self, user: int) -> None:
        """A socket of `user` is about to open; waits a moment until that user's blocks are known."""
        self._here[user] += 1
        if user in self._held:
            return
        self.sweep.mark_dirty(user)
        known = self._awaited.setdefault(user, asyncio.get_running_loop().create_future())
        with suppress(TimeoutError):  # then nothing passes for now
            async with asyncio.timeout(HELD_WITHIN):
                await asyncio.shield(known)

    def closed(self, user: int) -> None:
        """The counterpart of `opening`."""
        self._here[user] -= 1
        if not self._here[user]:
            del self._here[user]
            self._held.pop(user, None)
            self._awaited.pop(user, None)
            self._withheld = {(who, peer) for who, peer in self._withheld if who != user}

    # What follows from a block

    def passes(self, event: PeerEvent) -> bool:
        """Whether a user may hear of what a peer does, by the blocks of those of the two who have sockets here."""
        for user, peer in ((event.peer, event.user), (event.user, event.peer)):
            if user in self._here and (user not in self._held or peer in self._held[user]):
                return False
        return True

    def withholds(self, message: Message) -> bool:
        """Whether the recipient, who has a socket here, is not to be shown a message, or that is not known yet."""
        if message.recipient not in self._here:
            return False
        if message.recipient in self._held:
            upto = self._held[message.recipient].get(message.sender)
            if upto is None or message.seq <= upto:
                return False
        self._withheld.add((message.recipient, message.sender))
        return True

    async def require_open(self, conversation: Conversation) -> None:
        """Raises Blocked when one of the two has blocked the other, EngineUnavailable when that is not known.

        Need not be asked before `unblocked_until`.
        """
        conversation.unblocked_until = ASKING
        if await self.apart(*conversation.users):
            raise Blocked
        if conversation.unblocked_until == ASKING:  # else a block was heard of after the store was asked
            conversation.unblocked_until = asyncio.get_running_loop().time() + REMEMBERED

    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        """Up to which `seq` each is shown the conversation because of a block of the other; None: there is none."""
        return await self._store.between(one, other)

    async def apart(self, one: int, other: int) -> bool:
        """Whether one of two has blocked the other."""
        return any(upto is not None for upto in await self.between(one, other))

    async def shown_upto(self, reader: int, peer: int) -> int:
        """Up to which `seq` a user is shown a conversation."""
        if reader in self._held:
            return self._held[reader].get(peer, EVERYTHING)
        upto, _ = await self.between(reader, peer)
        return EVERYTHING if upto is None else upto

    async def shown_all(self, user: int) -> Mapping[int, int]:
        """Up to which `seq` a user is shown the conversations with those whom that user has blocked."""
        if user in self._held:
            return self._held[user]
        return (await self._store.by([user])).get(user, {})

    # Blocking

    async def block(self, user: int, peer: int) -> None:
        """`user` blocks `peer`. Raises Forbidden when that would be one too many."""
        upto = await self._store.block(user, peer)
        if user in self._held:
            self._held[user][peer] = upto
        self._tell(user, peer)

    async def unblock(self, user: int, peer: int) -> None:
        """`user` lifts a block; no error if there is none."""
        await self._store.unblock(user, peer)
        with suppress(EngineUnavailable):  # it will be looked for again
            await self._look({user})  # whoever has the answer can resume
        self._tell(user, peer)

    async def of(self, user: int) -> list[int]:
        """Whom `user` has blocked."""
        return sorted((await self._store.by([user])).get(user, {}))

    def _tell(self, user: int, peer: int) -> None:
        self.heard(user, peer)
        if not self._cluster.single_process:
            self._cluster.publish(BlockChanged(user, peer))

    def heard(self, user: int, peer: int) -> None:
        """A block of `user` has come or gone, here or elsewhere."""
        self._changed(user, peer)
        if user in self._here:
            self.sweep.mark_dirty(user)

    async def _look(self, users: set[int]) -> None:
        wanted = [user for user in users if user in self._here]
        found = await self._store.by(wanted)
        for user in wanted:
            blocks = found.get(user, {})
            over = {peer: upto for peer, upto in self._held.get(user, {}).items() if peer not in blocks}
            hidden = {(user, peer) for peer, upto in over.items() if await self._goes_beyond(user, peer, upto)}
            if user in self._here:
                self._withheld |= hidden
                self._hold(user, blocks)

    async def _goes_beyond(self, user: int, peer: int, upto: int) -> bool:
        """Whether there are messages that a block has hidden: also from sockets that opened after they came."""
        try:
            return await self._store.newest(user, peer) > upto
        except EngineUnavailable:
            return True

    def _hold(self, user: int, blocks: dict[int, int]) -> None:
        """Holds the blocks of a user. Sockets that were not shown something before one was lifted have to resume."""
        self._held[user] = blocks
        known = self._awaited.pop(user, None)
        if known is not None:
            known.set_result(None)
        for peer in [peer for who, peer in self._withheld if who == user and peer not in blocks]:
            self._withheld.discard((user, peer))
            self._sockets.resume(user, peer)
