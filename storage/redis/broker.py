"""Publish and subscribe between processes that serve the same users, in Redis.

A process subscribes to these channels, with the key prefix, as long as it has a reason:

    processes     always; the number of its subscribers is the number of processes
    pair:2->1     while a socket of user 2 for peer 1 is open here
    inbox:2       while an inbox socket of user 2 is open here
    here:2        while any socket of user 2 is open here; a user with a subscriber is online. Changes of the user's
                  account or tokens are published on it
    watch:2       while a socket here has to learn when user 2 comes or goes

The prefix has the id of the log, since pub/sub has no database numbers and another installation may publish in the same
Redis. Events are accepted only from processes that MongoDB knows (storage.mongo.peers). So a message that is delivered
was stored by a process on the same database.

A subscription ends with its connection, so the users of a killed process are offline at once. Events are not durable. A
process that was cut off reads what it missed from MongoDB: the listener is told to for each channel, whenever a
subscription begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from common.batching import Batcher
from common.tasks import end
from models.chat.events import BlockChanged, Event, MessageStored
from models.chat.ports import Listener
from models.errors import StorageUnavailable
from models.records import Message
from storage.mongo.peers import MongoPeers, Stranger
from storage.redis.client import RedisServer
from storage.redis.subscription import Subscriber, Subscription

__all__ = ["RedisBroker"]

PROCESSES = "processes"  # the channel to which each process subscribes
MAX_BATCH = 200  # events published with one call
MAX_QUEUED = 10_000  # events queued for publishing; further ones are not published, and read from MongoDB later
ORIGINS = 500  # processes whose last event's number is kept
STRANGERS = 16  # processes that are looked up at a time
HELD = 1000  # events that are held per process during its lookup; further ones are read from MongoDB later
PUBLISH_WITHIN = 0.5  # seconds that an acknowledgement waits to learn whether the peer is in another process

_log = structlog.get_logger(__name__)
_source = Path(__file__).parent


class _Changed(Struct, frozen=True, tag="changed"):
    """The first socket of `user` has opened, or the last one has closed."""

    user: int


class _AccountChanged(Struct, frozen=True, tag="suspected"):
    """The account or the tokens of `user` have changed."""

    user: int


class _Hello(Struct, frozen=True, tag="hello"):
    """A process has begun to subscribe."""


_Notice = _Changed | _AccountChanged | _Hello


class _Envelope(Struct, frozen=True, array_like=True):
    """What is published: an event, with its number among those of its process."""

    number: int
    event: Event | _Notice


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode

_Item = tuple[bytes, int, list[str]]  # payload, number of the recipient's channels, all channels


class RedisBroker:
    """The other processes that use a key prefix. `peers` knows those on the same MongoDB database."""

    def __init__(self, server: RedisServer, prefix: str, peers: MongoPeers) -> None:
        self._server = server
        self._client = client = server.client
        self._prefix = prefix + ":"
        self._peers = peers
        self._number = 0
        self._last: dict[bytes, int] = {}  # the number of the last event received, by process
        self._held: dict[bytes, list[bytes]] = {}  # events of processes that are being looked up, by process
        self._meetings: set[asyncio.Task[None]] = set()  # lookups of processes
        self._warned = False  # whether an event of an unknown process was logged
        self._publish = client.register_script((_source / "publish.lua").read_text("utf-8"))
        self._commit: Batcher[_Item, int] = Batcher(self._publish_batch, max_batch=MAX_BATCH, max_concurrent=1)
        self._others = False  # whether there are other processes
        self._hanging = False  # Redis took too long to publish; until it has published again, no caller waits for it
        self._listener: Listener  # from `start` on
        subscriber = Subscriber(self._count_processes, self._begun, self._confirmed, self._take)
        self._subscription = Subscription(server, prefix, PROCESSES, subscriber)

    async def start(self, listener: Listener) -> None:
        """Subscribe. Raises StorageUnavailable if that takes too long."""
        self._listener = listener
        await self._subscription.start()

    async def close(self) -> None:
        """End the subscription."""
        await self._subscription.close()
        await end(*self._meetings)

    @property
    def single_process(self) -> bool:
        """Whether there is no other process; False if that is unknown."""
        return self._subscription.connected and not self._others

    def mark_online(self, user: int) -> None:
        """Subscribe as a process that has sockets of `user`, who is online while there is a subscriber."""
        self._subscription.want(f"here:{user}")

    def mark_offline(self, user: int) -> None:
        """Undo `mark_online`."""
        self._subscription.unwant(f"here:{user}")

    def follow(self, user: int, peer: int) -> None:
        """Subscribe to the events for sockets of `user` that talk with `peer` or, if that is 0, with all peers."""
        self._subscription.want(_address(user, peer))

    def unfollow(self, user: int, peer: int) -> None:
        """Undo `follow`."""
        self._subscription.unwant(_address(user, peer))

    def watch(self, user: int) -> None:
        """Subscribe to the presence of `user`."""
        self._subscription.want(f"watch:{user}")

    def unwatch(self, user: int) -> None:
        """Undo `watch`."""
        self._subscription.unwant(f"watch:{user}")

    def publish(self, event: Event) -> None:
        """Publish an event, without waiting."""
        self._submit(event, *_channels(event))

    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        """Publish a stored message. Return whether a socket of the recipient gets it in another process."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        event = MessageStored(message)
        published = self._submit(event, *_channels(event))
        if published is None or self._hanging:
            answer.set_result(False)
            return answer
        late = asyncio.get_running_loop().call_later(PUBLISH_WITHIN, self._on_late, answer)

        def on_published(published: asyncio.Future[int]) -> None:
            late.cancel()
            if not answer.done():
                failed = published.cancelled() or published.exception() is not None
                answer.set_result(not failed and published.result() > self._own(message.recipient, message.sender))

        published.add_done_callback(on_published)
        return answer

    def _on_late(self, answer: asyncio.Future[bool]) -> None:
        """Stop waiting for Redis, also with the next messages until Redis answers again."""
        self._hanging = True
        if not answer.done():
            answer.set_result(False)

    async def reaches(self, user: int, peer: int) -> bool:
        """Return whether a socket in another process gets messages of `peer` to `user`."""
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                heard = await self._count([_address(user, peer), _address(user, 0)])
        except (StorageUnavailable, TimeoutError):
            return False
        return sum(heard) > self._own(user, peer)

    def publish_presence_change(self, user: int) -> None:
        """Tell processes that watch `user` to check the user's presence."""
        self._submit(_Changed(user), 0, [f"watch:{user}"])

    def publish_account_change(self, user: int) -> None:
        """Tell processes with sockets of `user` to check the user's account and tokens."""
        if not self.single_process:
            self._submit(_AccountChanged(user), 0, [f"here:{user}"])

    async def online(self, users: Sequence[int]) -> set[int]:
        """Return which of these users have a socket in another process. Raises StorageUnavailable."""
        if self.single_process:
            return set()
        channels = [f"here:{user}" for user in users]
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                await self._subscription.settle(channels)  # or this process could be counted
        except TimeoutError:
            raise StorageUnavailable("redis", "the subscription is not confirmed yet") from None
        heard = await self._count(channels)
        own = map(self._subscription.has, channels)
        return {user for user, count, ours in zip(users, heard, own, strict=True) if count > ours}

    def _own(self, user: int, peer: int) -> int:
        """Return to how many of the recipient's channels this process itself subscribes."""
        return self._subscription.has(_address(user, peer)) + self._subscription.has(_address(user, 0))

    async def _count(self, channels: Sequence[str]) -> list[int]:
        """Return how many processes subscribe to each channel."""
        with self._server.errors():
            found = await self._client.pubsub_numsub(*(self._prefix + channel for channel in channels))
        return [int(count) for _, count in found]

    def _submit(self, event: Event | _Notice, near: int, channels: list[str]) -> asyncio.Future[int] | None:
        if not self._subscription.connected or self._commit.queued >= MAX_QUEUED:
            return None
        self._number += 1
        payload = self._peers.seal(_encode(_Envelope(self._number, event)))
        future = self._commit.submit((payload, near, [self._prefix + channel for channel in channels]))
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # so callers need not await it
        return future

    async def _publish_batch(self, batch: Sequence[_Item]) -> list[int | Exception]:
        args: list[bytes | int | str] = []
        for payload, near, channels in batch:
            args += [payload, near, len(channels), *channels]
        with self._server.errors():
            heard = list(await self._publish(args=args))
        self._hanging = False
        return heard

    # What the subscription calls

    async def _count_processes(self) -> None:
        (processes,) = await self._count([PROCESSES])
        self._others = processes > 1

    def _begun(self) -> None:
        """Tell the other processes about this one, and the listener that events may have been missed."""
        self._submit(_Hello(), 0, [PROCESSES])
        self._listener.interrupted()

    def _confirmed(self, channel: str) -> None:
        kind, _, who = channel.partition(":")
        if kind in ("pair", "inbox"):
            user, _, peer = who.partition("->")
            self._listener.followed(int(user), int(peer or 0))

    def _take(self, data: bytes) -> None:
        origin = data[: len(self._peers.id)]
        if origin == self._peers.id:
            return
        self._others = True
        try:
            body = self._peers.opened(data) if origin not in self._held else None
        except Stranger:
            body = None
            if len(self._held) < STRANGERS:
                self._held[origin] = []
                task = asyncio.get_running_loop().create_task(self._meet(origin))
                self._meetings.add(task)
                task.add_done_callback(self._meetings.discard)
        if body is None:
            held = self._held.get(origin)
            if held is not None and len(held) < HELD:
                held.append(data)
            elif held is None and not self._warned:
                self._warned = True
                _log.warning("event_not_believed", reason="its process is not registered in this database")
            return
        try:
            envelope = _decode(body)
        except msgspec.DecodeError as error:  # another version
            _log.warning("event_not_understood", reason=str(error))
            return
        # A process that subscribes to several of an event's channels gets the event several times in a row.
        if envelope.number <= self._last.get(origin, 0):
            return
        if len(self._last) >= ORIGINS:
            self._last.clear()
        self._last[origin] = envelope.number
        match envelope.event:
            case _Changed(user=user):
                self._listener.presence_changed(user)
            case _AccountChanged(user=user):
                self._listener.account_changed(user)
            case _Hello():
                pass
            case event:
                self._listener.arrived(event)

    async def _meet(self, origin: bytes) -> None:
        """Look up an unknown process. If it is a peer, handle the events that it has sent meanwhile."""
        try:
            known = await self._peers.meet(origin)
        except StorageUnavailable:
            known = False  # its messages are read from MongoDB; its next event starts another lookup
        held = self._held.pop(origin)
        if known:
            for data in held:
                self._take(data)
        elif not self._warned:
            self._warned = True
            _log.warning("event_not_believed", reason="its process is not registered in this database")


def _address(user: int, peer: int) -> str:
    """Return the channel of a user's sockets for a peer, or of the user's inbox sockets if `peer` is 0."""
    return f"pair:{user}->{peer}" if peer else f"inbox:{user}"


def _channels(event: Event) -> tuple[int, list[str]]:
    """Return how many of an event's channels are the recipient's, and all its channels, the recipient's first."""
    if isinstance(event, MessageStored):
        one, other = event.message.recipient, event.message.sender
        return 2, [_address(one, other), _address(one, 0), _address(other, one), _address(other, 0)]
    one, other = event.peer, event.user
    channels = [_address(one, other), _address(one, 0)]
    if isinstance(event, BlockChanged):
        channels += [_address(other, one), _address(other, 0)]
    return 2, channels
