"""Tests of resends and lost answers: which outcome of an insert is a resend, alone and in a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from models.chat.conversation import Stored
from models.chat.ports import Conflict
from models.chat.service import Chat
from models.errors import StorageUnavailable
from models.records import Message
from storage.mongo.messages import MongoMessages
from tests.support.chats import Faulty, Make, make_friends, stored

Pair = tuple[int, int]
LOST = StorageUnavailable("mongodb", "lost")


class Process:
    """A process that does not hear of others, and sends messages whose ids are their contents."""

    def __init__(self, chat: Chat, store: Faulty, pair: Pair) -> None:
        self.chat = chat
        self.store = store
        self.pair = pair

    async def send(self, *names: str) -> list[Stored]:
        """Send messages together, and return the answers."""
        answers = await asyncio.gather(*(self.chat.send(*self.pair, name, message_id=name) for name in names))
        assert all(isinstance(answer, Stored) for answer in answers)
        return answers


Processes = Callable[[], Awaitable[Process]]


@pytest.fixture
def processes(make: Make, pair: Pair) -> Processes:
    """Return a function that makes a process for which the conversation is open, so that it stores runs."""

    async def make_process() -> Process:
        chat, store, _ = make()
        chat.pair_opened(*pair)
        await make_friends(chat, pair)
        return Process(chat, store, pair)

    return make_process


async def contents(messages: MongoMessages, pair: Pair) -> list[str]:
    """Return what is stored besides the messages that make friends. All seqs are taken."""
    found = await stored(messages, pair)
    assert [message.seq for message in found] == list(range(1, len(found) + 1))
    return [message.content for message in found if message.content != "hello"]


async def seqs(messages: MongoMessages, pair: Pair) -> dict[str, int]:
    """Return the seqs by content."""
    return {message.content: message.seq for message in await stored(messages, pair)}


@pytest.mark.parametrize("losses", [0, 1, 3])
async def test_a_run_has_consecutive_seqs(
    losses: int, processes: Processes, messages: MongoMessages, pair: Pair
) -> None:
    """A run has consecutive seqs, also if answers are lost: what such an attempt stored is not a resend."""
    process = await processes()
    process.store.faults_after = [LOST] * losses
    answers = await process.send(*"abcde")
    assert await contents(messages, pair) == list("abcde")
    assert [(answer.seq, answer.dup) for answer in answers] == [(seq, False) for seq in range(4, 9)]


@pytest.mark.parametrize("losses", [0, 2])
async def test_a_resend_gets_the_seq_of_the_first_copy(
    losses: int, processes: Processes, messages: MongoMessages, pair: Pair
) -> None:
    """A resend gets the seq of the first copy, in any process, also if answers are lost."""
    first, _, _ = await (await processes()).send(*"abc")
    again = await processes()
    again.store.faults_after = [LOST] * losses
    (answer,) = await again.send("a")
    assert (answer.seq, answer.time, answer.dup) == (first.seq, first.time, True)
    assert await contents(messages, pair) == list("abc")


@pytest.mark.parametrize("losses", [0, 2])
async def test_resends_in_a_run(losses: int, processes: Processes, messages: MongoMessages, pair: Pair) -> None:
    """Resends get the seqs of their first copies; the other messages follow in order, without a gap."""
    await (await processes()).send(*"abc")
    process = await processes()
    process.store.faults_after = [LOST] * losses
    answers = await process.send(*"bxcya")
    assert await contents(messages, pair) == list("abcxy")
    at = await seqs(messages, pair)
    assert [(answer.seq, answer.dup) for answer in answers] == [
        (at["b"], True),
        (at["x"], False),
        (at["c"], True),
        (at["y"], False),
        (at["a"], True),
    ]


@pytest.mark.parametrize("losses", [0, 2])
async def test_a_run_that_meets_another_process(
    losses: int, processes: Processes, messages: MongoMessages, pair: Pair
) -> None:
    """The whole run follows the other process's messages, in order and without a gap."""
    here, other = await processes(), await processes()
    await here.send("a")
    await other.send("x", "y")  # unnoticed by the first
    here.store.faults_after = [LOST] * losses
    answers = await here.send(*"bcd")
    assert await contents(messages, pair) == list("axybcd")
    at = await seqs(messages, pair)
    assert [(answer.seq, answer.dup) for answer in answers] == [(at[name], False) for name in "bcd"]


async def test_a_late_commit_of_a_process_that_died(processes: Processes, messages: MongoMessages, pair: Pair) -> None:
    """The next process tries the same seq and finds the message there: an earlier attempt has stored it."""
    late, other = await processes(), await processes()
    await late.send("a")
    await other.send("b")  # unnoticed by the first
    (answer,) = await late.send("b")
    assert answer.dup
    await late.send("c", "d")
    assert await contents(messages, pair) == list("abcd")


async def test_a_run_that_was_stored_in_part(
    processes: Processes, messages: MongoMessages, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If only the beginning of a run was stored and the answer is lost, the next attempt stores the rest."""
    process = await processes()

    async def half(run: tuple[Message, ...]) -> Conflict | None:
        monkeypatch.undo()
        await messages.insert(*run[:2])
        raise LOST

    monkeypatch.setattr(process.store, "attempt", half)
    answers = await process.send(*"abcd")
    assert await contents(messages, pair) == list("abcd")
    assert [(answer.seq, answer.dup) for answer in answers] == [(seq, False) for seq in range(4, 8)]
