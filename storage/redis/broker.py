"""The way between processes that serve the same users: publish and subscribe in Redis.

A process subscribes to these channels below the key prefix, as long as it has a reason:

    processes     always; how many there are is how many subscribe
    pair:2->1     a socket of user 2 that talks with user 1 is open here
    inbox:2       an inbox socket of user 2 is open here
    here:2        any socket of user 2 is open here; presence is whether somebody subscribes; published is only that
                  the user's account or tokens have changed
    watch:2       somebody here wants to know when user 2 comes or goes

The prefix holds the id of the log: pub/sub knows no database numbers, so another installation may publish on the same
Redis. And an event is taken only from a process that MongoDB knows (storage.mongo.peers): what is shown as a message is
one that a process on the same store has stored.

A subscription ends with its connection, so that a killed process is offline at once. Nothing here is durable:
what a process misses while it is cut off it finds in the store, which it is told to do for each channel when a
subscription begins, again or for the first time.
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

from common.batching import Batcher
from common.tasks import end
from models.chat.events import BlockChanged, Event, MessageStored
from models.chat.ports import Listener
from models.errors import DatabaseRefused, EngineUnavailable
from models.records import Message
from storage.mongo.peers import MongoPeers, Stranger
from storage.redis.client import MOVED, RedisServer

__all__ = ["RedisBroker"]

CHUNK = 500  # channels in one command
MAX_BATCH = 200  # events published with one call
MAX_WAITING = 10_000  # events that wait to be published; what finds no room is missed, and found in the store
HEARTBEAT = 2.0  # seconds between two pings of the subscription, in which an answer has to come; processes are counted
BACKOFF = (0.05, 2.0)  # seconds between attempts to subscribe: first, and at most
START_WITHIN = 10.0  # seconds until the first subscription stands
STRANGERS = 16  # processes that are looked up at a time
HELD = 1000  # events of such a process that are kept meanwhile; the others are missed, and found in the store
PUBLISH_WITHIN = 0.5  # seconds that an acknowledgement waits to learn whether the peer is in another process

_log = structlog.get_logger(__name__)
_source = Path(__file__).parent


class _Changed(Struct, frozen=True, tag="changed"):
    """`user` came or went."""

    user: int


class _AccountChanged(Struct, frozen=True, tag="suspected"):
    """The account or the tokens of `user` have changed."""

    user: int


class _Hello(Struct, frozen=True, tag="hello"):
    """A process has begun to listen."""


_Notice = _Changed | _AccountChanged | _Hello


class _Envelope(Struct, frozen=True, array_like=True):
    """What is published: as which of its process's events (they are numbered), and what."""

    number: int
    event: Event | _Notice


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode

_Item = tuple[bytes, int, list[str]]  # payload, channels that lead to the one it is for, all channels


