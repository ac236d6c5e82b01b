"""Tests of the pipeline with real databases; a wrapper around the real store provokes rare faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from models.chat.conversation import Conversation, PendingMessage, Stored
from models.chat.ports import Conflict, Reached
from models.chat.service import Chat
from models.chat.stranger_limit import LIMIT
from models.errors import Blocked, InvalidFrame, LimitReached, NotSent, Overloaded, StorageUnavailable
from models.records import Message, conversation_of
from storage.mongo.messages import MongoMessages
from storage.redis.counters import RedisCounters
from tests.support.chats import Faulty, Listening, Make, Recorder, make_friends, stored
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE
from tests.support.sockets import until

Friends = Callable[[Chat, tuple[int, int]], Awaitable[None]]


@pytest.fixture(params=["idle", "active"])
def befriend(request: pytest.FixtureRequest) -> Friends:
    """Return a function that lets both write, so that the limit rule is open.

    Afterwards the process has forgotten the conversation, or knows all of it because a socket is open.
    """

    async def befriended(chat: Chat, pair: tuple[int, int]) -> None:
        if request.param == "active":
            chat.pair_opened(*pair)
        await make_friends(chat, pair)

    return befriended


async def next_turn() -> None:
    """Wait until runs have begun: in the turn of the loop after their first message."""
    await asyncio.sleep(0)


async def test_a_message_is_stored_then_acknowledged(
    make: Make, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """The answer has the seq of the message."""
    chat, _, sockets = make(pair[1])
    sent = await chat.send(*pair, "hi")
    assert isinstance(sent, Stored)
    assert sent.online
    (message,) = await stored(messages, pair)
    assert (pair[0], pair[1], 1, sent.time, "hi") == (*message_of(message), message.content)
    assert sockets.delivered == [message]


def message_of(message: Message) -> tuple[int, int, int, int]:
    return message.sender, message.recipient, message.seq, message.time


async def test_an_unknown_outcome_is_seen_through_when_it_was_stored(
    make: Make, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """The answer to the insert is lost: the second attempt finds the message at its seq, stored once."""
    chat, store, sockets = make()
    store.faults_after = [StorageUnavailable("mongodb", "lost"), StorageUnavailable("mongodb", "lost again")]
    sent = await chat.send(*pair, "hi")
    assert isinstance(sent, Stored)
    assert sent.seq == 1
    assert len(await stored(messages, pair)) == len(sockets.delivered) == 1
    assert len({(m.seq, m.time, m.key) for m in store.tried}) == 1


async def test_an_unknown_outcome_is_seen_through_when_it_was_not_stored(
    make: Make, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """The insert is lost: the second attempt uses the same seq."""
    chat, store, _ = make()
    store.faults_before = [StorageUnavailable("mongodb", "lost")]
    sent = await chat.send(*pair, "hi")
    assert isinstance(sent, Stored)
    assert [m.seq for m in await stored(messages, pair)] == [1]


async def test_an_unknown_outcome_whose_seq_another_took(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """Another process takes the seq, so the message gets the next one."""
    chat, store, sockets = make()
    await befriend(chat, pair)
    other, _, _ = make()
    store.faults_before = [StorageUnavailable("mongodb", "lost")]
    store.gate.clear()
    mine = chat.send(*pair, "mine")
    await until(lambda: len(store.tried) == 5)  # the first attempt failed, the second is held at the gate
    theirs = await other.send(*pair[::-1], "theirs")
    store.gate.set()
    sent = await mine
    assert isinstance(sent, Stored)
    assert isinstance(theirs, Stored)
    assert (theirs.seq, sent.seq) == (4, 5)
    assert [m.content for m in sockets.delivered] == ["hello"] * 3 + ["theirs", "mine"]


async def test_two_processes_meet_at_the_fence(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """When two processes write at once, nothing is lost or doubled, there is no gap, and each delivers in order."""
    first, _, first_sockets = make()
    await befriend(first, pair)
    second, _, second_sockets = make()
    answers = []
    for number in range(60):
        answers.append(first.send(*pair, f"a{number}"))
        answers.append(second.send(*pair[::-1], f"b{number}"))
    assert all(isinstance(answer, Stored) for answer in await asyncio.gather(*answers))
    all_stored = await stored(messages, pair)
    assert list(range(1, 124)) == [m.seq for m in all_stored]
    assert sorted([m.time for m in all_stored]) == [m.time for m in all_stored]
    for letter in "ab":
        assert [f"{letter}{n}" for n in range(60)] == [m.content for m in all_stored if m.content[0] == letter]
    for sockets in (first_sockets, second_sockets):
        seqs = [m.seq for m in sockets.delivered]
        assert sorted(set(seqs)) == seqs


async def test_five_hundred_at_once_keep_their_order(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """Messages of one sender keep the order in which they were sent."""
    chat, _, sockets = make()
    await befriend(chat, pair)
    answers = [chat.send(*pair, str(number)) for number in range(500)]
    assert list(range(4, 504)) == [sent.seq for sent in await asyncio.gather(*answers)]
    assert [str(number) for number in range(500)] == [m.content for m in sockets.delivered[3:]]


async def test_queued_messages_make_a_run(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """Queued messages make a run, and a lost answer to its insert loses and doubles nothing."""
    chat, store, sockets = make()
    await befriend(chat, pair)
    before = len(store.tried)
    store.faults_after = [None, StorageUnavailable("mongodb", "lost")]
    sent = await asyncio.gather(*(chat.send(*pair[:: 1 - 2 * (number % 2)], f"{number}") for number in range(40)))
    assert [each.seq for each in sent] == list(range(4, 44))
    assert [m.content for m in (await stored(messages, pair))[3:]] == [f"{number}" for number in range(40)]
    assert [m.content for m in sockets.delivered[3:]] == [f"{number}" for number in range(40)]
    assert len(store.tried) - before > 40  # the second run was tried twice, whole


@pytest.mark.parametrize(("others", "longest"), [(0, 8), (40, 10), (1000, 32)])
async def test_how_long_a_run_is(
    others: int, longest: int, make: Make, befriend: Friends, pair: tuple[int, int]
) -> None:
    """Runs are longer if more conversations have pending messages."""
    chat, store, _ = make()
    await befriend(chat, pair)
    chat.pipeline._running += others  # noqa: SLF001  # as many real ones would take minutes
    assert [s.seq for s in await asyncio.gather(*(chat.send(*pair, "hi") for _ in range(100)))] == list(range(4, 104))
    assert store.longest == longest


async def test_a_resend_in_a_run(make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]) -> None:
    """A resend gets its earlier seq, and the messages after it get the next seqs."""
    chat, _, sockets = make()
    await befriend(chat, pair)
    await chat.send(*pair, "once", message_id="once")
    names = ["a", "once", "b", "once", "c"]
    sent = await asyncio.gather(*(chat.send(*pair, name, message_id=name) for name in names))
    assert [(each.seq, each.dup) for each in sent] == [(5, False), (4, True), (6, False), (4, True), (7, False)]
    assert [m.content for m in sockets.delivered[3:]] == ["once", "a", "b", "c"]


async def test_an_id_that_another_process_used_for_another_content(
    make: Make, befriend: Friends, pair: tuple[int, int]
) -> None:
    """The existing message is delivered before the messages that follow in the run."""
    first, _, _ = make()
    await befriend(first, pair)
    second, _, sockets = make()
    second.pair_opened(*pair)
    await second.send(*pair, "known")
    await first.send(*pair, "theirs", message_id="k")
    answers = await asyncio.gather(second.send(*pair, "other", message_id="k"), second.send(*pair, "mine"))
    assert isinstance(answers[0], InvalidFrame)
    assert isinstance(answers[1], Stored)
    assert [m.content for m in sockets.delivered] == ["known", "theirs", "mine"]


async def test_a_conversation_that_closes_before_its_run_leaves(
    make: Make, pair: tuple[int, int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is checked for each message: it refuses one of the two senders and not the other."""
    chat, _, _ = make()
    chat.pair_opened(*pair)
    for _ in range(LIMIT):
        await chat.send(*pair, "hello?")
    (conversation,) = chat.conversations
    await until(lambda: conversation.run is None)
    conversation.keep_open(clock() + 1)  # the peer's messages are long ago
    conversation.doubt_peers()
    require_open = chat.blocks.require_open

    async def slowly(conversation: Conversation) -> None:
        clock.offset += 2
        await require_open(conversation)

    monkeypatch.setattr(chat.blocks, "require_open", slowly)
    refused, answer = await asyncio.gather(chat.send(*pair, "hello??"), chat.send(*pair[::-1], "hello"))
    assert isinstance(refused, LimitReached)
    assert isinstance(answer, Stored)


