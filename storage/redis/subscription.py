"""A connection to Redis that is subscribed to channels, and is renewed when it breaks.

    connecting ──confirmed, `check` passes──► connected ──error, or no answer to a ping──► pause ──► connecting

While it is connected, three tasks use the connection: one receives, one subscribes and unsubscribes as wanted channels
change, and one pings. The first of them that ends, ends the other two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from common.backoff import Backoff
from common.tasks import end
from models.errors import DatabaseRefused, StorageUnavailable
from storage.redis.client import CHECK, MOVED, RedisServer, redis_errors

__all__ = ["Subscriber", "Subscription"]

CHUNK = 500  # channels in one command
HEARTBEAT = 2.0  # seconds between two pings of the subscription, and for the answer
BACKOFF = (0.05, 2.0)  # seconds between attempts to subscribe: the first, and the maximum
START_WITHIN = 10.0  # seconds for the first subscription

_log = structlog.get_logger(__name__)


class Subscriber(NamedTuple):
    """What a subscription calls.

    Args:
        check: Is awaited before the subscription counts as connected, and at each ping. A StorageUnavailable that it
            raises ends the connection.
        connected: The subscription is connected, for the first time or again.
        confirmed: Redis has confirmed the subscription to a channel.
        received: Data was published on a wanted channel.
    """

    check: Callable[[], Awaitable[None]]
    connected: Callable[[], None]
    confirmed: Callable[[str], None]
    received: Callable[[bytes], None]


class Subscription:
    """A subscription to the channels that are wanted, all below a prefix, and always to the channel `home`."""

    def __init__(self, server: RedisServer, prefix: str, home: str, subscriber: Subscriber) -> None:
        self._server = server
        self._client = server.subscriber
        self._prefix = prefix + ":"
        self._home = home
        self._subscriber = subscriber
        self._wanted = {home}
        self._asked: set[str] = set()  # channels for which SUBSCRIBE was sent on this connection
        self._confirmed: set[str] = set()  # channels that Redis has confirmed
        self._changed: set[str] = set()  # channels to subscribe to or to unsubscribe from
        self._changes = asyncio.Event()
        self._settled = asyncio.Condition()
        self._lost = ""  # why the last connection ended
        self._heard_at = 0.0  # loop time of the last message on the connection
        self._task: asyncio.Task[None] | None = None
        self.connected = False
        """Whether messages on the confirmed channels arrive."""

    async def start(self) -> None:
        """Subscribe. Raises StorageUnavailable if that takes longer than START_WITHIN seconds."""
        with self._server.errors():
            async with asyncio.timeout(START_WITHIN):
                await self._client.ping()
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(START_WITHIN), self._settled:
                await self._settled.wait_for(lambda: self.connected)
        except TimeoutError:
            await self.close()
            raise StorageUnavailable("redis", f"no subscription within {START_WITHIN:g} s: {self._lost}") from None

    async def close(self) -> None:
        """End the subscription."""
        if self._task is not None:
            await end(self._task)

    def want(self, channel: str) -> None:
        """Subscribe to a channel, soon. Does nothing if it is wanted already."""
        if channel not in self._wanted:
            self._wanted.add(channel)
            self._change_of(channel)

    def unwant(self, channel: str) -> None:
        """Unsubscribe from a channel, soon. Does nothing if it is not wanted."""
        if channel in self._wanted:
            self._wanted.remove(channel)
            self._change_of(channel)

    def has(self, channel: str) -> bool:
        """Return whether this connection is subscribed to a channel, as far as Redis has confirmed."""
        return channel in self._confirmed

    async def settle(self, channels: Iterable[str]) -> None:
        """Wait until Redis has confirmed all changes of these channels."""
        async with self._settled:
            await self._settled.wait_for(lambda: all((each in self._wanted) == self.has(each) for each in channels))

    def _change_of(self, channel: str) -> None:
        self._changed.add(channel)
        self._changes.set()

    async def _run(self) -> None:
        backoff = Backoff(*BACKOFF)
        while True:
            pubsub = self._client.pubsub()
            works: list[asyncio.Task[None]] = []
            try:
                await self._subscribe(pubsub)
                backoff.reset()
                works += map(asyncio.create_task, (self._listen(pubsub), self._change(pubsub), self._beat(pubsub)))
                ended, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
                await ended.pop()
            except (RedisError, OSError, TimeoutError, StorageUnavailable) as error:
                self._lost = f"{type(error).__name__}: {error}"
                if self.connected:  # once for each connection; the outage of Redis is logged by itself
                    _log.warning("subscription_lost", reason=self._lost)
            except Exception as error:  # noqa: BLE001  # without a renewal this process would be cut off for good
                self._lost = type(error).__name__
                _log.exception("subscription_failed")
            finally:
                self.connected = False
                self._asked = set()
                self._confirmed = set()
                try:
                    await end(*works)
                finally:  # also if this task is cancelled once more meanwhile
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it so
            await asyncio.sleep(backoff.next_pause())

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Subscribe to the wanted channels, and wait until Redis has confirmed the channel `home`."""
        await self._require_primary()
        try:
            with redis_errors():
                await self._ask(pubsub)
        except StorageUnavailable as error:
            error.summary = error.summary or "it accepts no subscription"
            self._server.subscription_failure = error
            raise
        self._server.subscription_failure = None
        await self._subscriber.check()
        self.connected = True
        self._subscriber.connected()
        async with self._settled:
            self._settled.notify_all()

    async def _ask(self, pubsub: PubSub) -> None:
        """Ask for the wanted channels, and wait until the channel `home` is confirmed."""
        async with asyncio.timeout(HEARTBEAT):
            # Whether the user may unsubscribe shows only with a channel that is not wanted.
            await pubsub.subscribe(self._prefix + CHECK)
            await pubsub.unsubscribe(self._prefix + CHECK)
            self._asked = set(self._wanted)
            channels = [self._prefix + channel for channel in self._asked]
            for start in range(0, len(channels), CHUNK):
                await pubsub.subscribe(*channels[start : start + CHUNK])
            while self._home not in self._confirmed:
                self._heard(await pubsub.get_message(timeout=HEARTBEAT))

    async def _change(self, pubsub: PubSub) -> None:
        """Subscribe and unsubscribe as wanted channels change."""
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
        """Ping, and check. Raises what ends the connection."""
        time = asyncio.get_running_loop().time
        while True:
            asked = time()
            async with asyncio.timeout(HEARTBEAT):
                await pubsub.ping()
            await self._require_primary()
            await self._subscriber.check()
            await asyncio.sleep(HEARTBEAT)
            if self._heard_at < asked:
                raise TimeoutError("no answer to a ping")

    async def _require_primary(self) -> None:
        """Raise StorageUnavailable if Redis is not a primary, since events published on a replica reach few processes.

        If only memory or a right is missing, publishing goes on, and `/readyz` and the log say what is missing.
        """
        try:
            await self._server.check(self._prefix[:-1])
        except DatabaseRefused as error:
            if error.kind == MOVED:
                raise

    def _heard(self, message: dict[str, bytes | str] | None) -> bool:
        """Handle one message of the connection. Return whether it confirmed a change of channels."""
        if message is None or message["type"] == "pong":
            return False
        raw = message["channel"]
        channel = (raw.decode() if isinstance(raw, bytes) else raw).removeprefix(self._prefix)
        if channel == CHECK:
            return False
        if message["type"] == "subscribe":
            self._confirmed.add(channel)
            self._subscriber.confirmed(channel)
            return True
        if message["type"] == "unsubscribe":
            self._confirmed.discard(channel)
            return True
        if message["type"] == "message" and isinstance(data := message["data"], bytes):
            self._subscriber.received(data)
        return False
