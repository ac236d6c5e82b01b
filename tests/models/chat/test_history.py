"""Tests of history: pages without gaps or repeats, and their size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack

import pytest

from models.chat.acquaintances import Acquaintances
from models.chat.blocks import Blocks
from models.chat.conversations import Conversations
from models.chat.delivery import Delivery
from models.chat.history import LONG, PAGE_BYTES, History, Listed, Page, Resumed
from models.chat.presence import Presence
from models.errors import InvalidFrame, StorageUnavailable
from models.records import Cursor, Message, ReadPositions, conversation_of, key_of
from storage.embedded.supervisor import Addresses
from storage.mongo.messages import MongoMessages
from tests.support.chats import NoOtherProcess, Recorder, loader_of
from tests.support.database import mongo_reads
from tests.support.patience import PATIENCE

Pair = tuple[int, int]
Store = Callable[..., "asyncio.Future[None]"]

START = 4_000_000_000_000  # milliseconds; beyond any retention


class OneChat:
    """What History needs of a chat."""

    def __init__(self, messages: MongoMessages) -> None:
        self._messages = messages
        sockets, cluster = Recorder(), NoOtherProcess()
        self.blocks = Blocks(messages.blocks, sockets, cluster, lambda *_: None)
        self.conversations = Conversations(lambda one, other: None)
        loader = loader_of(self.conversations, messages, lambda: 0.0)
        self.delivery = Delivery(self.conversations, messages, sockets, cluster, loader, self.blocks, lambda *_: None)
        self.presence = Presence(sockets, cluster, Acquaintances(messages.directory), self.blocks, 0.2)

    async def watches(self, user: int) -> None:
        pass

    async def follow(self, user: int, peers: Collection[int]) -> dict[int, int]:
        names = {conversation_of(user, peer): peer for peer in peers}
        return {names[name]: seq for name, seq in (await self._messages.newest_of(tuple(names))).items()}


@pytest.fixture
def history(messages: MongoMessages) -> History:
    """A history of the stored messages."""
    return History(OneChat(messages), messages, messages.directory, answer_timeout=PATIENCE)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


@pytest.fixture
def store(messages: MongoMessages, pair: Pair) -> Callable[..., object]:
    """Return a function that stores messages of the first user, with times in milliseconds after START and contents."""

    async def store_all(times: list[int], content: Callable[[int], str] = str) -> None:
        await messages.reserve(conversation_of(*pair), len(times))
        for seq, time in enumerate(times, 1):
            message = Message(*pair, seq, START + time, content(seq), key_of(pair[0], str(seq)))
            assert await messages.insert(message) is None

    return store_all


def seqs(page: Page | list[Message]) -> list[int]:
    return [m.seq for m in (page.messages if isinstance(page, Page) else page)]


async def test_pages_by_time(history: History, store: Store, pair: Pair) -> None:
    """Protocol v1 gets the ten newest before a time, oldest first, also if many share a millisecond."""
    await store([0] * 25 + [1] * 5)

    async def before(time: int | None) -> list[int]:
        return seqs(await history.before_time(*pair, time, soon()))

    assert await before(None) == list(range(21, 31))
    assert await before(START + 1) == list(range(16, 26))
    assert await before(START) == []
    assert await before(START + 10**6) == list(range(21, 31))


async def test_pages_by_seq(history: History, store: Store, pair: Pair) -> None:
    """In protocol v2, pages of seven have a hundred messages of one millisecond exactly once, in both directions."""
    await store([0] * 100)
    backward: list[int] = []
    page = await history.before(*pair, None, 7, soon())
    while True:
        backward = seqs(page) + backward
        if page.complete:
            break
        page = await history.before(*pair, backward[0], 7, soon())
    forward: list[int] = []
    while True:
        page = await history.after(*pair, forward[-1] if forward else 0, 7, soon())
        forward += seqs(page)
        if page.complete:
            break
    assert backward == forward == list(range(1, 101))


@pytest.mark.parametrize(("count", "complete"), [(6, True), (7, True), (8, False)])
async def test_the_last_page_says_so(history: History, store: Store, pair: Pair, count: int, complete: bool) -> None:
    """The last page is marked complete, so there is no empty page after it, in either direction."""
    await store([0] * count)
    assert (await history.before(*pair, None, 7, soon())).complete == complete
    assert (await history.after(*pair, 0, 7, soon())).complete == complete


async def test_a_page_has_a_size_in_bytes(history: History, store: Store, pair: Pair) -> None:
    """Long messages make short pages, which contain the requested end; a single message may be longer."""
    half = PAGE_BYTES // 2
    await store([0] * 6, lambda seq: "é" * (half // 2 - 1) if seq != 6 else "x" * (PAGE_BYTES + 1))
    page = await history.after(*pair, 0, 100, soon())
    assert (seqs(page), page.complete) == ([1, 2], False)
    page = await history.before(*pair, 6, 100, soon())
    assert (seqs(page), page.complete) == ([4, 5], False)
    page = await history.before(*pair, None, 100, soon())
    assert (seqs(page), page.complete) == ([6], False)


async def test_what_does_not_exist_yet(history: History, store: Store, pair: Pair) -> None:
    """A seq that does not exist yet can be neither resumed from nor marked."""
    await store([0] * 3)
    assert seqs((await history.resume(pair[0], {pair[1]: 3}, 10, soon())).messages) == []
    assert await history.mark(*pair[::-1], ReadPositions(received=3), soon()) == ReadPositions(3, 0)
    with pytest.raises(InvalidFrame, match="seq: 4 does not exist yet"):
        await history.resume(pair[0], {pair[1]: 4}, 10, soon())
    for wanted in (ReadPositions(received=4), ReadPositions(read=4)):
        with pytest.raises(InvalidFrame, match="does not exist yet"):
            await history.mark(*pair[::-1], wanted, soon())


async def test_unread_are_the_peers(history: History, store: Store, pair: Pair) -> None:
    """Neither own messages nor read ones are unread."""
    await store([0] * 5)
    assert seqs(await history.first_unread(*pair, soon())) == []
    assert seqs(await history.first_unread(*pair[::-1], soon())) == [1, 2, 3, 4, 5]
    await history.mark(*pair[::-1], ReadPositions(read=2), soon())
    assert seqs(await history.first_unread(*pair[::-1], soon())) == [3, 4, 5]


async def test_a_deadline_that_has_passed(history: History, pair: Pair, addresses: Addresses) -> None:
    """A passed deadline counts as a slow database, and nothing is read."""
    before = mongo_reads(addresses.mongo)
    for ask in (
        history.before_time(*pair, None, 0),
        history.first_unread(*pair, 0),
        history.resume(pair[0], {pair[1]: 0}, 7, 0),
        history.after(*pair, 0, 7, 0),
        history.mark(*pair, ReadPositions(), 0),
        history.conversations(pair[0], None, 7, 0),
    ):
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            await ask
    assert mongo_reads(addresses.mongo) == before


async def test_a_turn_that_comes_too_late(history: History, pair: Pair, addresses: Addresses) -> None:
    """A request whose turn does not come before its deadline is answered then, and reads nothing."""
    async with AsyncExitStack() as stack:
        for user in range(LONG):
            await stack.enter_async_context(history.turns.long(-user))
        before = mongo_reads(addresses.mongo)
        late = asyncio.get_running_loop().time() + 0.01
        for ask in (history.conversations(pair[0], None, 7, late), history.resume(pair[0], {pair[1]: 0}, 7, late)):
            with pytest.raises(StorageUnavailable, match="no answer in time"):
                await ask
        assert mongo_reads(addresses.mongo) == before
    assert await history.conversations(pair[0], None, 7, soon()) == []


async def test_a_list_costs_few_calls(
    history: History, messages: MongoMessages, people: Callable[[int], list[int]], addresses: Addresses
) -> None:
    """The number of database calls does not depend on the conversations and unread messages in a list."""
    me, *peers = people(51)
    for peer in peers:
        name = conversation_of(me, peer)
        await messages.reserve(name, 2)
        await messages.insert(*(Message(peer, me, seq, START + seq, "x", key_of(peer, str(seq))) for seq in (1, 2)))
        if peer % 2:
            await messages.mark(name, me, ReadPositions(1, 1))
    calls = []
    for most in (1, 50):
        before = mongo_reads(addresses.mongo)
        listed = await history.conversations(me, None, most, soon())
        calls.append(mongo_reads(addresses.mongo) - before)
    assert [entry.unread for entry in listed] == [1 if entry.summary.peer % 2 else 2 for entry in listed]
    assert (len(listed), calls[0]) == (50, calls[1])
    assert calls[1] <= 7


class BusyChat(OneChat):
    """A chat in which the peer writes while a list is made."""

    def __init__(self, messages: MongoMessages, more: Message) -> None:
        super().__init__(messages)
        self._more = more

    async def watches(self, user: int) -> None:
        assert await self._messages.insert(self._more) is None


@pytest.mark.parametrize("read", [0, 1, 2])
async def test_a_list_counts_up_to_the_message_that_it_shows(
    messages: MongoMessages, store: Store, pair: Pair, read: int
) -> None:
    """A message that comes while the list is made is not counted: a client that gets it counts it itself."""
    await store([0] * 3)
    name = conversation_of(*pair)
    await messages.reserve(name, 1)
    if read:
        await messages.mark(name, pair[1], ReadPositions(read, read))
    more = Message(*pair, 4, START, "4", key_of(pair[0], "4"))
    history = History(BusyChat(messages, more), messages, messages.directory, answer_timeout=PATIENCE)
    (listed,) = await history.conversations(pair[1], None, 10, soon())
    assert (listed.summary.last.seq, listed.unread) == (3, 3 - read)


async def test_resuming_costs_few_calls(history: History, store: Store, pair: Pair, addresses: Addresses) -> None:
    """Peers without new messages are looked up together."""
    await store([0] * 3)
    before = mongo_reads(addresses.mongo)
    unknown = {10**9 + number: 0 for number in range(200)}
    found = await history.resume(pair[0], unknown | {pair[1]: 3}, 100, soon())
    assert found == Resumed([], [], unknown | {pair[1]: 3})
    assert mongo_reads(addresses.mongo) - before <= 4
    with pytest.raises(InvalidFrame, match="does not exist yet"):
        await history.resume(pair[0], unknown | {10**9: 1}, 100, soon())
    assert seqs((await history.resume(pair[0], unknown | {pair[1]: 1}, 100, soon())).messages) == [2, 3]


async def test_a_list_under_a_block_goes_by_what_is_shown(
    history: History, messages: MongoMessages, people: Callable[[int], list[int]]
) -> None:
    """A conversation is listed by its last message that is shown, so that pages miss none after it."""
    me, *peers = people(5)
    for position, peer in enumerate(peers):
        name = conversation_of(me, peer)
        await messages.reserve(name, 2)
        await messages.insert(Message(peer, me, 1, START - 10 * position, "shown", key_of(peer, "1")))
    blocked = peers[2]
    await messages.blocks.block(me, blocked)
    await messages.insert(Message(blocked, me, 2, START + 1000, "hidden", key_of(blocked, "2")))  # after the block
    listed: list[Listed] = []
    while page := await history.conversations(me, cursor(listed), 2, soon()):
        listed += page
    assert [entry.summary.peer for entry in listed] == peers
    assert [entry.blocked for entry in listed] == [False, False, True, False]
    assert {(entry.summary.last.content, entry.unread) for entry in listed} == {("shown", 1)}


def cursor(listed: list[Listed]) -> Cursor | None:
    """Return the cursor after these entries."""
    return Cursor(listed[-1].summary.last.time, listed[-1].summary.peer) if listed else None


async def test_while_others_write(history: History, store: Store, messages: MongoMessages, pair: Pair) -> None:
    """Pages do not shift when newer messages come."""
    await store([0] * 20)
    await messages.reserve(conversation_of(*pair), 60)
    seen: list[int] = []
    page = await history.before(*pair, None, 7, soon())
    for extra in range(21, 60):
        message = Message(*pair, extra, START, "", key_of(pair[0], str(extra)))
        writing = asyncio.ensure_future(messages.insert(message))
        if not seen or seen[0] > 1:
            seen = seqs(page) + seen
            page = await history.before(*pair, seen[0], 7, soon())
        await writing
    assert seen == list(range(1, 21))
