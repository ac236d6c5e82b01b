"""Chats for tests, one for each process, and fakes of what a chat needs of storage, sockets and other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from models.chat.conversation import Conversation, PendingMessage, SocketKind, Stored
from models.chat.conversations import Conversations
from models.chat.events import Event, PeerEvent
from models.chat.loading import Loader
from models.chat.ports import Conflict, Listener, Messages, Reached, Unread
from models.chat.service import Chat
from models.errors import ChatError, StorageUnavailable
from models.records import Cursor, Head, Message, ReadPositions, Summary, UnreadStart, conversation_of
from storage.mongo.messages import MongoMessages
from tests.support.patience import PATIENCE
from tests.support.ports import UnusedBlockStore, UnusedCluster, UnusedDirectory, UnusedMessages, UnusedSockets

__all__ = [
    "Channels",
    "Ear",
    "FailingBlocks",
    "Faulty",
    "Friends",
    "FriendsWithoutMessages",
    "GatedBlocks",
    "GatedMessages",
    "ListedMessages",
    "Listening",
    "Make",
    "NoOtherProcess",
    "OtherProcess",
    "PatientChat",
    "Presences",
    "Publications",
    "Recorder",
    "Watching",
    "active",
    "loader_of",
    "make_friends",
    "nothing_looked_up",
    "stored",
]


class Recorder(UnusedSockets):
    """Sockets that record what is delivered and which of them have to resume; the users in `online` are online here."""

    def __init__(self, *online: int) -> None:
        self.online = set(online)
        self.delivered: list[Message] = []
        self.resumed: list[tuple[int, int]] = []

    @override
    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        self.delivered.append(message)
        here = message.recipient in self.online
        return Reached(here, here)

    @override
    def resume(self, user: int, peer: int) -> None:
        self.resumed.append((user, peer))

    @override
    def reaches(self, user: int, peer: int) -> bool:
        return user in self.online

    @override
    def tell(self, event: PeerEvent) -> None: ...

    @override
    def present(self, user: int, peer: int, *, online: bool) -> None: ...

    @override
    def has(self, user: int) -> bool:
        return user in self.online


class NoOtherProcess(UnusedCluster):
    """A cluster without another process."""

    single_process = True

    @override
    def mark_online(self, user: int) -> None: ...

    @override
    def mark_offline(self, user: int) -> None: ...

    @override
    def follow(self, user: int, peer: int) -> None: ...

    @override
    def unfollow(self, user: int, peer: int) -> None: ...

    @override
    def watch(self, user: int) -> None: ...

    @override
    def unwatch(self, user: int) -> None: ...

    @override
    async def online(self, users: Sequence[int]) -> set[int]:
        return set()


class Channels(NoOtherProcess):
    """A cluster that records what is subscribed to. Nothing is begun or ended twice."""

    def __init__(self) -> None:
        self.wanted: set[tuple[str, int] | tuple[str, int, int | None]] = set()

    @override
    def mark_online(self, user: int) -> None:
        assert ("user", user) not in self.wanted
        self.wanted.add(("user", user))

    @override
    def mark_offline(self, user: int) -> None:
        self.wanted.remove(("user", user))

    @override
    def follow(self, user: int, peer: int) -> None:
        assert ("pair", user, peer or None) not in self.wanted
        self.wanted.add(("pair", user, peer or None))

    @override
    def unfollow(self, user: int, peer: int) -> None:
        self.wanted.remove(("pair", user, peer or None))

    @override
    def watch(self, user: int) -> None:
        assert ("watch", user) not in self.wanted
        self.wanted.add(("watch", user))

    @override
    def unwatch(self, user: int) -> None:
        self.wanted.remove(("watch", user))


class OtherProcess(NoOtherProcess):
    """A cluster with another process, which is not heard before a subscription exists."""

    single_process = False

    @override
    def publish_presence_change(self, user: int) -> None: ...

    @override
    def publish(self, event: Event) -> None: ...

    @override
    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(False)
        return answer


class Publications(OtherProcess):
    """A cluster with another process, which records the published events."""

    def __init__(self) -> None:
        self.published: list[Event] = []

    @override
    def publish(self, event: Event) -> None:
        self.published.append(event)


class Listening(NoOtherProcess):
    """A cluster in which another process may start and has every peer online; records what is published to it.

    Publications are answered once the gate is open.
    """

    def __init__(self) -> None:
        self.single_process = True
        self.reached: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @override
    def publish_presence_change(self, user: int) -> None: ...

    @override
    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        self.reached.append(message)
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> bool:
        await self.gate.wait()
        return True


class Ear(Listener):
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.channels: list[tuple[int, int]] = []
        self.changes: list[int] = []
        self.accounts: list[int] = []
        self.interruptions = 0

    @override
    def arrived(self, event: Event) -> None:
        self.events.append(event)

    @override
    def followed(self, user: int, peer: int) -> None:
        self.channels.append((user, peer))

    @override
    def presence_changed(self, user: int) -> None:
        self.changes.append(user)

    @override
    def account_changed(self, user: int) -> None:
        self.accounts.append(user)

    @override
    def interrupted(self) -> None:
        self.interruptions += 1


class Faulty(Messages):
    """The real store, with faults before or after its inserts."""

    def __init__(self, store: MongoMessages) -> None:
        self.store = store
        self.faults_before: list[Exception | None] = []
        self.faults_after: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried: list[Message] = []
        self.longest = 0  # messages in one run

    @override
    def insert(self, *run: Message) -> asyncio.Future[Conflict | None]:
        self.tried.extend(run)
        self.longest = max(self.longest, len(run))
        return asyncio.ensure_future(self.attempt(run))

    async def attempt(self, run: tuple[Message, ...]) -> Conflict | None:
        """Insert a run once, with the next faults. A test may put something else here."""
        fault = self.faults_before.pop(0) if self.faults_before else None
        if fault:
            raise fault
        await self.gate.wait()
        outcome = await self.store.insert(*run)
        fault = self.faults_after.pop(0) if self.faults_after else None
        if fault:
            raise fault
        return outcome

    @override
    async def head(self, conversation: str) -> Head:
        return await self.store.head(conversation)

    @override
    async def reserve(self, conversation: str, seq: int, until: int) -> int:
        return await self.store.reserve(conversation, seq, until)

    @override
    async def announce(self, conversation: str, until: int) -> None:
        await self.store.announce(conversation, until)

    @override
    async def find(self, conversation: str, key: bytes) -> Message | None:
        return await self.store.find(conversation, key)

    @override
    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        return await self.store.after(conversation, seq, most)

    @override
    async def before(self, conversation: str, seq: int | None, most: int) -> list[Message]:
        return await self.store.before(conversation, seq, most)

    @override
    async def page(self, conversation: str, first: int, last: int) -> list[Message]:
        return await self.store.page(conversation, first, last)

    @override
    async def newest(self, conversation: str) -> int:
        return await self.store.newest(conversation)

    @override
    async def last_before(self, conversation: str, time: int) -> int:
        return await self.store.last_before(conversation, time)

    @override
    async def count(self, conversation: str, sender: int, until: int, most: int) -> int:
        return await self.store.count(conversation, sender, until, most)

    @override
    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        return await self.store.unread_start(conversation, reader, peer)

    @override
    def mark_read(self, conversation: str, reader: int, seq: int) -> None:
        self.store.mark_read(conversation, reader, seq)

    @override
    async def mark(self, conversation: str, user: int, positions: ReadPositions) -> tuple[ReadPositions, bool]:
        return await self.store.mark(conversation, user, positions)

    @override
    async def unread(self, conversation: str, reader: int, peer: int, most: int) -> list[Message]:
        return await self.store.unread(conversation, reader, peer, most)

    @override
    async def unread_counts(self, asked: Sequence[Unread], most: int) -> dict[str, int]:
        return await self.store.unread_counts(asked, most)

    @override
    async def newest_of(self, conversations: Sequence[str]) -> dict[str, int]:
        return await self.store.newest_of(conversations)


class ListedMessages(UnusedMessages):
    """The stored messages as a list; the next `failures` reads of it fail."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failures = 0
        self.reads = 0

    @override
    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("mongodb", "away")
        found = [message for message in self.messages if message.seq > seq][:most]
        await asyncio.sleep(0)
        return found

    @override
    async def newest(self, conversation: str) -> int:
        return self.messages[-1].seq if self.messages else 0

    @override
    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        raise StorageUnavailable("mongodb", "not asked for here")


