"""Tests of messages in MongoDB: seqs, resends, pages and retention."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import ServerSelectionTimeoutError

from models.errors import NotSent, StorageUnavailable
from models.records import Message, conversation_of
from storage.mongo.documents import alive, id_range
from storage.mongo.messages import (
    DAY,
    RESERVE,
    RETENTION,
    SWEEP_AFTER,
    MongoMessages,
    UnsuitableMongoError,
    mongo_client,
)
from tests.conftest import Connect
from tests.support.clocks import Clock

Pair = tuple[int, int]


def message(pair: Pair, seq: int, time: int | None = None, key: bytes | None = None, content: str = "hi") -> Message:
    return Message(*pair, seq, 1_900_000_000_000 if time is None else time, content, key or secrets.token_bytes(16))


async def fill(messages: MongoMessages, pair: Pair, count: int, **rest: Any) -> str:
    await messages.reserve(conversation_of(*pair), count)
    for seq in range(1, count + 1):
        assert await messages.insert(message(pair, seq, **rest)) is None
    return conversation_of(*pair)


async def test_what_is_stored_comes_back(messages: MongoMessages, pair: Pair) -> None:
    """All fields of a message are stored, in both directions."""
    name = conversation_of(*pair)
    first, second = message(pair, 1), message(pair[::-1], 2, content="字\0$x")
    assert await messages.insert(first) is None
    assert await messages.insert(second) is None
    assert [first, second] == await messages.page(name, 1, 10)
    assert await messages.newest(name) == 2


async def test_a_taken_seq_gives_its_message(messages: MongoMessages, pair: Pair) -> None:
    """The second insert at a seq gets the existing message, which is the fence between processes."""
    first = message(pair, 1)
    await messages.insert(first)
    conflict = await messages.insert(message(pair, 1))
    assert conflict
    assert first == conflict.existing


async def test_a_repeated_message_gives_its_first_copy(messages: MongoMessages, pair: Pair) -> None:
    """A message with a known key gets its first copy, at the same seq or another one."""
    first = message(pair, 1)
    await messages.insert(first)
    for seq in (1, 2):
        conflict = await messages.insert(message(pair, seq, key=first.key))
        assert conflict
        assert first == conflict.existing
    assert [first] == await messages.page(first.conversation, 1, 10)


async def test_a_batch_with_every_outcome(messages: MongoMessages, people: Any) -> None:
    """Each caller gets its own outcome from one insert: stored, seq taken, or repeated."""
    pairs = [tuple(people(2)) for _ in range(3)]
    there = [message(pair, 1) for pair in pairs[1:]]
    for one in there:
        await messages.insert(one)
    outcomes = await asyncio.gather(
        messages.insert(message(pairs[0], 1)),
        messages.insert(message(pairs[1], 1)),
        messages.insert(message(pairs[2], 2, key=there[1].key)),
    )
    assert [None, *there] == [outcome and outcome.existing for outcome in outcomes]


async def test_a_run_is_stored_up_to_the_first_obstacle(messages: MongoMessages, pair: Pair) -> None:
    """A run is stored up to its first conflict, a taken seq or key, and nothing after it."""
    name = conversation_of(*pair)
    taken = message(pair, 3)
    await messages.insert(taken)
    run = [message(pair, seq) for seq in range(1, 6)]
    assert await messages.insert(*run) == (taken, 2)
    assert await messages.page(name, 1, 10) == [*run[:2], taken]
    assert await messages.insert(*run[1:]) == (run[1], 0)
    again = [message(pair, 4), message(pair, 5, key=run[0].key), message(pair, 6)]
    assert await messages.insert(*again) == (run[0], 1)
    assert await messages.page(name, 1, 10) == [*run[:2], taken, again[0]]


async def test_runs_with_every_outcome(messages: MongoMessages, people: Any) -> None:
    """In a batch with several conflicts each caller gets its own outcome, and no run has a gap."""
    pairs = [tuple(people(2)) for _ in range(6)]
    there = {pair: message(pair, number) for number, pair in enumerate(pairs[:4], 1)}
    await asyncio.gather(*(messages.insert(one) for one in there.values()))
    runs = {pair: [message(pair, seq) for seq in range(1, 4)] for pair in pairs}
    outcomes = await asyncio.gather(*(messages.insert(*run) for run in runs.values()))
    assert outcomes == [(there[pairs[0]], 0), (there[pairs[1]], 1), (there[pairs[2]], 2), None, None, None]
    for pair, run in runs.items():
        stored = await messages.page(conversation_of(*pair), 1, 10)
        before = pairs.index(pair) if pair in pairs[:3] else 3
        assert stored == [*run[:before], *([there[pair]] if pair in there else [])]


async def test_a_batch_that_fails_half_through(
    messages: MongoMessages, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If MongoDB becomes unavailable after a conflict, no caller gets NotSent."""
    pairs = [tuple(people(2)) for _ in range(3)]
    taken = message(pairs[0], 1)
    await messages.insert(taken)
    real, calls = AsyncIOMotorDatabase.command, []

    async def once(self: Any, command: Any) -> Any:
        calls.append(len(command["documents"]))
        if len(calls) > 1:
            raise ServerSelectionTimeoutError("away")
        return await real(self, command)

    monkeypatch.setattr(AsyncIOMotorDatabase, "command", once)
    outcomes = await asyncio.gather(*(messages.insert(message(pair, 1)) for pair in pairs), return_exceptions=True)
    assert calls == [3, 2]
    assert outcomes[0] == (taken, 0)
    assert [type(outcome) for outcome in outcomes[1:]] == [StorageUnavailable, StorageUnavailable]


