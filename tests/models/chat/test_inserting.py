"""Tests of inserting: which outcome is a resend. Other outcomes of an insert are in test_writing.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.chat.conversation import Conversation, PendingMessage, ReadState
from models.chat.inserting import Inserted, Inserter
from models.chat.loading import Loader
from models.chat.ports import Conflict
from models.errors import StorageUnavailable
from models.records import Message, key_of
from storage.mongo.messages import MongoMessages
from tests.conftest import Clock
from tests.support.chats import active, loader_of, nothing_looked_up

Pair = tuple[int, int]


class Losing:
    """The real store, but the answers to its first inserts are lost."""

    def __init__(self, store: MongoMessages, losses: int) -> None:
        self.store = store
        self.losses = losses

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    async def insert(self, *run: Message) -> Conflict | None:
        outcome = await self.store.insert(*run)
        if self.losses:
            self.losses -= 1
            raise StorageUnavailable("mongodb", "lost")
        return outcome


def pending_of(pair: Pair, name: str) -> PendingMessage:
    return PendingMessage(*pair, name, key_of(pair[0], name), lambda _: None, name)


@pytest.fixture
def process(messages: MongoMessages, clock: Clock, pair: Pair) -> Callable[..., Callable[..., object]]:
    """Return a function that makes a process, which inserts messages with ids."""

    def make(losses: int = 0) -> Callable[..., object]:
        store, (conversations, conversation) = Losing(messages, losses), active(*pair)
        loader = loader_of(conversations, store, clock)

        async def deliver_through(conversation: Conversation, seq: int) -> None:
            conversation.delivered_seq = seq

        inserter = Inserter(store, loader, clock, lambda *_: None, deliver_through)

        async def insert(*names: str) -> list[Inserted]:
            inserted = []
            async for some in inserter.insert(conversation, [pending_of(pair, name) for name in names], None):
                for each in some:
                    conversation.advance(each.message)
                inserted += some
            conversation.inserting = ()
            return inserted

        return insert

    return make


async def test_an_answer_that_was_lost_is_no_resend(process: Callable[..., Callable[..., object]]) -> None:
    """The second attempt finds the message of the first: it is the same message, not an earlier one."""
    (inserted,) = await process(losses=2)("k")
    assert (inserted.message.seq, inserted.dup) == (1, False)


async def test_a_resend_at_another_seq(process: Callable[..., Callable[..., object]]) -> None:
    """A resend gets the seq of the first copy, also if answers are lost."""
    for losses in (0, 2):
        insert = process(losses)
        (first,), *_ = [await insert(f"{losses} {name}") for name in "abc"]
        (again,) = await process(losses)(f"{losses} a")
        assert (again.message.seq, again.dup) == (first.message.seq, True)


async def test_a_late_commit_of_a_process_that_died(process: Callable[..., Callable[..., object]]) -> None:
    """The next process tries the same seq and finds the message there: an earlier attempt has stored it."""
    insert = process()
    await insert("a")
    late = process()
    await process()("b")  # unnoticed by both
    (inserted,) = await late("b")
    assert (inserted.message.seq, inserted.dup) == (2, True)
    assert [each.message.seq for each in await insert("c", "d")] == [3, 4]


@pytest.mark.parametrize("losses", [0, 1, 3])
async def test_a_run_has_consecutive_seqs(losses: int, process: Callable[..., Callable[..., object]]) -> None:
    """A run has consecutive seqs, also if answers are lost: what such an attempt stored is not a resend."""
    inserted = await process(losses)(*"abcde")
    assert [(each.message.content, each.message.seq, each.dup) for each in inserted] == [
        (name, seq, False) for seq, name in enumerate("abcde", 1)
    ]


@pytest.mark.parametrize("losses", [0, 2])
async def test_a_run_that_meets_another_process(
    losses: int, process: Callable[..., Callable[..., object]], messages: MongoMessages, pair: Pair
) -> None:
    """The whole run follows the other process's messages, in order and without a gap."""
    here = process(losses)
    await here("a")
    await process()("x", "y")  # unnoticed by the first
    inserted = await here(*"bcd")
    assert [(each.message.content, each.message.seq) for each in inserted] == [("b", 4), ("c", 5), ("d", 6)]
    stored = await messages.after("-".join(map(str, pair)), 0, 100)
    assert [message.content for message in stored] == ["a", "x", "y", "b", "c", "d"]


@pytest.mark.parametrize("losses", [0, 2])
async def test_resends_in_a_run(losses: int, process: Callable[..., Callable[..., object]]) -> None:
    """Resends get the seqs of their first copies; the other messages follow in order, without a gap."""
    await process()(*"abc")
    inserted = await process(losses)(*"bxcya")
    assert [(each.message.content, each.message.seq, each.dup) for each in inserted] == [
        ("b", 2, True),
        ("x", 4, False),
        ("c", 3, True),
        ("y", 5, False),
        ("a", 1, True),
    ]


async def test_a_run_that_came_half_through(
    process: Callable[..., Callable[..., object]], messages: MongoMessages, clock: Clock, pair: Pair
) -> None:
    """If only the beginning of a run was stored and the answer is lost, the next attempt stores the rest."""
    store = Losing(messages, 0)
    real = store.insert

    async def half(*run: Message) -> Conflict | None:
        store.insert = real
        await messages.insert(*run[:2])
        raise StorageUnavailable("mongodb", "lost")

    store.insert = half
    conversations, conversation = active(*pair)
    inserter = Inserter(store, loader_of(conversations, store, clock), clock, lambda *_: None, lambda *_: None)
    pending = [pending_of(pair, name) for name in "abcd"]
    inserted = [each async for some in inserter.insert(conversation, pending, None) for each in some]
    assert [(each.message.content, each.message.seq, each.dup) for each in inserted] == [
        (name, seq, False) for seq, name in enumerate("abcd", 1)
    ]


