"""Blocks in MongoDB: who has blocked whom, since which message."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import pairwise

import pytest

from models.errors import EngineUnavailable, Forbidden
from models.records import Message
from storage.mongo import blocks as module
from storage.mongo.blocks import MongoBlocks
from storage.mongo.messages import MongoMessages, mongo_client
from tests.conftest import Clock
from tests.storage.conftest import NOBODY

Pair = tuple[int, int]
People = Callable[[int], list[int]]


@pytest.fixture
def blocks(messages: MongoMessages) -> MongoBlocks:
    """The blocks; a user may have three."""
    return messages.blocks


async def say(messages: MongoMessages, pair: Pair, seq: int) -> None:
    assert await messages.insert(Message(*pair, seq, 1_900_000_000_000, "hi", secrets.token_bytes(16))) is None


async def test_a_block_is_kept_and_lifted(blocks: MongoBlocks, pair: Pair) -> None:
    """In its direction, and seen from both sides."""
    assert await blocks.between(*pair) == (None, None)
    assert await blocks.block(*pair) == 0
    assert await blocks.between(*pair) == (0, None)
    assert await blocks.between(*pair[::-1]) == (None, 0)
    await blocks.unblock(*pair[::-1])
    assert await blocks.between(*pair) == (0, None)
    await blocks.unblock(*pair)
    assert await blocks.between(*pair) == (None, None)


async def test_a_block_knows_the_last_message(messages: MongoMessages, blocks: MongoBlocks, pair: Pair) -> None:
    """Of when it was made first, until it is lifted."""
    await say(messages, pair, 1)
    assert await blocks.block(*pair) == 1
    await say(messages, pair, 2)
    assert await blocks.block(*pair) == 1
    assert await blocks.block(*pair[::-1]) == 2
    assert await blocks.between(*pair) == (1, 2)
    await blocks.unblock(*pair)
    assert await blocks.block(*pair) == 2


async def test_many_make_the_same_block_at_once(blocks: MongoBlocks, pair: Pair) -> None:
    """It is one."""
    assert await asyncio.gather(*(blocks.block(*pair) for _ in range(20))) == [0] * 20
    assert await blocks.by(pair) == {pair[0]: {pair[1]: 0}}


async def test_to_lift_what_is_not_there(blocks: MongoBlocks, pair: Pair) -> None:
    """Changes nothing."""
    await blocks.unblock(*pair)
    assert await blocks.between(*pair) == (None, None)


async def test_a_user_blocks_so_many(blocks: MongoBlocks, people: People) -> None:
    """One more only when another is lifted; those that are there can be asked for again."""
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
    """Do not slip past the bound together."""
    user, *peers = people(12)
    outcomes = await asyncio.gather(*(blocks.block(user, peer) for peer in peers), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {int, Forbidden}
    assert len((await blocks.by([user])).get(user, {})) <= 3


async def test_blocks_of_many_users(blocks: MongoBlocks, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several queries if need be; who has blocked nobody is not among them."""
    monkeypatch.setattr(module, "BATCH", 2)
    users = people(5)
    for user, peer in pairwise(users):
        await blocks.block(user, peer)
    expected = {user: {peer: 0} for user, peer in pairwise(users)}
    assert expected == await blocks.by(users)
    assert await blocks.by([]) == {}


async def test_large_ids(blocks: MongoBlocks) -> None:
    """Come back as they are."""
    largest = 2**63 - 1
    await blocks.block(largest, largest - 1)
    assert await blocks.between(largest - 1, largest) == (None, 0)
    assert await blocks.by([largest]) == {largest: {largest - 1: 0}}


async def test_lookups_travel_together(blocks: MongoBlocks, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of messages is few queries, and each gets its own answer."""
    users, batches = people(50), []
    await blocks.block(users[0], users[1])
    fetch = blocks._look_up._execute

    async def counting(batch: list[Pair]) -> object:
        batches.append(len(batch))
        return await fetch(batch)

    monkeypatch.setattr(blocks._look_up, "_execute", counting)
    found = await asyncio.gather(*(blocks.between(user, users[1]) for user in users))
    assert found == [(0, None)] + [(None, None)] * 49
    assert len(batches) < 10


async def test_a_user_s_blocks_have_an_index(messages: MongoMessages, blocks: MongoBlocks) -> None:
    """That is made again without complaint."""
    await blocks.prepare()
    assert (await messages._database.blocks.index_information())["by"]["key"] == [("by", 1)]


async def test_mongodb_away(clock: Clock) -> None:
    """An error for every call: nobody is taken for not blocked."""
    client = mongo_client(NOBODY.mongo, timeout=0.1)
    blocks = MongoMessages(client, "tandem", clock=clock, max_batch=1, max_concurrent=1, max_blocks=1).blocks
    for call in (blocks.prepare(), blocks.block(1, 2), blocks.unblock(1, 2), blocks.between(1, 2), blocks.by([1])):
        with pytest.raises(EngineUnavailable):
            await call
    client.close()
