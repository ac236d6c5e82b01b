"""Placing: which outcome is a resend. What else can happen to an insert is in test_chat.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.conversation import Conversation, Draft, Reading
from models.errors import EngineUnavailable
from models.loading import Loader
from models.placing import Placed, Placer
from models.ports import Occupied
from models.records import Message, key_of
from storage.messages import MongoMessages
from tests.conftest import Clock

Pair = tuple[int, int]


class Losing:
    """The real store, whose answers to the first inserts are lost."""

    def __init__(self, store: MongoMessages, losses: int) -> None:
        self.store = store
        self.losses = losses

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    async def insert(self, message: Message) -> Occupied | None:
        outcome = await self.store.insert(message)
        if self.losses:
            self.losses -= 1
            raise EngineUnavailable("mongodb", "lost")
        return outcome


@pytest.fixture
def process(messages: MongoMessages, clock: Clock, pair: Pair) -> Callable[..., Callable[..., object]]:
    """A process that places messages with ids."""

    def make(losses: int = 0) -> Callable[..., object]:
        store, conversation = Losing(messages, losses), Conversation(*pair)
        loader = Loader(store, clock)

        async def lead_up_to(conversation: Conversation, seq: int) -> None:
            conversation.seen = seq - 1

        placer = Placer(store, loader, clock, lambda *_: None, lead_up_to)

        async def place(name: str) -> Placed:
            draft = Draft(*pair, name, key_of(pair[0], name), lambda _: None, name)
            placed = await placer.place(conversation, draft, None)
            conversation.placing = None
            conversation.advance(placed.message)
            return placed

        return place

    return make


async def test_an_answer_that_was_lost_is_no_resend(process: Callable[..., Callable[..., object]]) -> None:
    """The second attempt finds the first: that is this message, not an earlier one."""
    placed = await process(losses=2)("k")
    assert (placed.message.seq, placed.dup) == (1, False)


async def test_a_resend_at_another_place(process: Callable[..., Callable[..., object]]) -> None:
    """It is told where the first one stands, also when answers are lost."""
    for losses in (0, 2):
        place = process(losses)
        first = [await place(f"{losses} {name}") for name in "abc"]
        again = await process(losses)(f"{losses} a")
        assert (again.message.seq, again.dup) == (first[0].message.seq, True)


async def test_a_late_commit_of_a_process_that_died(process: Callable[..., Callable[..., object]]) -> None:
    """The next process tries the same place, and finds the message there: an earlier attempt had put it there."""
    place = process()
    await place("a")
    late = process()
    await process()("b")  # behind the back of both
    placed = await late("b")
    assert (placed.message.seq, placed.dup) == (2, True)
    assert (await place("c")).message.seq == 3


async def test_the_sockets_have_what_stands_before(messages: MongoMessages, clock: Clock, pair: Pair) -> None:
    """Also what another process stores while a message is on its way to its place, and the head is read again."""
    here, conversation = Loader(messages, clock), Conversation(*pair)
    await messages.reserve(conversation.name, 1)
    given: list[int] = []

    async def lead_up_to(conversation: Conversation, seq: int) -> None:
        given.extend(range((conversation.seen or 0) + 1, seq))
        conversation.seen = seq - 1

    class Interrupted(Loader):
        """Somebody else writes while what was read is read."""

        async def reading(self, conversation: Conversation, reader: int) -> Reading:
            if not await messages.newest(conversation.name):
                await messages.insert(Message(*pair, 1, int(clock() * 1000), "elsewhere", b"elsewhere......."))
                conversation.head = None
            return await here.reading(conversation, reader)

    placer = Placer(messages, Interrupted(messages, clock), clock, lambda *_: None, lead_up_to)
    draft = Draft(*pair, "mine", key_of(pair[0], "mine"), lambda _: None, "mine")
    placed = await placer.place(conversation, draft, None)
    assert placed.message.seq == 2
    assert given == [1]
