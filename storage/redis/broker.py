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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from common.backoff import Backoff
from common.batching import Batcher
from common.tasks import end
from models.chat.events import BlockChanged, Event, MessageStored
from models.chat.ports import Listener
from models.errors import DatabaseRefused, StorageUnavailable
from models.records import Message
from storage.mongo.peers import MongoPeers, Stranger
from storage.redis.client import MOVED, RedisServer

__all__ = ["RedisBroker"]

CHUNK = 500  # channels in one command
MAX_BATCH = 200  # events published with one call
MAX_QUEUED = 10_000  # events queued for publishing; further ones are not published, and read from MongoDB later
HEARTBEAT = 2.0  # seconds between two pings of the subscription, and for the answer; also counts the processes
BACKOFF = (0.05, 2.0)  # seconds between attempts to subscribe: the first, and the maximum
START_WITHIN = 10.0  # seconds for the first subscription
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
        self._subscriber = server.subscriber
        self._prefix = prefix + ":"
        self._peers = peers
        self._number = 0
        self._last: dict[bytes, int] = {}  # the number of the last event received, by process
        self._held: dict[bytes, list[bytes]] = {}  # events of processes that are being looked up, by process
        self._meetings: set[asyncio.Task[None]] = set()  # lookups of processes
        self._warned = False  # whether an event of an unknown process was logged
        self._publish = client.register_script((_source / "publish.lua").read_text("utf-8"))
        self._commit: Batcher[_Item, int] = Batcher(self._publish_batch, max_batch=MAX_BATCH, max_concurrent=1)
        self._wanted: Counter[str] = Counter({"processes": 1})
        self._asked: set[str] = set()  # channels for which SUBSCRIBE was sent on this connection
        self._subscribed: set[str] = set()  # channels that Redis has confirmed
        self._changed: set[str] = set()  # channels to subscribe to or to unsubscribe from
        self._changes = asyncio.Event()
        self._settled = asyncio.Condition()
        self._connected = False
        self._lost = ""  # why the last subscription ended
        self._heard_at = 0.0  # loop time of the last message on the subscription
        self._others = False  # whether there are other processes
        self._hanging = False  # Redis took too long to publish; until it has published again, no caller waits for it
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Subscribe. Raises StorageUnavailable if that takes longer than START_WITHIN seconds."""
        self._listener = listener
        with self._server.errors():
            await self._subscriber.ping()
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(START_WITHIN), self._settled:
                await self._settled.wait_for(lambda: self._connected)
        except TimeoutError:
            await self.close()
            raise StorageUnavailable("redis", f"no subscription within {START_WITHIN:g} s: {self._lost}") from None

    async def close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            await end(self._task)
        await end(*self._meetings)

    @property
    def single_process(self) -> bool:
        """Whether there is no other process; False if that is unknown."""
        return self._connected and not self._others

    def follow(self, user: int, peer: int) -> None:
        """Subscribe for a socket of `user` that has opened, for `peer` or, if that is 0, for all peers."""
        self._want(_address(user, peer))
        self._want(f"here:{user}")

    def unfollow(self, user: int, peer: int) -> None:
        """Undo `follow`, when the socket has closed."""
        self._unwant(_address(user, peer))
        self._unwant(f"here:{user}")

    def watch(self, user: int) -> None:
        """Subscribe to the presence of `user`."""
        self._want(f"watch:{user}")

    def unwatch(self, user: int) -> None:
        """Undo `watch`."""
        self._unwant(f"watch:{user}")

    def publish(self, event: Event) -> None:
        """Publish an event, without waiting."""
        self._submit(event, *_channels(event))

    async def publish_and_count(self, message: Message) -> bool:
        """Publish a stored message. Return whether a socket of the recipient gets it in another process."""
        future = self._submit(MessageStored(message), *_channels(MessageStored(message)))
        if future is None or self._hanging:
            return False
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                heard = await asyncio.shield(future)
        except TimeoutError:
            self._hanging = True
            return False
        except StorageUnavailable:
            return False
        return heard > self._own(message.recipient, message.sender)

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
            async with asyncio.timeout(PUBLISH_WITHIN), self._settled:  # or this process could be counted
                await self._settled.wait_for(lambda: not any(self._unsettled(channel) for channel in channels))
        except TimeoutError:
            raise StorageUnavailable("redis", "the subscription is not confirmed yet") from None
        heard = await self._count(channels)
        own = [channel in self._subscribed for channel in channels]
        return {user for user, count, ours in zip(users, heard, own, strict=True) if count > ours}

    def _want(self, channel: str) -> None:
        self._wanted[channel] += 1
        if self._wanted[channel] == 1:
            self._change_of(channel)

    def _unwant(self, channel: str) -> None:
        self._wanted[channel] -= 1
        if not self._wanted[channel]:
            del self._wanted[channel]
            self._change_of(channel)

    def _change_of(self, channel: str) -> None:
        self._changed.add(channel)
        self._changes.set()

    def _unsettled(self, channel: str) -> bool:
        """Return whether a change of this subscription is not confirmed yet."""
        return (channel in self._wanted) != (channel in self._subscribed)

    def _own(self, user: int, peer: int) -> int:
        """Return to how many of the recipient's channels this process itself subscribes."""
        return (_address(user, peer) in self._subscribed) + (_address(user, 0) in self._subscribed)

    async def _count(self, channels: Sequence[str]) -> list[int]:
        """Return how many processes subscribe to each channel."""
        with self._server.errors():
            found = await self._client.pubsub_numsub(*(self._prefix + channel for channel in channels))
        return [int(count) for _, count in found]

    def _submit(self, event: Event | _Notice, near: int, channels: list[str]) -> asyncio.Future[int] | None:
        if not self._connected or self._commit.queued >= MAX_QUEUED:
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

    # The subscription

    async def _run(self) -> None:
        backoff = Backoff(*BACKOFF)
        while True:
            pubsub = self._subscriber.pubsub()
            works: list[asyncio.Task[None]] = []
            try:
                await self._subscribe(pubsub)
                backoff.reset()
                works += map(asyncio.create_task, (self._listen(pubsub), self._change(pubsub), self._beat(pubsub)))
                ended, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
                await ended.pop()
            except (RedisError, OSError, TimeoutError, StorageUnavailable) as error:
                self._lost = f"{type(error).__name__}: {error}"
                if self._connected:  # once for each subscription; the outage of Redis is logged by itself
                    _log.warning("subscription_lost", reason=self._lost)
            finally:
                self._connected = False
                self._asked = set()
                self._subscribed = set()
                try:
                    await end(*works)
                finally:  # also if this task is cancelled once more meanwhile
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it so
            await asyncio.sleep(backoff.next_pause())

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe to the wanted channels, and tell the other processes about this one."""
        await self._require_primary()
        async with asyncio.timeout(HEARTBEAT):
            self._asked = set(self._wanted)
            channels = [self._prefix + channel for channel in self._asked]
            for start in range(0, len(channels), CHUNK):
                await pubsub.subscribe(*channels[start : start + CHUNK])
            while "processes" not in self._subscribed:
                self._heard(await pubsub.get_message(timeout=HEARTBEAT))
        await self._count_processes()
        self._connected = True
        self._submit(_Hello(), 0, ["processes"])
        async with self._settled:
            self._settled.notify_all()
        if self._listener is not None:
            self._listener.interrupted()

    async def _change(self, pubsub: PubSub) -> None:
        """Subscribe and unsubscribe as sockets open and close."""
        while True:
            await self._changes.wait()
            self._changes.clear()
            changed, self._changed = self._changed, set()
            added = [channel for channel in changed if channel in self._wanted and channel not in self._asked]
            removed = [channel for channel in changed if channel in self._asked and channel not in self._wanted]
            for start in range(0, len(added), CHUNK):
                self._asked.update(added[start : start + CHUNK])
                await pubsub.subscribe(*(self._prefix + channel for channel in added[start : start + CHUNK]))
            for start in range(0, len(removed), CHUNK):
                self._asked.difference_update(removed[start : start + CHUNK])
                await pubsub.unsubscribe(*(self._prefix + channel for channel in removed[start : start + CHUNK]))

    async def _listen(self, pubsub: PubSub) -> None:
        """Receive messages."""
        time = asyncio.get_running_loop().time
        while True:
            message = await pubsub.get_message(timeout=None)  # a timeout per message would cost as much as the message
            self._heard_at = time()
            if self._heard(message):
                async with self._settled:
                    self._settled.notify_all()

    async def _beat(self, pubsub: PubSub) -> None:
        """Ping the subscription and count the processes. Raises what ends the subscription."""
        time = asyncio.get_running_loop().time
        while True:
            asked = time()
            async with asyncio.timeout(HEARTBEAT):
                await pubsub.ping()
            await self._require_primary()
            await self._count_processes()
            await asyncio.sleep(HEARTBEAT)
            if self._heard_at < asked:
                raise TimeoutError("no answer to a ping")

    async def _require_primary(self) -> None:
        """Raise StorageUnavailable if Redis is not a primary, since events published on a replica reach few processes.

        If only memory or a right is missing, publishing goes on.
        """
        try:
            await self._server.ping(self._prefix[:-1])
        except DatabaseRefused as error:
            if error.kind == MOVED:
                raise

    async def _count_processes(self) -> None:
        (processes,) = await self._count(["processes"])
        self._others = processes > 1

    def _heard(self, message: dict[str, bytes | str] | None) -> bool:
        """Handle one message of the subscription. Return whether it confirmed a change of channels."""
        if message is None or message["type"] == "pong":
            return False
        raw = message["channel"]
        channel = (raw.decode() if isinstance(raw, bytes) else raw).removeprefix(self._prefix)
        if message["type"] == "subscribe":
            self._subscribed.add(channel)
            kind, _, who = channel.partition(":")
            if self._listener is not None and kind in ("pair", "inbox"):
                user, _, peer = who.partition("->")
                self._listener.followed(int(user), int(peer or 0))
            return True
        if message["type"] == "unsubscribe":
            self._subscribed.discard(channel)
            return True
        if message["type"] == "message" and isinstance(data := message["data"], bytes):
            self._take(data)
        return False

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
        if len(self._last) >= CHUNK:
            self._last.clear()
        self._last[origin] = envelope.number
        match envelope.event:
            case _Changed(user=user):
                if self._listener is not None:
                    self._listener.presence_changed(user)
            case _AccountChanged(user=user):
                if self._listener is not None:
                    self._listener.account_changed(user)
            case _Hello():
                pass
            case event:
                if self._listener is not None:
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