async def test_time_never_goes_back(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int], clock: Clock
) -> None:
    """After the clock was set back an hour, the order by time is still the order by seq."""
    chat, _, _ = make()
    await befriend(chat, pair)
    clock.offset = -3600
    sent = await chat.send(*pair, "earlier, by the clock")
    times = [m.time for m in await stored(messages, pair)]
    assert sorted(times) == times
    assert isinstance(sent, Stored)
    assert sent.time == times[-2]


async def test_no_answer_in_time(make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]) -> None:
    """The answers are 40001. The message in the insert is stored and delivered all the same; queued ones are not."""
    chat, store, sockets = make()
    await befriend(chat, pair)
    store.gate.clear()
    chat.answer_timeout = 1.0
    first = chat.send(*pair, "on its way")
    await next_turn()
    second = chat.send(*pair, "still waiting")
    assert isinstance(await first, StorageUnavailable)
    assert isinstance(await second, StorageUnavailable)
    store.gate.set()
    await until(lambda: len(sockets.delivered) == 4)
    await chat.pipeline.drain(PATIENCE)
    assert [m.content for m in await stored(messages, pair)] == ["hello"] * 3 + ["on its way"]


async def test_no_answer_in_time_in_a_run(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """A message that was never sent is not stored after its deadline, though others of its run are."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.faults_before = [None, *(NotSent("mongodb", "away") for _ in range(3))]
    store.gate.clear()
    first = chat.send(*pair, "first")
    await until(lambda: len(store.faults_before) == 3)
    chat.answer_timeout = 0.01
    late = chat.send(*pair, "late")
    chat.answer_timeout = PATIENCE
    others = [chat.send(*pair, name) for name in "ab"]
    store.gate.set()
    assert isinstance(await late, StorageUnavailable)
    assert all(isinstance(sent, Stored) for sent in await asyncio.gather(first, *others))
    assert [m.content for m in (await stored(messages, pair))[3:]] == ["first", "a", "b"]


async def test_what_was_never_sent_is_given_back(
    make: Make, messages: MongoMessages, counters: RedisCounters, pair: tuple[int, int]
) -> None:
    """Messages that could not be stored do not count against the limit."""
    chat, store, _ = make(answer_timeout=0.2)
    store.faults_before = [NotSent("mongodb", "away")] * 1000
    assert isinstance(await chat.send(*pair, "nobody there"), StorageUnavailable)
    await chat.pipeline.drain(PATIENCE)
    chat.answer_timeout = PATIENCE
    store.faults_before = []
    chat.answer_timeout = 5.0
    for _ in range(3):
        assert isinstance(await chat.send(*pair, "now"), Stored)
    assert isinstance(await chat.send(*pair, "too many"), LimitReached)
    assert [m.content for m in await stored(messages, pair)] == ["now"] * 3


async def test_what_is_refused_after_a_conflict_is_given_back(
    make: Make, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule has counted a message, and its seq was taken. If a block then refuses it, it does not count."""
    chat, store, _ = make()
    other, _, _ = make()
    store.gate.clear()
    refused = chat.send(*pair, "refused")
    await until(lambda: store.tried)
    assert isinstance(await other.send(*pair, "first"), Stored)
    (conversation,) = chat.conversations
    conversation.doubt_peers()

    async def blocked(conversation: Conversation) -> None:
        raise Blocked

    monkeypatch.setattr(chat.blocks, "require_open", blocked)
    store.gate.set()
    assert isinstance(await refused, Blocked)
    monkeypatch.undo()
    for _ in range(LIMIT - 1):
        assert isinstance(await other.send(*pair, "again"), Stored)
    assert isinstance(await other.send(*pair, "too many"), LimitReached)


async def test_mongodb_knows_better_than_counters_that_were_lost(
    make: Make, messages: MongoMessages, redis: Redis, pair: tuple[int, int]
) -> None:
    """Redis loses its counts, and rebuilds them before the messages are stored: the rule still refuses."""
    chat, store, _ = make()
    for number in range(3):
        assert isinstance(await chat.send(*pair, str(number)), Stored)
    await redis.flushdb()

    async def nothing_yet(*args: object) -> int:
        return 0

    store.count = nothing_yet
    assert isinstance(await chat.send(*pair, "a fourth"), LimitReached)
    assert len(await stored(messages, pair)) == 3


async def test_a_bug_answers_and_does_not_stop_the_queue(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """The message concerned gets 500, and the next one is stored."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.faults_before = [RuntimeError("a bug")]
    first = chat.send(*pair, "one")
    await next_turn()
    second = chat.send(*pair, "two")
    assert ((await first).code, isinstance(await second, Stored)) == (500, True)


async def test_both_have_written(
    make: Make, messages: MongoMessages, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That both have written is recorded before the answer to the message that makes it so, or with the next one."""
    chat, _, _ = make()
    introduce, failures = messages.directory.introduce, [StorageUnavailable("mongodb", "away")]

    async def failing(conversation: str) -> None:
        if failures:
            raise failures.pop()
        await introduce(conversation)

    monkeypatch.setattr(messages.directory, "introduce", failing)
    name = conversation_of(*pair)
    assert isinstance(await chat.send(*pair, "hi"), Stored)
    assert isinstance(await chat.send(*pair[::-1], "hello"), Stored)
    assert not await messages.directory.mutual(name)
    assert isinstance(await chat.send(*pair, "how are you?"), Stored)
    assert await messages.directory.mutual(name)


async def test_a_repeated_message_overtakes_nothing(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """Before the answer to a resend names its `seq`, the sockets have got all messages before it."""
    here, _, sockets = make(pair[1])
    elsewhere, _, _ = make()
    await befriend(elsewhere, pair)
    here.pair_opened(*pair)
    await here.follow(pair[0], [pair[1]])
    for name in ("a", "b", "c"):
        assert isinstance(await elsewhere.send(*pair, name, message_id=name), Stored)
    sent = await here.send(*pair, "c", message_id="c")
    assert isinstance(sent, Stored)
    assert (sent.seq, sent.dup) == (6, True)
    assert [m.content for m in sockets.delivered] == ["a", "b", "c"]
    sent = await here.send(*pair, "a", message_id="a")
    assert isinstance(sent, Stored)
    assert (sent.seq, sent.dup) == (4, True)
    assert [m.content for m in sockets.delivered] == ["a", "b", "c"]
    here.pair_closed(*pair)


async def test_a_run_that_needs_only_the_insert_starts_at_once(
    make: Make, befriend: Friends, pair: tuple[int, int]
) -> None:
    """If the conversation is known, the insert starts in the next turn of the event loop, without a task."""
    chat, store, _ = make()
    await befriend(chat, pair)
    active = chat.conversations.get(conversation_of(*pair)) is not None
    sent = chat.send(*pair, "hi")
    await next_turn()
    assert (store.tried[-1].content == "hi") == active
    assert (await sent).seq == 4


async def test_messages_that_come_together_are_stored_together(make: Make, people: Callable[[int], list[int]]) -> None:
    """Messages that are sent in one turn of the loop are one run of their conversation, in their order."""
    chat, store, _ = make()
    one, other, third, fourth = people(4)
    pairs = (one, other), (third, fourth)
    for pair in pairs:
        chat.pair_opened(*pair)
        await make_friends(chat, pair)
    store.longest, before = 0, len(store.tried)
    answers = await asyncio.gather(*(chat.send(*pair, name) for name in "abc" for pair in pairs))
    assert [answer.seq for answer in answers] == [4, 4, 5, 5, 6, 6]
    assert [message.content for message in store.tried[before:]] == list("abcabc")
    assert store.longest == 3


async def test_draining_begins_what_has_just_come(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """A message that came in this turn of the loop is stored and answered before draining ends."""
    chat, _, _ = make()
    await befriend(chat, pair)
    sent = chat.send(*pair, "hi")
    await chat.pipeline.drain(PATIENCE)
    assert sent.done()
    assert (await sent).seq == 4


async def test_closing_leaves_what_has_just_come(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """Nothing begins after `close`, not even with a message that came in the same turn of the loop."""
    chat, _, _ = make()
    await befriend(chat, pair)
    sent = chat.send(*pair, "hi")
    await chat.pipeline.close()
    await next_turn()
    assert not sent.done()
    assert len(await stored(messages, pair)) == 3


async def test_a_task_lasts_no_longer_than_it_is_needed(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """The next run goes without a task again, also if messages are always queued."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.faults_before = [StorageUnavailable("mongodb", "lost")]  # a task retries the first
    answers = [chat.send(*pair, "0"), chat.send(*pair, "1")]
    await answers[0]
    store.gate.clear()
    answers.append(chat.send(*pair, "2"))
    await until(lambda: len(store.tried) > 5)
    assert [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Pipeline._guard"] == []
    store.gate.set()
    assert [sent.seq for sent in await asyncio.gather(*answers)] == [4, 5, 6]


async def test_a_bug_in_delivering_does_not_stop_the_queue(
    make: Make, befriend: Friends, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message concerned gets 500, and the next one is stored."""
    chat, _, sockets = make()
    await befriend(chat, pair)
    deliver, bugs = sockets.deliver, [RuntimeError("a bug")]

    def delivered(*arguments: Any, **options: Any) -> Reached:
        if bugs:
            raise bugs.pop()
        return deliver(*arguments, **options)

    monkeypatch.setattr(sockets, "deliver", delivered)
    assert (await chat.send(*pair, "one")).code == 500
    assert isinstance(await chat.send(*pair, "two"), Stored)


async def test_another_process_appears_during_an_insert(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """The message is published to the other process."""
    cluster = Listening()
    chat, store, _ = make(cluster=cluster)
    await befriend(chat, pair)
    store.gate.clear()
    sent = chat.send(*pair, "hi")
    await until(lambda: store.tried[-1].content == "hi")
    cluster.single_process = False
    store.gate.set()
    assert (await sent).online
    assert [message.content for message in cluster.reached] == ["hi"]


async def test_draining_waits_for_queued_messages(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """Draining waits for queued messages too."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.gate.clear()
    answers = [chat.send(*pair, "hi") for _ in range(30)]
    draining = asyncio.ensure_future(chat.pipeline.drain(PATIENCE))
    await until(lambda: len(store.tried) > 3)
    store.gate.set()
    await draining
    assert all(answer.done() and isinstance(answer.result(), Stored) for answer in answers)


async def test_draining_abandons_what_takes_too_long(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """When draining takes too long, what is being inserted has no answer, and no queued message is sent after it."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.gate.clear()
    answers = [chat.send(*pair, "hi") for _ in range(30)]
    await until(lambda: len(store.tried) > 3)
    tried = len(store.tried)
    await chat.pipeline.drain(0)
    store.gate.set()
    await chat.pipeline.drain(PATIENCE)
    assert len(store.tried) == tried
    assert not any(answer.done() for answer in answers)


async def test_what_stands_before_is_delivered_first(make: Make, pair: tuple[int, int]) -> None:
    """Earlier messages are delivered first, also if nothing else would delay the insert."""
    chat, _, sockets = make()
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    conversation = chat.conversations.get(conversation_of(*pair))
    conversation.delivered_seq -= 1  # as if the head had been read with another process's message
    del sockets.delivered[-1]
    await chat.send(*pair, "hi")
    assert [message.content for message in sockets.delivered] == ["hello"] * 3 + ["hi"]


async def test_a_run_is_no_longer_than_the_reserved_seqs(
    make: Make, befriend: Friends, messages: MongoMessages, pair: tuple[int, int]
) -> None:
    """Seqs are reserved for the messages that do not fit, before these are inserted."""
    chat, _, _ = make()
    await befriend(chat, pair)
    answers = await asyncio.gather(*(chat.send(*pair, f"{number}") for number in range(1005)))
    assert [answer.seq for answer in answers] == list(range(4, 1009))
    assert (await messages.head(conversation_of(*pair))).reserved >= 1008


async def test_what_is_stored_while_the_state_is_read_is_delivered_first(
    make: Make, messages: MongoMessages, pair: tuple[int, int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets get another process's message first, also if it is stored after the head was read."""
    chat, _, sockets = make()
    chat.pair_opened(*pair)
    read_states = chat.loader.read_states
    await messages.reserve(conversation_of(*pair), 1)

    async def interrupted(conversation: Conversation) -> None:
        monkeypatch.undo()
        await messages.insert(Message(*pair, 1, int(clock() * 1000), "elsewhere", b"elsewhere......."))
        conversation.head = None  # it was read again, and forgotten
        await read_states(conversation)

    monkeypatch.setattr(chat.loader, "read_states", interrupted)
    sent = await chat.send(*pair, "mine")
    assert isinstance(sent, Stored)
    assert sent.seq == 2
    assert [message.content for message in sockets.delivered] == ["elsewhere", "mine"]


class Announcements:
    """Records for each attempt to insert whether its messages were announced.

    With each lost attempt much time passes, so that the conversation is settled and the announcement has ended.
    """

    def __init__(self, chat: Chat, store: Faulty, mongo: Any, pair: tuple[int, int]) -> None:
        self.announced: list[bool] = []
        self.losses = 0
        self._chat = chat
        self._stored = mongo.conversations
        self._name = conversation_of(*pair)
        self._attempt = store.attempt
        store.attempt = self._record  # type: ignore[method-assign]

    @property
    def conversation(self) -> Conversation:
        conversation = self._chat.conversations.get(self._name)
        assert conversation is not None
        return conversation

    async def settle(self) -> None:
        await self._stored.update_one({"_id": self._name}, {"$set": {"active": False, "until": 0}})
        self.conversation.note_announced(0.0, 0)

    async def _record(self, run: tuple[Message, ...]) -> Conflict | None:
        pair = await self._stored.find_one({"_id": self._name})
        self.announced.append(pair["active"] and pair["until"] >= run[-1].time)
        if self.losses:
            self.losses -= 1
            await self.settle()
            raise StorageUnavailable("mongodb", "lost")
        return await self._attempt(run)


async def test_lists_allow_for_a_message_before_it_is_stored(make: Make, mongo: Any, pair: tuple[int, int]) -> None:
    """The first message of a conversation is announced, and one after the last announcement has ended."""
    chat, store, _ = make()
    chat.pair_opened(*pair)
    announcements = Announcements(chat, store, mongo, pair)
    assert isinstance(await chat.send(*pair, "a"), Stored)
    assert isinstance(await chat.send(*pair, "b"), Stored)
    await announcements.settle()
    assert isinstance(await chat.send(*pair, "c"), Stored)
    assert announcements.announced == [True] * 3


async def test_a_message_is_announced_again_before_it_is_tried_again(
    make: Make, mongo: Any, pair: tuple[int, int]
) -> None:
    """A message is announced again if its attempts take longer than an announcement lasts."""
    chat, store, _ = make()
    chat.pair_opened(*pair)
    announcements = Announcements(chat, store, mongo, pair)
    announcements.losses = 2
    assert isinstance(await chat.send(*pair, "a"), Stored)
    assert announcements.announced == [True] * 3


async def test_what_cannot_be_announced_is_not_stored(
    make: Make, messages: MongoMessages, mongo: Any, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that cannot be announced is not tried, and its sender gets the error."""
    chat, store, _ = make()
    chat.pair_opened(*pair)
    announcements = Announcements(chat, store, mongo, pair)
    assert isinstance(await chat.send(*pair, "a"), Stored)
    await announcements.settle()

    async def unavailable(conversation: str, until: int) -> None:
        raise StorageUnavailable("mongodb", "away")

    monkeypatch.setattr(store, "announce", unavailable, raising=False)
    refused = await chat.send(*pair, "b")
    assert isinstance(refused, StorageUnavailable)
    assert "away" in str(refused)
    assert [message.content for message in await stored(messages, pair)] == ["a"]


async def test_a_run_starts_at_once_only_while_it_is_announced(make: Make, pair: tuple[int, int], clock: Clock) -> None:
    """The insert starts without a task only while the last announcement lasts, by time passed and by the clock."""
    chat, store, _ = make()
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    conversation = chat.conversations.get(conversation_of(*pair))

    async def starts_at_once() -> bool:
        before = len(store.tried)
        answer = chat.send(*pair, "hi")
        await next_turn()
        at_once = len(store.tried) > before
        assert isinstance(await answer, Stored)
        return at_once

    assert await starts_at_once()
    conversation.note_announced(asyncio.get_running_loop().time(), conversation.announced_to)
    assert not await starts_at_once()
    assert await starts_at_once()
    conversation.note_announced(conversation.announced_until, int(clock() * 1000) - 1)
    assert not await starts_at_once()


async def test_a_run_starts_at_once_beside_other_processes(make: Make, pair: tuple[int, int]) -> None:
    """The insert needs no task if there are other processes, and the next run does not wait for their answer."""
    cluster = Listening()
    cluster.single_process = False
    chat, store, _ = make(cluster=cluster)
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    cluster.gate = asyncio.Event()
    before = len(store.tried)
    first = chat.send(*pair, "one")
    await next_turn()
    assert len(store.tried) == before + 1
    await until(lambda: len(cluster.reached) == before + 1)
    assert not first.done()
    second = chat.send(*pair, "two")
    await next_turn()
    assert len(store.tried) == before + 2
    draining = asyncio.ensure_future(chat.pipeline.drain(PATIENCE))
    await until(lambda: len(cluster.reached) == before + 2)
    assert not draining.done()
    cluster.gate.set()
    assert [(answer.seq, answer.online) for answer in await asyncio.gather(first, second)] == [(4, True), (5, True)]
    await draining


def fail_to_deliver(sockets: Recorder, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sockets raise for a message with this content."""
    deliver = sockets.deliver

    def delivered(message: Message, *arguments: Any, **options: Any) -> Reached:
        if message.content == content:
            raise RuntimeError("a bug")
        return deliver(message, *arguments, **options)

    monkeypatch.setattr(sockets, "deliver", delivered)


async def test_a_bug_in_delivering_stops_nothing_of_its_run(
    make: Make, messages: MongoMessages, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message concerned gets 500. Those after it in the same run are delivered and acknowledged."""
    chat, _, sockets = make()
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    fail_to_deliver(sockets, "b", monkeypatch)
    answers = await asyncio.gather(*(chat.send(*pair, name) for name in "abcd"))
    assert [answer.code for answer in answers] == [50005, 500, 50005, 50005]
    assert [message.content for message in sockets.delivered[3:]] == ["a", "c", "d"]
    assert [message.content for message in (await stored(messages, pair))[3:]] == list("abcd")


async def test_a_bug_in_delivering_anothers_message_stops_nothing(
    make: Make, pair: tuple[int, int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message of another process waits for an own insert. If its delivery fails, the queue goes on."""
    chat, store, sockets = make()
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    fail_to_deliver(sockets, "theirs", monkeypatch)
    store.gate.clear()
    mine = chat.send(*pair, "mine")
    conversation = chat.conversations.get(conversation_of(*pair))
    theirs = Message(*pair[::-1], 5, int(clock() * 1000), "theirs", b"theirs..........")
    chat.delivery.on_remote_message(conversation, theirs)
    store.gate.set()
    assert isinstance(await mine, Stored)
    assert isinstance(await chat.send(*pair, "next"), Stored)


async def test_a_bug_in_taking_an_answer_stops_nothing(make: Make, pair: tuple[int, int]) -> None:
    """A sender whose answer cannot be given does not keep the others from theirs, also at a deadline."""
    chat, store, _ = make()
    chat.pair_opened(*pair)
    await make_friends(chat, pair)

    def broken(pending: PendingMessage) -> None:
        raise RuntimeError("a bug")

    soon = asyncio.get_running_loop().time() + PATIENCE
    chat.pipeline.send(*pair, "broken", soon, broken)
    assert isinstance(await chat.send(*pair, "sound"), Stored)
    store.gate.clear()
    chat.pipeline.send(*pair, "broken", asyncio.get_running_loop().time(), broken)
    chat.answer_timeout = 0.0
    assert isinstance(await chat.send(*pair, "late"), StorageUnavailable)
    store.gate.set()


async def test_what_expires_while_it_is_prepared_is_not_stored(
    make: Make, messages: MongoMessages, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that has its answer before the first insert is not inserted, and not counted."""
    chat, store, _ = make()
    gate, head = asyncio.Event(), store.store.head

    async def slow(conversation: str) -> Any:
        await gate.wait()
        return await head(conversation)

    monkeypatch.setattr(store, "head", slow, raising=False)
    chat.answer_timeout = 0.01
    assert isinstance(await chat.send(*pair, "late"), StorageUnavailable)
    gate.set()
    await chat.pipeline.drain(PATIENCE)
    chat.answer_timeout = PATIENCE
    for _ in range(LIMIT):
        assert isinstance(await chat.send(*pair, "now"), Stored)
    assert [message.content for message in await stored(messages, pair)] == ["now"] * LIMIT


async def test_a_bug_before_a_run_begins_stops_nothing(make: Make, clock: Clock, pair: tuple[int, int]) -> None:
    """Messages that no run can take are answered with 500, and later ones are stored."""
    broken = False

    def now() -> float:
        if broken:
            raise RuntimeError("a bug")
        return clock()

    chat, _, _ = make(now=now)
    chat.pair_opened(*pair)
    await make_friends(chat, pair)
    broken = True
    assert [answer.code for answer in await asyncio.gather(*(chat.send(*pair, name) for name in "abc"))] == [500] * 3
    broken = False
    assert isinstance(await chat.send(*pair, "d"), Stored)


async def test_a_closed_pipeline_takes_nothing(make: Make, befriend: Friends, pair: tuple[int, int]) -> None:
    """After closing, messages are refused at once, and what was in progress has ended."""
    chat, store, _ = make()
    await befriend(chat, pair)
    store.gate.clear()
    abandoned = [chat.send(*pair, "hi") for _ in range(30)]
    await until(lambda: len(store.tried) > 3)
    await chat.close()
    tried = len(store.tried)
    assert isinstance(await chat.send(*pair, "too late"), Overloaded)
    store.gate.set()
    assert len(store.tried) == tried
    assert not any(answer.done() for answer in abandoned)
    assert all(conversation.run is None for conversation in chat.conversations)