class RedisBroker:
    """The other processes below a key prefix; `peers` tells which of them belong to the same store."""

    def __init__(self, server: RedisServer, prefix: str, peers: MongoPeers) -> None:
        self._server = server
        self._client = client = server.client
        self._subscriber = server.subscriber
        self._prefix = prefix + ":"
        self._peers = peers
        self._number = 0
        self._last: dict[bytes, int] = {}  # by process: the number of the last event heard
        self._held: dict[bytes, list[bytes]] = {}  # by process that is being looked up: its events
        self._meetings: set[asyncio.Task[None]] = set()
        self._warned = False  # an event that is not to be believed was logged
        self._publish = client.register_script((_source / "publish.lua").read_text("utf-8"))
        self._commit: Batcher[_Item, int] = Batcher(self._publish_batch, max_batch=MAX_BATCH, max_concurrent=1)
        self._wanted: Counter[str] = Counter({"processes": 1})
        self._asked: set[str] = set()  # on this connection
        self._subscribed: set[str] = set()  # confirmed
        self._changed: set[str] = set()  # what was wanted or given up since the subscription was last brought up to it
        self._changes = asyncio.Event()
        self._settled = asyncio.Condition()
        self._connected = False
        self._lost = ""  # why the last subscription ended
        self._heard_at = 0.0  # loop time
        self._others = False
        self._hanging = False  # Redis took too long to publish; nobody waits until it has published again
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Begins to listen. Raises EngineUnavailable when that cannot be had within START_WITHIN seconds."""
        self._listener = listener
        with self._server.errors():
            await self._subscriber.ping()
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(START_WITHIN), self._settled:
                await self._settled.wait_for(lambda: self._connected)
        except TimeoutError:
            await self.close()
            raise EngineUnavailable("redis", f"no subscription within {START_WITHIN:g} s: {self._lost}") from None

    async def close(self) -> None:
        """Stops listening."""
        if self._task is not None:
            await end(self._task)
        await end(*self._meetings)

    @property
    def single_process(self) -> bool:
        """Whether there is no other process; False when that is not known."""
        return self._connected and not self._others

    def follow(self, user: int, peer: int) -> None:
        """A socket of `user` that talks with `peer` has opened; 0 stands for all peers."""
        self._want(_address(user, peer))
        self._want(f"here:{user}")

    def unfollow(self, user: int, peer: int) -> None:
        """The counterpart of `follow`."""
        self._unwant(_address(user, peer))
        self._unwant(f"here:{user}")

    def watch(self, user: int) -> None:
        """Somebody here wants to know when `user` comes or goes."""
        self._want(f"watch:{user}")

    def unwatch(self, user: int) -> None:
        """The counterpart of `watch`."""
        self._unwant(f"watch:{user}")

    def publish(self, event: Event) -> None:
        """Tells the others, soon."""
        self._submit(event, *_channels(event))

    async def publish_and_count(self, message: Message) -> bool:
        """Tells the others of a stored message; whether a socket of the recipient gets it there."""
        future = self._submit(MessageStored(message), *_channels(MessageStored(message)))
        if future is None or self._hanging:
            return False
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                heard = await asyncio.shield(future)
        except TimeoutError:
            self._hanging = True
            return False
        except EngineUnavailable:
            return False
        return heard > self._own(message.recipient, message.sender)

    async def reaches(self, user: int, peer: int) -> bool:
        """Whether a socket of another process gets what `peer` writes to `user`."""
        try:
            async with asyncio.timeout(PUBLISH_WITHIN):
                heard = await self._count([_address(user, peer), _address(user, 0)])
        except (EngineUnavailable, TimeoutError):
            return False
        return sum(heard) > self._own(user, peer)

    def publish_presence_change(self, user: int) -> None:
        """Tells those who watch `user` to look again."""
        self._submit(_Changed(user), 0, [f"watch:{user}"])

    def publish_account_change(self, user: int) -> None:
        """Tells those who have sockets of `user` to look whether they still may."""
        if not self.single_process:
            self._submit(_AccountChanged(user), 0, [f"here:{user}"])

    async def online(self, users: Sequence[int]) -> set[int]:
        """Which of these users have a socket in another process. Raises EngineUnavailable."""
        if self.single_process:
            return set()
        channels = [f"here:{user}" for user in users]
        try:
            async with asyncio.timeout(PUBLISH_WITHIN), self._settled:  # else we might count ourselves
                await self._settled.wait_for(lambda: not any(self._unsettled(channel) for channel in channels))
        except TimeoutError:
            raise EngineUnavailable("redis", "the subscription does not stand yet") from None
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
        """Whether a change of this subscription is on its way."""
        return (channel in self._wanted) != (channel in self._subscribed)

    def _own(self, user: int, peer: int) -> int:
        """On how many of the channels that lead to `user` this process itself hears."""
        return (_address(user, peer) in self._subscribed) + (_address(user, 0) in self._subscribed)

    async def _count(self, channels: Sequence[str]) -> list[int]:
        """How many processes subscribe to each channel."""
        with self._server.errors():
            found = await self._client.pubsub_numsub(*(self._prefix + channel for channel in channels))
        return [int(count) for _, count in found]

    def _submit(self, event: Event | _Notice, near: int, channels: list[str]) -> asyncio.Future[int] | None:
        if not self._connected or self._commit.queued >= MAX_WAITING:
            return None
        self._number += 1
        payload = self._peers.seal(_encode(_Envelope(self._number, event)))
        future = self._commit.submit((payload, near, [self._prefix + channel for channel in channels]))
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to ask for it
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
        pause = BACKOFF[0]
        while True:
            pubsub = self._subscriber.pubsub()
            works: list[asyncio.Task[None]] = []
            try:
                await self._subscribe(pubsub)
                pause = BACKOFF[0]
                works += map(asyncio.create_task, (self._listen(pubsub), self._change(pubsub), self._beat(pubsub)))
                ended, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
                await ended.pop()
            except (RedisError, OSError, TimeoutError, EngineUnavailable) as error:
                self._lost = f"{type(error).__name__}: {error}"
                if self._connected:  # once for each that stood; that Redis is away is logged as well
                    _log.warning("subscription_lost", reason=self._lost)
            finally:
                self._connected = False
                self._asked = set()
                self._subscribed = set()
                try:
                    await end(*works)
                finally:  # also when this task is told to end a second time meanwhile
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it so
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF[1])

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribes to what is wanted, and lets the others know that there is one more."""
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
        """Subscribes and unsubscribes as sockets come and go."""
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
        """Takes what comes."""
        time = asyncio.get_running_loop().time
        while True:
            message = await pubsub.get_message(timeout=None)  # one for each would cost as much as the message itself
            self._heard_at = time()
            if self._heard(message):
                async with self._settled:
                    self._settled.notify_all()

    async def _beat(self, pubsub: PubSub) -> None:
        """Pings, and counts the processes; raises what ends the subscription."""
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
        """Raises EngineUnavailable unless Redis can be written to: what is published at a replica reaches few.

        Where only room or a right is missing, publishing goes on.
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
        """Takes one message of the subscription; whether it was a change of subscriptions."""
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
                _log.warning("event_not_believed", reason="its process is not one of this database")
            return
        try:
            envelope = _decode(body)
        except msgspec.DecodeError as error:  # another version
            _log.warning("event_not_understood", reason=str(error))
            return
        # On several channels the same event comes several times, one after the other.
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
        """Looks a process up that was not heard of before, then takes what it has sent meanwhile, if it is a peer."""
        try:
            known = await self._peers.meet(origin)
        except EngineUnavailable:
            known = False  # what it sends is found in the store; with its next event it is looked up again
        held = self._held.pop(origin)
        if known:
            for data in held:
                self._take(data)
        elif not self._warned:
            self._warned = True
            _log.warning("event_not_believed", reason="its process is not one of this database")


def _address(user: int, peer: int) -> str:
    """The channel of a user's sockets that talk with a peer, or of the user's inbox sockets."""
    return f"pair:{user}->{peer}" if peer else f"inbox:{user}"


def _channels(event: Event) -> tuple[int, list[str]]:
    """The channels for an event, those of the peer first, and how many these are."""
    if isinstance(event, MessageStored):
        one, other = event.message.recipient, event.message.sender
        return 2, [_address(one, other), _address(one, 0), _address(other, one), _address(other, 0)]
    one, other = event.peer, event.user
    channels = [_address(one, other), _address(one, 0)]
    if isinstance(event, BlockChanged):
        channels += [_address(other, one), _address(other, 0)]
    return 2, channels