async def test_a_batch_that_is_larger_than_a_command(messages: MongoMessages, people: Any) -> None:
    """Messages of more than 16 MB together are inserted too, in order, with the outcome of each run."""
    pairs = [tuple(people(2)) for _ in range(3)]
    taken = message(pairs[1], 2)
    await messages.insert(taken)
    runs = [[message(pair, seq, content="x" * 3_000_000) for seq in (1, 2, 3)] for pair in pairs]
    outcomes = await asyncio.gather(*(messages.insert(*run) for run in runs))
    assert outcomes == [None, (taken, 1), None]
    for pair, stored in zip(pairs, ([1, 2, 3], [1, 2], [1, 2, 3]), strict=True):
        assert [each.seq for each in await messages.page(conversation_of(*pair), 1, 10)] == stored


async def test_a_message_that_is_not_on_a_majority(
    messages: MongoMessages, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If MongoDB stores a message and does not confirm the majority, the outcome is unknown. A repeat tells it."""
    real = AsyncIOMotorDatabase.command

    async def unconfirmed(self: Any, command: Any) -> Any:
        return {**await real(self, command), "writeConcernError": {"code": 64, "errmsg": "waiting timed out"}}

    first = message(pair, 1)
    with monkeypatch.context() as patched:
        patched.setattr(AsyncIOMotorDatabase, "command", unconfirmed)
        with pytest.raises(StorageUnavailable, match="waiting timed out") as raised:
            await messages.insert(first)
    assert type(raised.value) is StorageUnavailable
    assert await messages.insert(first) == (first, 0)


async def test_head(messages: MongoMessages, pair: Pair) -> None:
    """An unknown conversation begins at zero, and a known one continues after its last message."""
    name = conversation_of(*pair)
    assert (await messages.head(name)).seq == 0
    await fill(messages, pair, 4)
    head = await messages.head(name)
    assert (4, 1_900_000_000_000, (pair[0],) * 3) == (head.seq, head.time, tuple(who for who, _ in head.senders))
    assert head.reserved >= 4


async def test_a_reservation_before_the_first_message_moves_nothing(messages: MongoMessages, pair: Pair) -> None:
    """Reserving seqs does not change where the next message is stored."""
    name = conversation_of(*pair)
    assert await messages.reserve(name, 1) == RESERVE
    assert (await messages.head(name)).seq == 0


async def test_seq_goes_on_when_all_messages_are_gone(
    messages: MongoMessages, mongo: Any, pair: Pair, clock: Clock
) -> None:
    """When all messages are gone, every process continues above the highest reserved seq, at the same one."""
    name = await fill(messages, pair, 3, time=int(clock() * 1000))
    expected = (await messages.head(name)).reserved
    clock.offset += (RETENTION + 2 * DAY) / 1000
    heads = await asyncio.gather(*(messages.head(name) for _ in range(5)))
    assert {expected} == {head.seq for head in heads}
    reserved = await messages.reserve(name, expected + 1)
    assert reserved > expected
    await messages.insert(message(pair, expected + 1, time=int(clock() * 1000)))
    assert (await messages.head(name)).seq == expected + 1

    await mongo.messages.delete_many({"conversation": name})  # as MongoDB does after expiry
    clock.offset += (RETENTION + 2 * DAY) / 1000
    again = await messages.head(name)
    assert again.seq >= reserved
    assert again.reserved > again.seq


async def test_a_swept_conversation_keeps_its_base(
    messages: MongoMessages, mongo: Any, pair: Pair, clock: Clock
) -> None:
    """A process that finds no message continues at the same seq as the others."""
    name = await fill(messages, pair, 3, time=int(clock() * 1000))
    clock.offset += (RETENTION + 2 * DAY) / 1000
    before = await messages.head(name)
    await mongo.messages.delete_many({"conversation": name})
    assert before.seq == (await messages.head(name)).seq >= RESERVE


async def test_retention(messages: MongoMessages, pair: Pair, clock: Clock) -> None:
    """Every query returns a message for ninety days, to the millisecond, whether or not MongoDB has removed it."""
    now = int(clock() * 1000)
    name = conversation_of(*pair)
    for seq, age in ((1, RETENTION + 60_000), (2, RETENTION - 60_000), (3, 0)):
        await messages.insert(message(pair, seq, time=now - age))
    assert [m.seq for m in await messages.page(name, 1, 10)] == [2, 3]
    assert await messages.count(name, pair[0], now, 10) == 2
    assert (await messages.unread_start(name, pair[1], pair[0])).first_unread == 2
    clock.offset += 120
    assert [m.seq for m in await messages.page(name, 1, 10)] == [3]


async def test_the_sweeper_is_told_when(messages: MongoMessages, mongo: Any, pair: Pair) -> None:
    """A TTL index on `endTime` removes messages, at the end of their three months rounded up to an hour."""
    await messages.insert(message(pair, 1, time=1_900_000_000_001))
    indexes = await mongo.messages.index_information()
    assert indexes["expiry"]["key"] == [("endTime", 1)]
    assert indexes["expiry"]["expireAfterSeconds"] == SWEEP_AFTER // 1000
    document = await mongo.messages.find_one({"conversation": conversation_of(*pair)})
    end = int(document["endTime"].timestamp() * 1000)
    assert 0 <= end - (1_900_000_000_001 + RETENTION) < 3_600_000
    assert end % 3_600_000 == 0


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
async def test_bisection_finds_every_moment(messages: MongoMessages, pair: Pair, count: int) -> None:
    """`last_before` finds the right seq for every time, with several messages in one millisecond."""
    base = 1_900_000_000_000
    times = [base + 10 * (number // 3) for number in range(count)]
    for seq, time in enumerate(times, 1):
        await messages.insert(message(pair, seq, time=time))
    for moment in {base - 1, base + 1000, *times, *(time + 1 for time in times)}:
        expected = sum(time < moment for time in times)
        assert await messages.last_before(conversation_of(*pair), moment) == expected


async def test_bisection_passes_over_what_was_swept(messages: MongoMessages, pair: Pair) -> None:
    """Seqs whose messages were removed count as older than any time."""
    for seq in range(900, 911):
        await messages.insert(message(pair, seq, time=1_900_000_000_000 + seq))
    assert await messages.last_before(conversation_of(*pair), 1_900_000_000_905) == 904


async def test_a_page_is_a_range_of_ids(messages: MongoMessages, mongo: Any, pair: Pair) -> None:
    """A page is a bounded scan of the clustered collection, without a sort, that reads only what it returns."""
    name = await fill(messages, pair, 50)
    plan = await mongo.command(
        "explain",
        {"find": "messages", "filter": id_range(name, 31, 40) | alive(0), "sort": {"_id": 1}, "limit": 10},
        verbosity="executionStats",
    )
    stats = plan["executionStats"]
    stages = str(plan["queryPlanner"]["winningPlan"])
    assert "CLUSTERED_IXSCAN" in stages
    assert "SORT" not in stages
    assert "COLLSCAN" not in stages
    assert (stats["nReturned"], stats["totalDocsExamined"]) == (10, 10)


async def test_writes_are_durable(messages: MongoMessages, mongo: Any, pair: Pair) -> None:
    """Writes are journaled on a majority, and reads see what a majority has."""
    await mongo.command("profile", 2)  # mongod stores each command that it gets
    try:
        await messages.insert(message(pair, 1))
        await messages.page(conversation_of(*pair), 1, 1)
    finally:
        await mongo.command("profile", 0)
    commands = {each["op"]: each["command"] async for each in mongo["system.profile"].find({"ns": "tandem.messages"})}
    await mongo.drop_collection("system.profile")
    assert commands["insert"]["writeConcern"] == {"w": "majority", "j": True}
    assert commands["query"]["readConcern"] == {"level": "majority"}


async def test_a_server_that_is_not_there(clock: Clock) -> None:
    """Without a server the error is NotSent."""
    client = mongo_client("mongodb://127.0.0.1:9/?replicaSet=rs0", timeout=0.2)
    store = MongoMessages(client, "tandem", clock=clock, max_batch=1, max_concurrent=1, max_blocks=1)
    with pytest.raises(NotSent):
        await store.insert(message((1, 2), 1))
    client.close()


async def test_an_unsuitable_server(messages: MongoMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error about an old server, or one without a replica set, says what is needed."""
    real = AsyncIOMotorDatabase.command

    async def old(self: Any, name: str) -> dict[str, Any]:
        return {**await real(self, name), "versionArray": [5, 0, 1, 0]}

    async def alone(self: Any, name: str) -> dict[str, Any]:
        return {key: value for key, value in (await real(self, name)).items() if key != "setName"}

    for fake, text in ((old, "5.0 is too old"), (alone, "not a replica set")):
        monkeypatch.setattr(AsyncIOMotorDatabase, "command", fake)
        with pytest.raises(UnsuitableMongoError, match=text):
            await messages.prepare()


async def test_the_stored_form(connect: Connect, mongo: Any, pair: Pair) -> None:
    """Stored documents have the form that docs/design.md describes."""
    one = await connect(*pair)
    await one.say("hi", 50005)
    document = await mongo.messages.find_one({"conversation": conversation_of(*pair)})
    assert {"_id", "conversation", "sender", "content", "key", "startTime", "endTime"} == set(document)
    assert {"c": conversation_of(*pair), "s": 1} == document["_id"]
    assert len(document["key"]) == 16
