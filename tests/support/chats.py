"""Chats for tests, one for each process: on the real store, with faults, and with sockets that record messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from models.chat.conversation import Conversation, PendingMessage, Stored
from models.chat.conversations import Conversations
from models.chat.loading import Loader
from models.chat.ports import Conflict, Reached
from models.chat.service import Chat
from models.errors import ChatError
from models.records import Message, conversation_of
from storage.mongo.messages import MongoMessages
from tests.support.patience import PATIENCE

__all__ = [
    "Faulty",
    "Listening",
    "Make",
    "NoOtherProcess",
    "OtherProcess",
    "PatientChat",
    "Recorder",
    "active",
    "loader_of",
    "make_friends",
    "nothing_looked_up",
    "stored",
]


class Recorder:
    """Sockets that record delivered messages; `present` are the users who are online here."""

    def __init__(self, *present: int) -> None:
        self.present = set(present)
        self.delivered: list[Message] = []

    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        self.delivered.append(message)
        here = message.recipient in self.present
        return Reached(here, here)

    def reaches(self, user: int, peer: int) -> bool:
        return user in self.present

    def tell(self, event: object) -> None:
        pass


class NoOtherProcess:
    """A cluster without another process."""

    single_process = True

    def follow(self, user: int, peer: int) -> None: ...
    def unfollow(self, user: int, peer: int) -> None: ...
    def watch(self, user: int) -> None: ...
    def unwatch(self, user: int) -> None: ...

    async def online(self, users: list[int]) -> set[int]:
        return set()


class OtherProcess(NoOtherProcess):
    """A cluster with another process, which is not heard before a subscription exists."""

    single_process = False

    def publish_presence_change(self, user: int) -> None: ...
    def publish(self, event: object) -> None: ...

    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(False)
        return answer


class Listening(NoOtherProcess):
    """A cluster in which another process may start and has every peer online; records what is published to it.

    Publications are answered once the gate is open.
    """

    def __init__(self) -> None:
        self.single_process = True
        self.reached: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def follow(self, user: int, peer: int) -> None: ...
    def publish_presence_change(self, user: int) -> None: ...

    def publish_and_count(self, message: Message) -> asyncio.Future[bool]:
        self.reached.append(message)
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> bool:
        await self.gate.wait()
        return True


class Faulty:
    """The real store, with faults before or after its inserts."""

    def __init__(self, store: MongoMessages) -> None:
        self.store = store
        self.faults_before: list[Exception | None] = []
        self.faults_after: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.tried: list[Message] = []
        self.longest = 0  # messages in one run

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def insert(self, *run: Message) -> asyncio.Future[Conflict | None]:
        self.tried.extend(run)
        self.longest = max(self.longest, len(run))
        return asyncio.ensure_future(self._insert(run))

    async def _insert(self, run: tuple[Message, ...]) -> Conflict | None:
        fault = self.faults_before.pop(0) if self.faults_before else None
        if fault:
            raise fault
        await self.gate.wait()
        outcome = await self.store.insert(*run)
        fault = self.faults_after.pop(0) if self.faults_after else None
        if fault:
            raise fault
        return outcome


class PatientChat(Chat):
    """A chat that gives all messages the same time to answer and whose `send` can be awaited."""

    answer_timeout = PATIENCE

    def send(self, sender: int, recipient: int, content: str, **options: Any) -> asyncio.Future[Stored | ChatError]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Stored | ChatError] = loop.create_future()

        def resolved(pending: PendingMessage) -> None:
            if not answer.done():
                answer.set_result(pending.outcome)

        self.pipeline.send(sender, recipient, content, loop.time() + self.answer_timeout, resolved, **options)
        return answer


Make = Callable[..., tuple[Chat, Faulty, Recorder]]


async def nothing_looked_up(one: int, other: int) -> bool:
    return False


def active(one: int, other: int) -> tuple[Conversations, Conversation]:
    """Return the conversations of a process without inboxes; the one of these two users has a socket."""
    conversations = Conversations(lambda one, other: None)
    return conversations, conversations.follow(one, other).conversation


def loader_of(conversations: Conversations, store: Any, clock: Callable[[], float]) -> Loader:
    """Return a loader without inboxes that read."""
    return Loader(conversations, store, clock, nothing_looked_up)


async def stored(messages: MongoMessages, pair: tuple[int, int]) -> list[Message]:
    return await messages.page(conversation_of(*pair), 1, 10_000)


async def make_friends(chat: Chat, pair: tuple[int, int]) -> None:
    """Let both users write, so that the limit rule is open."""
    for sender, recipient in (pair, pair[::-1], pair):
        assert isinstance(await chat.send(sender, recipient, "hello"), Stored)
