"""Tests of when conversations last had a message: lists miss none, whatever was announced, stored or settled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from tornado.ioloop import IOLoop

from models.records import Cursor, Message, Summary, conversation_of, key_of
from storage.embedded.supervisor import Addresses
from storage.mongo.activity import Activity, Settled
from storage.mongo.errors import MongoErrors
from storage.mongo.messages import MongoMessages
from tests.support.clocks import Clock
from tests.support.database import mongo_reads

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
People = Callable[[int], list[int]]


class Conversations:
    """The conversations of one user, as stored and as expected."""

    def __init__(self, messages: MongoMessages, mongo: Any, clock: Clock, me: int) -> None:
        self.messages = messages
        self.stored = mongo.conversations
        self.clock = clock
        self.me = me
        self.last: dict[int, Message] = {}

    @property
    def now(self) -> int:
        return int(self.clock() * 1000)

    async def write(self, peer: int, time: int, *, announced: bool = True) -> None:
        """Store the next message of a peer, as models/chat/pipeline.py does."""
        name = conversation_of(self.me, peer)
        seq = self.last[peer].seq + 1 if peer in self.last else 1
        if seq == 1:
            await self.messages.reserve(name, 1, time)
        elif announced:
            await self.messages.announce(name, time)
        message = Message(peer, self.me, seq, time, "x", key_of(peer, str(seq)))
        assert await self.messages.insert(message) is None
        self.last[peer] = message

    async def calm_down(self, *peers: int) -> None:
        """Set the last announcements to a time long ago."""
        names = [conversation_of(self.me, peer) for peer in peers or self.last]
        await self.stored.update_many({"_id": {"$in": names}}, {"$set": {"touched": LONG_AGO}})

    async def settled(self) -> set[int]:
        found = await self.stored.find({"users": self.me, "active": False}).to_list(None)
        return {int(user) for pair in found for user in pair["users"]} - {self.me}

    async def document(self, peer: int) -> dict[str, Any]:
        return await self.stored.find_one({"_id": conversation_of(self.me, peer)})

    async def pages(self, most: int) -> list[Summary]:
        found: list[Summary] = []
        before = None
        while page := await self.messages.directory.conversations(self.me, before, most):
            found += page
            before = Cursor(page[-1].last.time, page[-1].peer)
        return found

    @property
    def right(self) -> list[tuple[int, int]]:
        """Return peers and seqs in the expected order of a list."""
        return [(peer, self.last[peer].seq) for peer in sorted(self.last, key=lambda p: (-self.last[p].time, p))]


@pytest.fixture
def conversations(messages: MongoMessages, mongo: Any, clock: Clock, people: People) -> Conversations:
    return Conversations(messages, mongo, clock, people(1)[0])


def seen(listed: list[Summary]) -> list[tuple[int, int]]:
    return [(summary.peer, summary.last.seq) for summary in listed]


async def test_what_is_announced(conversations: Conversations, people: People) -> None:
    """An announcement makes a conversation active and raises `until`, which never falls."""
    (peer,) = people(1)
    await conversations.write(peer, 1000)
    name = conversation_of(conversations.me, peer)
    for until in (5000, 3000):
        await conversations.messages.announce(name, until)
    document = await conversations.document(peer)
    assert (document["active"], document["until"]) == (True, 5000)


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_announced_and_never_stored(conversations: Conversations, people: People, most: int) -> None:
    """A conversation whose announced message was never stored has its right position on every page."""
    peers = people(8)
    for number, peer in enumerate(peers):
        await conversations.write(peer, conversations.now - 1000 * number - 100_000)
    await conversations.calm_down()
    assert seen(await conversations.pages(most)) == conversations.right
    assert await conversations.settled() == set(peers)
    for peer in (peers[4], peers[7]):
        await conversations.messages.announce(conversation_of(conversations.me, peer), conversations.now)
    assert seen(await conversations.pages(most)) == conversations.right


async def test_nothing_is_settled_that_may_be_written(conversations: Conversations, people: People) -> None:
    """A conversation is not settled soon after an announcement, or if one came after its lookup."""
    (peer,) = people(1)
    await conversations.write(peer, conversations.now)
    conversations.clock.offset = 1000  # another process, whose clock is ahead
    await conversations.pages(10)
    assert await conversations.settled() == set()
    await conversations.calm_down()
    name = conversation_of(conversations.me, peer)
    touched = (await conversations.document(peer))["touched"]
    await conversations.messages.announce(name, conversations.now)
    activity = Activity(conversations.stored, MongoErrors())
    await activity.settle([Settled(name, touched, 1, 1)])
    await activity.settle([Settled(name, None, 1, 1)])
    assert await conversations.settled() == set()
    await conversations.calm_down()  # long ago, but changed since the lookup
    await activity.settle([Settled(name, LONG_AGO - timedelta(days=1), 1, 1)])
    assert await conversations.settled() == set()


async def test_written_without_a_word(conversations: Conversations, people: People) -> None:
    """A message that another version stored without an announcement is listed, and looked up again."""
    peers = people(3)
    for number, peer in enumerate(peers):
        await conversations.write(peer, conversations.now - 1000 * number)
    await conversations.calm_down()
    await conversations.pages(10)
    await conversations.write(peers[2], conversations.now + 1000, announced=False)
    await conversations.pages(10)
    assert seen(await conversations.pages(1)) == conversations.right


async def test_pairs_of_another_version(conversations: Conversations, people: People, messages: MongoMessages) -> None:
    """Conversations of another version without the field `active` are looked up once and settled."""
    peers = people(5)
    for number, peer in enumerate(peers):
        await conversations.write(peer, conversations.now - 1000 * number)
    fields = {"active": True, "until": True, "touched": True}
    await conversations.stored.update_many({"users": conversations.me}, {"$unset": fields})
    assert seen(await conversations.pages(2)) == conversations.right
    assert await conversations.settled() == set(peers)
    assert seen(await conversations.pages(2)) == conversations.right


async def test_expiry(conversations: Conversations, people: People) -> None:
    """A settled conversation leaves the list when its last message expires, and returns if the clock is set back."""
    peers = people(3)
    for number, peer in enumerate(peers):
        await conversations.write(peer, conversations.now - 1000 * number)
    await conversations.calm_down(*peers[:2])
    conversations.clock.offset = 91 * 86_400
    assert await conversations.pages(10) == []
    assert await conversations.settled() == set(peers[:2])
    conversations.clock.offset = 0
    assert seen(await conversations.pages(10)) == conversations.right


@pytest.mark.parametrize("together", [3, 200])
async def test_whatever_happens(
    conversations: Conversations, people: People, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Pages of any size list each conversation once, in order, after any announcing, storing and settling."""
    monkeypatch.setattr("storage.mongo.directory.CHUNK", together)
    peers = people(12)
    chance = random.Random(14)  # repeatable, not a secret
    begun = conversations.now - 10_000_000
    for step in range(150):
        peer = chance.choice(peers)
        time = max(begun + 1000 * (step // 4), conversations.last[peer].time if peer in conversations.last else 0)
        match chance.randrange(4):
            case 0 | 1:
                await conversations.write(peer, time)
            case 2 if peer in conversations.last:
                await conversations.messages.announce(conversation_of(conversations.me, peer), time + 120_000)
            case 3:
                await conversations.calm_down(*chance.sample(sorted(conversations.last), len(conversations.last) // 2))
        if step % 3 == 0:
            assert seen(await conversations.pages(chance.choice((1, 2, 5, 20)))) == conversations.right


def examined(url: str) -> int:
    """Return how many documents and keys mongod has examined since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        looked_at = client.admin.command("serverStatus")["metrics"]["queryExecutor"]
    return looked_at["scanned"] + looked_at["scannedObjects"]


@pytest.fixture
def strangers(conversations: Conversations, io_loop: IOLoop) -> Iterator[list[int]]:
    """Ids of peers that are not users. A server would not start with their conversations."""
    yield list(range(10**9, 10**9 + 3000))
    io_loop.run_sync(lambda: conversations.stored.delete_many({"users": conversations.me}))


async def test_a_list_costs_what_it_shows(
    conversations: Conversations, strangers: list[int], addresses: Addresses, messages: MongoMessages
) -> None:
    """Reading a page of 3,000 conversations examines little more than the page."""
    now = conversations.now
    await conversations.stored.insert_many(
        {
            "_id": conversation_of(conversations.me, peer),
            "users": [conversations.me, peer],
            "reserved": 1000,
            "active": False,
            "until": now - 1000 * number,
            "last": 1,
            "touched": LONG_AGO,
        }
        for number, peer in enumerate(strangers)
    )
    for start in range(0, 3000, 500):
        runs = [
            (Message(strangers[number], conversations.me, 1, now - 1000 * number, "x", number.to_bytes(16, "big")),)
            for number in range(start, start + 500)
        ]
        assert await asyncio.gather(*(messages.insert(*run) for run in runs)) == [None] * 500
    for before in (None, Cursor(now - 2_000_000)):
        reads, looked_at = mongo_reads(addresses.mongo), examined(addresses.mongo)
        listed = await messages.directory.conversations(conversations.me, before, 50)
        assert len(listed) == 50
        assert mongo_reads(addresses.mongo) - reads <= 4
        assert examined(addresses.mongo) - looked_at < 1000
