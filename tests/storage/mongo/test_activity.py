"""When pairs have written last: lists by an index that misses nothing, whatever was announced, stored or settled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from tornado.ioloop import IOLoop

from models.records import Cursor, Message, Summary, conversation_of, key_of
from storage.embedded.supervisor import Addresses
from storage.mongo.activity import Settled
from storage.mongo.messages import MongoMessages
from tests.conftest import Clock
from tests.support.database import mongo_reads

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
People = Callable[[int], list[int]]


class House:
    """The conversations of one user, as the store has them and as they are known to be."""

    def __init__(self, messages: MongoMessages, clock: Clock, me: int) -> None:
        self.messages = messages
        self.clock = clock
        self.me = me
        self.last: dict[int, Message] = {}

    @property
    def now(self) -> int:
        return int(self.clock() * 1000)

    async def write(self, peer: int, time: int, *, announced: bool = True) -> None:
        """Stores the next message of a peer, as models/chat/placing.py does."""
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
        """Makes it long ago that anything was announced."""
        names = [conversation_of(self.me, peer) for peer in peers or self.last]
        await self.messages._conversations.update_many({"_id": {"$in": names}}, {"$set": {"touched": LONG_AGO}})

    async def settled(self) -> set[int]:
        found = await self.messages._conversations.find({"users": self.me, "active": False}).to_list(None)
        return {int(user) for pair in found for user in pair["users"]} - {self.me}

    async def document(self, peer: int) -> dict[str, Any]:
        return await self.messages._conversations.find_one({"_id": conversation_of(self.me, peer)})

    async def pages(self, most: int) -> list[Summary]:
        found: list[Summary] = []
        before = None
        while page := await self.messages.directory.conversations(self.me, before, most):
            found += page
            before = Cursor(page[-1].last.time, page[-1].peer)
        return found

    @property
    def right(self) -> list[tuple[int, int]]:
        """Peers and seqs in the order of a list."""
        return [(peer, self.last[peer].seq) for peer in sorted(self.last, key=lambda p: (-self.last[p].time, p))]


@pytest.fixture
def house(messages: MongoMessages, clock: Clock, people: People) -> House:
    return House(messages, clock, people(1)[0])


def seen(listed: list[Summary]) -> list[tuple[int, int]]:
    return [(summary.peer, summary.last.seq) for summary in listed]


async def test_what_is_announced(house: House, people: People) -> None:
    """Makes a pair active and raises its bound, which never falls."""
    (peer,) = people(1)
    await house.write(peer, 1000)
    name = conversation_of(house.me, peer)
    for until in (5000, 3000):
        await house.messages.announce(name, until)
    document = await house.document(peer)
    assert (document["active"], document["until"]) == (True, 5000)


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_announced_and_never_stored(house: House, people: People, most: int) -> None:
    """A process that dies between the two leaves a pair where it belongs, on whatever page that is."""
    peers = people(8)
    for number, peer in enumerate(peers):
        await house.write(peer, house.now - 1000 * number - 100_000)
    await house.calm_down()
    assert seen(await house.pages(most)) == house.right
    assert await house.settled() == set(peers)
    for peer in (peers[4], peers[7]):
        await house.messages.announce(conversation_of(house.me, peer), house.now)
    assert seen(await house.pages(most)) == house.right


async def test_nothing_is_settled_that_may_be_written(house: House, people: People) -> None:
    """Neither shortly after an announcement, nor when one came after the last message was looked up."""
    (peer,) = people(1)
    await house.write(peer, house.now)
    house.clock.offset = 1000  # a process whose clock is ahead
    await house.pages(10)
    assert await house.settled() == set()
    await house.calm_down()
    name = conversation_of(house.me, peer)
    touched = (await house.document(peer))["touched"]
    await house.messages.announce(name, house.now)
    await house.messages._activity.settle([Settled(name, touched, 1, 1)])
    await house.messages._activity.settle([Settled(name, None, 1, 1)])
    assert await house.settled() == set()
    await house.calm_down()  # long ago, and yet at another time than when it was looked up
    await house.messages._activity.settle([Settled(name, LONG_AGO - timedelta(days=1), 1, 1)])
    assert await house.settled() == set()


async def test_written_without_a_word(house: House, people: People) -> None:
    """A message that was not announced, by another version, is shown all the same, and its pair looked up again."""
    peers = people(3)
    for number, peer in enumerate(peers):
        await house.write(peer, house.now - 1000 * number)
    await house.calm_down()
    await house.pages(10)
    await house.write(peers[2], house.now + 1000, announced=False)
    await house.pages(10)
    assert seen(await house.pages(1)) == house.right


async def test_pairs_of_another_version(house: House, people: People, messages: MongoMessages) -> None:
    """Of which nothing is known are looked up once, and settled."""
    peers = people(5)
    for number, peer in enumerate(peers):
        await house.write(peer, house.now - 1000 * number)
    fields = {"active": True, "until": True, "touched": True}
    await messages._conversations.update_many({"users": house.me}, {"$unset": fields})
    assert seen(await house.pages(2)) == house.right
    assert await house.settled() == set(peers)
    assert seen(await house.pages(2)) == house.right


async def test_expiry(house: House, people: People) -> None:
    """What is settled leaves the list when its last message expires, and is back when the clock was wrong."""
    peers = people(3)
    for number, peer in enumerate(peers):
        await house.write(peer, house.now - 1000 * number)
    await house.calm_down(*peers[:2])
    house.clock.offset = 91 * 86_400
    assert await house.pages(10) == []
    assert await house.settled() == set(peers[:2])
    house.clock.offset = 0
    assert seen(await house.pages(10)) == house.right


@pytest.mark.parametrize("together", [3, 200])
async def test_whatever_happens(house: House, people: People, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    """Pages of any size have every conversation once, in order: announced, stored, settled, in any sequence.

    However many pairs are read together.
    """
    monkeypatch.setattr("storage.mongo.directory.CHUNK", together)
    peers = people(12)
    chance = random.Random(14)  # a sequence, no secret
    begun = house.now - 10_000_000
    for step in range(150):
        peer = chance.choice(peers)
        time = max(begun + 1000 * (step // 4), house.last[peer].time if peer in house.last else 0)
        match chance.randrange(4):
            case 0 | 1:
                await house.write(peer, time)
            case 2 if peer in house.last:
                await house.messages.announce(conversation_of(house.me, peer), time + 120_000)
            case 3:
                await house.calm_down(*chance.sample(sorted(house.last), len(house.last) // 2))
        if step % 3 == 0:
            assert seen(await house.pages(chance.choice((1, 2, 5, 20)))) == house.right


def examined(url: str) -> int:
    """How many documents and keys a mongod has looked at since it started."""
    with MongoClient[dict[str, Any]](url) as client:
        looked_at = client.admin.command("serverStatus")["metrics"]["queryExecutor"]
    return looked_at["scanned"] + looked_at["scannedObjects"]


@pytest.fixture
def strangers(house: House, io_loop: IOLoop) -> Iterator[list[int]]:
    """Peers who are no users; a server would not start beside their conversations."""
    yield list(range(10**9, 10**9 + 3000))
    io_loop.run_sync(lambda: house.messages._conversations.delete_many({"users": house.me}))


async def test_a_list_costs_what_it_shows(
    house: House, strangers: list[int], addresses: Addresses, messages: MongoMessages
) -> None:
    """Not what its user has: of 3,000 conversations a page, the first or another, looks at little more than itself."""
    now = house.now
    await messages._conversations.insert_many(
        {
            "_id": conversation_of(house.me, peer),
            "users": [house.me, peer],
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
            (Message(strangers[number], house.me, 1, now - 1000 * number, "x", number.to_bytes(16, "big")),)
            for number in range(start, start + 500)
        ]
        assert await messages._insert_batch(runs) == [None] * 500
    for before in (None, Cursor(now - 2_000_000)):
        reads, looked_at = mongo_reads(addresses.mongo), examined(addresses.mongo)
        listed = await messages.directory.conversations(house.me, before, 50)
        assert len(listed) == 50
        assert mongo_reads(addresses.mongo) - reads <= 4
        assert examined(addresses.mongo) - looked_at < 1000
