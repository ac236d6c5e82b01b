"""Presence: tell users when a peer comes online or goes offline.

A user is online while they have a socket in any process. A process that sees a change makes those who watch the user
look again. They also look again from time to time by themselves, since a killed process publishes nothing. Only
acquaintances are told anything. While one of the two has blocked the other, both are offline to each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from common.tasks import end
from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversation import SocketKind
from models.chat.ports import Cluster, Sockets
from models.errors import StorageUnavailable

__all__ = ["Presence"]

_log = structlog.get_logger(__name__)


class _Watch:
    """What one user is told of another user's presence."""

    __slots__ = ("doubtful", "kinds", "shown")

    def __init__(self, kind: SocketKind, shown: bool | None) -> None:
        self.kinds: int = kind  # the kinds of sockets for which the user watches, as bits
        self.shown = shown  # what was last told, or is taken as known; None if it is not known yet
        self.doubtful = False  # a block between the two has changed since


class Presence:
    """The users who are watched here, and which users watch them.

    When a user's last socket has closed, they are shown as offline `offline_after` seconds later, unless another socket
    has opened by then. That is the case when a page is reloaded, or a socket has just opened in another process.
    """

    def __init__(
        self, sockets: Sockets, cluster: Cluster, acquaintances: Acquaintances, blocks: Blocks, offline_after: float
    ) -> None:
        self._offline_after = offline_after
        self._sockets = sockets
        self._blocks = blocks
        self._cluster = cluster
        self._acquaintances = acquaintances
        self._watches: dict[int, dict[int, _Watch]] = {}  # by user, and by the watcher
        self._looking: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()

    async def close(self) -> None:
        """Cancel the look-ups in progress."""
        await end(*self._looking.values())

    @property
    def idle(self) -> bool:
        """Whether no look is in progress."""
        return not self._looking

    def changed(self, user: int) -> None:
        """Note that the first socket of `user` here has opened, or that the last one has closed."""
        self.look(user)
        if not self._cluster.single_process:
            self._cluster.publish_presence_change(user)

    @property
    def watched(self) -> Iterable[int]:
        """The users that are watched here."""
        return self._watches

    def watch(self, watcher: int, user: int, kind: SocketKind) -> None:
        """Tell sockets of `watcher` of a kind when `user` comes online and goes offline, from now on."""
        watches = self._watches.get(user)
        if watches is None:
            watches = self._watches[user] = {}
            self._cluster.watch(user)
        watch = watches.get(watcher)
        if watch is not None:
            watch.kinds |= kind
            return
        # The current state is not news.
        shown = True if self._sockets.has(user) else False if self._cluster.single_process else None
        watches[watcher] = _Watch(kind, shown)
        self.look(user)

    def unwatch(self, watcher: int, user: int, kind: SocketKind) -> None:
        """Undo `watch`. There is nothing left to tell when no kind of sockets watches."""
        watches = self._watches.get(user, {})
        watch = watches.get(watcher)
        if watch is None:
            return
        watch.kinds &= ~kind
        if watch.kinds:
            return
        del watches[watcher]
        if not watches:
            del self._watches[user]
            self._cluster.unwatch(user)

    async def online(self, users: list[int]) -> set[int]:
        """Return which of these users are online, in any process."""
        here = {user for user in users if self._sockets.has(user)}
        elsewhere = [user for user in users if user not in here]
        return here | await self._cluster.online(elsewhere) if elsewhere else here

    def look(self, user: int) -> None:
        """Start a task that tells the watchers of `user` if their state has changed."""
        if user not in self._watches:
            return
        if user in self._looking:
            self._again.add(user)
        else:
            self._looking[user] = asyncio.get_running_loop().create_task(self._look(user))

    def doubt(self, one: int, other: int) -> None:
        """Look again whether two users may see each other: a block between them has changed."""
        for watcher, user in ((one, other), (other, one)):
            watch = self._watches.get(user, {}).get(watcher)
            if watch is not None:
                watch.doubtful = True
                self.look(user)

    def look_at_all(self) -> None:
        """Look again at all watched users: changes may have been missed."""
        for user in tuple(self._watches):
            self.look(user)

    async def _look(self, user: int) -> None:
        try:
            while True:
                self._again.discard(user)
                try:
                    online = user in await self.online([user])
                    if not online and any(watch.shown for watch in self._watches.get(user, {}).values()):
                        await asyncio.sleep(self._offline_after)
                        online = user in await self.online([user])
                    await self._tell(user, online)
                except StorageUnavailable as error:
                    _log.debug("presence_unknown", user=user, reason=str(error))  # the next look finds it
                if user not in self._again:
                    break
        finally:
            del self._looking[user]

    async def _tell(self, user: int, online: bool) -> None:
        for watcher, watch in tuple(self._watches.get(user, {}).items()):
            told = watch.shown
            if told == online and not watch.doubtful:
                continue
            watch.doubtful = False  # before the look, so that a later doubt stays
            try:
                shown = online and not await self._blocks.apart(watcher, user)
                news = told is not None and told != shown and await self._acquaintances.acquainted(watcher, user)
            except StorageUnavailable:
                watch.doubtful = True
                raise
            if self._watches.get(user, {}).get(watcher) is watch:  # still
                watch.shown = shown
                if news:
                    self._sockets.present(watcher, user, online=shown)