class GatedMessages(UnusedMessages):
    """A store that answers with its last head when the gate is open. What changes meanwhile is not in the answer."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.heads = [Head(5, 50, 1000, ())]
        self.read = 0

    @override
    async def head(self, conversation: str) -> Head:
        self.read += 1
        head = self.heads[-1]
        await self.gate.wait()
        return head

    @override
    async def unread_start(self, conversation: str, reader: int, peer: int) -> UnreadStart:
        self.read += 1
        await self.gate.wait()
        return UnreadStart(3, 4)


class GatedBlocks(UnusedBlockStore):
    """Blocks by user and peer, in a conversation whose last seq is 5.

    Reads take what is stored when they begin. They return when `gate` (between two users) or `read` (of all) is open.
    """

    def __init__(self) -> None:
        self.kept: dict[int, dict[int, int]] = {}
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.read = asyncio.Event()
        self.read.set()
        self.reads = 0  # of all blocks, that wait
        self.last = 5

    @override
    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        self.asked += 1
        found = self.kept.get(one, {}).get(other), self.kept.get(other, {}).get(one)
        await self.gate.wait()
        return found

    @override
    async def newest(self, one: int, other: int) -> int:
        return self.last

    @override
    async def by(self, users: Sequence[int]) -> dict[int, dict[int, int]]:
        found = {user: dict(self.kept[user]) for user in users if user in self.kept}
        self.reads += not self.read.is_set()
        await self.read.wait()
        return found

    @override
    async def block(self, user: int, peer: int) -> int:
        self.kept.setdefault(user, {})[peer] = self.last
        return self.last

    @override
    async def unblock(self, user: int, peer: int) -> None:
        self.kept.get(user, {}).pop(peer, None)


class Friends(UnusedDirectory):
    """A directory in which all users have written to each other."""

    @override
    async def mutual(self, conversation: str) -> bool:
        return True


class FriendsWithoutMessages(Friends):
    """A directory in which all users have written to each other, and no message is left."""

    @override
    async def conversations(
        self, user: int, before: Cursor | None, most: int, upto: Mapping[int, int] | None = None
    ) -> list[Summary]:
        return []


class Watching(NoOtherProcess):
    """A cluster that records which users are watched."""

    def __init__(self) -> None:
        self.watched: list[int] = []

    @override
    def watch(self, user: int) -> None:
        self.watched.append(user)

    @override
    def unwatch(self, user: int) -> None:
        self.watched.remove(user)


class Presences(Recorder):
    """Sockets that record what they are told of presence."""

    def __init__(self, *online: int) -> None:
        super().__init__(*online)
        self.told: list[tuple[int, int, bool]] = []

    @override
    def present(self, user: int, peer: int, *, online: bool) -> None:
        self.told.append((user, peer, online))


class FailingBlocks(GatedBlocks):
    """Blocks whose next `failures` reads between two users fail."""

    failures = 0

    @override
    async def between(self, one: int, other: int) -> tuple[int | None, int | None]:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("mongodb", "away")
        return await super().between(one, other)


class PatientChat(Chat):
    """A chat that gives all messages the same time to answer and whose `send` can be awaited."""

    answer_timeout = PATIENCE

    def send(self, sender: int, recipient: int, content: str, **options: Any) -> asyncio.Future[Stored | ChatError]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Stored | ChatError] = loop.create_future()

        def resolved(pending: PendingMessage) -> None:
            if not answer.done() and pending.outcome is not None:
                answer.set_result(pending.outcome)

        self.pipeline.send(sender, recipient, content, loop.time() + self.answer_timeout, resolved, **options)
        return answer


Make = Callable[..., tuple[PatientChat, Faulty, Recorder]]


async def nothing_looked_up(one: int, other: int) -> bool:
    return False


def active(one: int, other: int) -> tuple[Conversations, Conversation]:
    """Return the conversations of a process without inboxes; the one of these two users has a socket."""
    conversations = Conversations(lambda one, other: None)
    return conversations, conversations.follow(one, other, SocketKind.PAIR)


def loader_of(conversations: Conversations, store: Messages, clock: Callable[[], float]) -> Loader:
    """Return a loader without inboxes that read."""
    return Loader(conversations, store, clock, nothing_looked_up)


async def stored(messages: MongoMessages, pair: tuple[int, int]) -> list[Message]:
    return await messages.page(conversation_of(*pair), 1, 10_000)


async def make_friends(chat: PatientChat, pair: tuple[int, int]) -> None:
    """Let both users write, so that the limit rule is open."""
    for sender, recipient in (pair, pair[::-1], pair):
        assert isinstance(await chat.send(sender, recipient, "hello"), Stored)
