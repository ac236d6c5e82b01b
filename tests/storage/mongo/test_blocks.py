"""Tests of blocks in MongoDB."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from models.errors import Forbidden, StorageUnavailable
from models.records import Message
from storage.embedded.supervisor import Addresses
from storage.mongo import blocks as module
from storage.mongo.blocks import MongoBlocks
from storage.mongo.messages import MongoMessages, mongo_client
from tests.storage.conftest import UNAVAILABLE
from tests.support.clocks import Clock
from tests.support.database import mongo_reads

Pair = tuple[int, int]
People = Callable[[int], list[int]]


@pytest.fixture
def blocks(messages: MongoMessages) -> MongoBlocks:
    """The blocks, of which a user may have three."""
    return messages.blocks


async def say(messages: MongoMessages, pair: Pair, seq: int) -> None:
    assert await messages.insert(Message(*pair, seq, 1_900_000_000_000, "hi", secrets.token_bytes(16))) is None


async def test_a_block_is_kept_and_lifted(blocks: MongoBlocks, pair: Pair) -> None:
    """A block is stored and removed, has a direction, and is found from both sides."""
    assert await blocks.between(*pair) == (None, None)
    assert await blocks.block(*pair) == 0
    assert await blocks.between(*pair) == (0, None)
    assert await blocks.between(*pair[::-1]) == (None, 0)
    await blocks.unblock(*pair[::-1])
    assert await blocks.between(*pair) == (0, None)
    await blocks.unblock(*pair)
    assert await blocks.between(*pair) == (None, None)


async def test_a_block_knows_the_last_message(messages: MongoMessages, blocks: MongoBlocks, pair: Pair) -> None:
    """A block has the last seq at the time when it was first made, until it is removed."""
    await say(messages, pair, 1)
    assert await blocks.block(*pair) == 1
    await say(messages, pair, 2)
    assert await blocks.block(*pair) == 1
    assert await blocks.block(*pair[::-1]) == 2
    assert await blocks.between(*pair) == (1, 2)
    await blocks.unblock(*pair)
    assert await blocks.block(*pair) == 2


async def test_many_make_the_same_block_at_once(blocks: MongoBlocks, pair: Pair) -> None:
    """Concurrent identical blocks are stored once."""
    assert await asyncio.gather(*(blocks.block(*pair) for _ in range(20))) == [0] * 20
    assert await blocks.by(pair) == {pair[0]: {pair[1]: 0}}


async def test_to_lift_what_is_not_there(blocks: MongoBlocks, pair: Pair) -> None:
    """Removing a block that does not exist changes nothing."""
    await blocks.unblock(*pair)
    assert await blocks.between(*pair) == (None, None)


async def test_a_user_blocks_so_many(blocks: MongoBlocks, people: People) -> None:
    """A user at the limit cannot block another user before removing a block, but can repeat an existing one."""
    user, *peers = people(5)
    for peer in peers[:3]:
        await blocks.block(user, peer)
    with pytest.raises(Forbidden, match="3 users"):
        await blocks.block(user, peers[3])
    assert await blocks.block(user, peers[0]) == 0
    assert await blocks.block(peers[3], user) == 0
    await blocks.unblock(user, peers[0])
    await blocks.block(user, peers[3])
    assert set(peers[1:]) == set((await blocks.by([user]))[user])


async def test_many_blocks_at_once(blocks: MongoBlocks, people: People) -> None:
    """Concurrent blocks do not exceed the limit."""
    user, *peers = people(12)
    outcomes = await asyncio.gather(*(blocks.block(user, peer) for peer in peers), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {int, Forbidden}
    assert len((await blocks.by([user])).get(user, {})) <= 3


async def test_blocks_of_many_users(blocks: MongoBlocks, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of many users are read in several queries, without users who block none."""
    monkeypatch.setattr(module, "BATCH", 2)
    users = people(5)
    for user, peer in pairwise(users):
        await blocks.block(user, peer)
    expected = {user: {peer: 0} for user, peer in pairwise(users)}
    assert expected == await blocks.by(users)
    assert await blocks.by([]) == {}


async def test_large_ids(blocks: MongoBlocks) -> None:
    """Large ids are stored unchanged."""
    largest = 2**63 - 1
    await blocks.block(largest, largest - 1)
    assert await blocks.between(largest - 1, largest) == (None, 0)
    assert await blocks.by([largest]) == {largest: {largest - 1: 0}}


async def test_lookups_share_queries(blocks: MongoBlocks, people: People, addresses: Addresses) -> None:
    """Concurrent lookups share a few queries, and each gets its own answer."""
    users = people(50)
    await blocks.block(users[0], users[1])
    before = mongo_reads(addresses.mongo)
    found = await asyncio.gather(*(blocks.between(user, users[1]) for user in users))
    assert found == [(0, None)] + [(None, None)] * 49
    assert 0 < mongo_reads(addresses.mongo) - before < 10


async def test_a_user_s_blocks_have_an_index(mongo: Any, blocks: MongoBlocks) -> None:
    """The index of a user's blocks can be created again."""
    await blocks.prepare()
    assert (await mongo.blocks.index_information())["by"]["key"] == [("by", 1)]


async def test_mongodb_away(clock: Clock) -> None:
    """Every call raises StorageUnavailable while MongoDB is unavailable, so no block is overlooked."""
    client = mongo_client(UNAVAILABLE.mongo, timeout=0.1)
    blocks = MongoMessages(client, "tandem", clock=clock, max_batch=1, max_concurrent=1, max_blocks=1).blocks
    for call in (blocks.prepare(), blocks.block(1, 2), blocks.unblock(1, 2), blocks.between(1, 2), blocks.by([1])):
        with pytest.raises(StorageUnavailable):
            await call
    client.close()