async def test_a_run_is_no_longer_than_the_reserved_seqs(
    process: Callable[..., Callable[..., object]], messages: MongoMessages
) -> None:
    """Seqs are reserved for the messages that do not fit, before these are inserted."""
    names = [f"{number}" for number in range(1005)]
    inserted = await process()(*names)
    assert [each.message.seq for each in inserted] == list(range(1, 1006))
    assert (await messages.head(inserted[0].message.conversation)).reserved >= 1005


async def test_the_sockets_have_what_stands_before(messages: MongoMessages, clock: Clock, pair: Pair) -> None:
    """Sockets get another process's message first, also if it is stored while the head is read again."""
    conversations, conversation = active(*pair)
    here = loader_of(conversations, messages, clock)
    await messages.reserve(conversation.name, 1)
    given: list[int] = []

    async def deliver_through(conversation: Conversation, seq: int) -> None:
        given.extend(range((conversation.delivered_seq or 0) + 1, seq + 1))
        conversation.delivered_seq = seq

    class Interrupted(Loader):
        """Stores another process's message while the state is read."""

        async def read_state(self, conversation: Conversation, reader: int) -> ReadState:
            if not await messages.newest(conversation.name):
                await messages.insert(Message(*pair, 1, int(clock() * 1000), "elsewhere", b"elsewhere......."))
                conversation.head = None
            return await here.read_state(conversation, reader)

    inserter = Inserter(
        messages,
        Interrupted(conversations, messages, clock, nothing_looked_up),
        clock,
        lambda *_: None,
        deliver_through,
    )
    inserted = [each async for some in inserter.insert(conversation, [pending_of(pair, "mine")], None) for each in some]
    assert [each.message.seq for each in inserted] == [2]
    assert given == [1]


class Announcing(Losing):
    """The real store, which records for each attempt whether its messages were announced. The first attempts are lost.

    Much time passes with each lost attempt, so that the pair is settled meanwhile.
    """

    def __init__(self, store: MongoMessages, conversation: Conversation, losses: int = 0) -> None:
        super().__init__(store, losses)
        self.conversation = conversation
        self.announced: list[bool] = []

    async def settle(self) -> None:
        await self.store._conversations.update_one(
            {"_id": self.conversation.name}, {"$set": {"active": False, "until": 0}}
        )
        self.conversation.announced_until = 0.0

    async def insert(self, *run: Message) -> Conflict | None:
        pair = await self.store._conversations.find_one({"_id": self.conversation.name})
        self.announced.append(pair["active"] and pair["until"] >= run[-1].time)
        if self.losses:
            self.losses -= 1
            await self.settle()
            raise StorageUnavailable("mongodb", "lost")
        return await self.store.insert(*run)


Announcer = tuple[Announcing, Conversation, Callable[[str], object], Inserter]


@pytest.fixture
def announcer(messages: MongoMessages, clock: Clock, pair: Pair) -> Callable[..., Announcer]:
    """Return a function that makes a process whose store records what was announced, and a function that inserts."""

    def make(losses: int = 0) -> Announcer:
        conversations, conversation = active(*pair)
        store = Announcing(messages, conversation, losses)

        async def deliver_through(conversation: Conversation, seq: int) -> None:
            conversation.delivered_seq = seq

        inserter = Inserter(store, loader_of(conversations, store, clock), clock, lambda *_: None, deliver_through)

        async def insert(name: str) -> int:
            inserted = [
                each async for some in inserter.insert(conversation, [pending_of(pair, name)], None) for each in some
            ]
            conversation.inserting = ()
            conversation.delivered_seq = inserted[-1].message.seq
            conversation.advance(inserted[-1].message)
            return inserted[-1].message.seq

        return store, conversation, insert, inserter

    return make


async def test_lists_reckon_with_a_message_before_it_is_stored(announcer: Callable[..., Announcer]) -> None:
    """The first message of a conversation is announced, and one after the last announcement has ended."""
    store, _, insert, _ = announcer()
    assert [await insert("a"), await insert("b")] == [1, 2]
    await store.settle()
    assert await insert("c") == 3
    assert store.announced == [True] * 3


async def test_a_message_is_announced_again_before_it_is_tried_again(announcer: Callable[..., Announcer]) -> None:
    """A message is announced again if its attempts take longer than an announcement lasts."""
    store, _, insert, _ = announcer(losses=2)
    assert await insert("a") == 1
    assert store.announced == [True] * 3


async def test_what_cannot_be_announced_is_not_stored(
    announcer: Callable[..., Announcer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that cannot be announced is not tried, and known not to be stored."""
    store, conversation, insert, _ = announcer()
    assert await insert("a") == 1
    await store.settle()

    async def unavailable(conversation: str, until: int) -> None:
        raise StorageUnavailable("mongodb", "away")

    monkeypatch.setattr(store, "announce", unavailable, raising=False)
    with pytest.raises(StorageUnavailable, match="away"):
        await insert("b")
    assert await store.newest(conversation.name) == 1


async def test_ready_only_while_announced(announcer: Callable[..., Announcer], clock: Clock, pair: Pair) -> None:
    """A message goes without a task only while the last announcement lasts, by time passed and by the clock."""
    _, conversation, insert, inserter = announcer()
    assert await insert("a") == 1
    pending = [pending_of(pair, "b")]
    good_for = conversation.announced_until
    assert inserter.ready(conversation, pending, good_for - 1)
    assert not inserter.ready(conversation, pending, good_for)
    clock.offset = 3600
    assert not inserter.ready(conversation, pending, good_for - 1)
