"""Tests of acquaintances: they are cached within a limit, and actions are skipped while they are unknown."""

from __future__ import annotations

import asyncio

import pytest

from models.chat import acquaintances as module
from models.chat.acquaintances import Acquaintances
from models.errors import StorageUnavailable
from models.records import conversation_of
from storage.mongo.messages import MongoMessages
from tests.support.sockets import until

Pair = tuple[int, int]


@pytest.fixture
def acquaintances(messages: MongoMessages) -> Acquaintances:
    """Acquaintances on the real directory."""
    return Acquaintances(messages.directory)


async def meet(messages: MongoMessages, pair: Pair) -> None:
    await messages.reserve(conversation_of(*pair), 1)
    await messages.directory.introduce(conversation_of(*pair))


async def test_two_who_have_both_written(acquaintances: Acquaintances, messages: MongoMessages, pair: Pair) -> None:
    """Two users who have both written stay acquainted for both; strangers are looked up each time."""
    assert not await acquaintances.acquainted(*pair)
    await meet(messages, pair)
    assert await acquaintances.acquainted(*pair)
    assert await acquaintances.acquainted(*pair[::-1])


async def test_what_is_known_is_not_asked_again(
    acquaintances: Acquaintances, messages: MongoMessages, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cached answer an action runs at once, also while MongoDB is down; without one it is skipped."""
    done: list[str] = []
    await messages.reserve(conversation_of(*pair), 1)
    await acquaintances.introduce(conversation_of(*pair))

    async def away(name: str) -> bool:
        raise StorageUnavailable("mongodb", "away")

    monkeypatch.setattr(messages.directory, "mutual", away)
    acquaintances.if_acquainted(*pair, lambda: done.append("at once"))
    assert done == ["at once"]
    acquaintances.if_acquainted(pair[0], 10**9, lambda: done.append("never"))
    await until(lambda: acquaintances.idle)
    assert done == ["at once"]
    with pytest.raises(StorageUnavailable):
        await acquaintances.acquainted(pair[0], 10**9)


async def test_an_action_that_waits_for_the_answer(
    acquaintances: Acquaintances, messages: MongoMessages, pair: Pair
) -> None:
    """An action runs as soon as both are known to have written, and never for a stranger."""
    done: list[Pair] = []
    await meet(messages, pair)
    for two in (pair, (pair[0], 10**9)):
        acquaintances.if_acquainted(*two, lambda two=two: done.append(two))  # type: ignore[misc]
    await until(lambda: acquaintances.idle)
    assert done == [pair]


async def test_many_actions_at_once(
    acquaintances: Acquaintances, messages: MongoMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most LOOKS actions look up at a time, the others are skipped, and closing cancels the look-ups."""
    asked: list[str] = []

    async def slow(name: str) -> bool:
        asked.append(name)
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(messages.directory, "mutual", slow)
    for peer in range(10 * module.LOOKS):
        acquaintances.if_acquainted(10**9, peer + 1, lambda: None)
    await until(lambda: len(asked) == module.LOOKS)
    await acquaintances.close()
    assert acquaintances.idle
    assert len(asked) == module.LOOKS


async def test_no_more_is_remembered_than_fits(
    acquaintances: Acquaintances, messages: MongoMessages, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache has a limit; what it drops is looked up again."""
    monkeypatch.setattr(module, "KNOWN", 2)
    asked: list[str] = []
    mutual = messages.directory.mutual

    async def counting(name: str) -> bool:
        asked.append(name)
        return await mutual(name)

    monkeypatch.setattr(messages.directory, "mutual", counting)
    await meet(messages, pair)
    assert await acquaintances.acquainted(*pair)
    for number in range(4):
        await acquaintances.introduce(conversation_of(10**9, number + 1))
    assert await acquaintances.acquainted(10**9, 4)
    assert asked == [conversation_of(*pair)]
    assert await acquaintances.acquainted(*pair)
    assert asked == [conversation_of(*pair)] * 2
