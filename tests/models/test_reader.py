"""Reading: pages that skip nothing and repeat nothing, and what they cost in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from models.blocks import Blocks
from models.conversations import Conversations
from models.delivery import Delivery
from models.errors import EngineUnavailable, InvalidFrame
from models.reader import PAGE_BYTES, Page, Reader
from models.records import Marks, Message, conversation_of, key_of
from storage.messages import MongoMessages
from tests.patience import PATIENCE

Pair = tuple[int, int]
Store = Callable[..., "asyncio.Future[None]"]

START = 4_000_000_000_000  # milliseconds; beyond any retention


class NoSockets:
    """A process without sockets."""

    alone = True

    def tell(self, event: object) -> None:
        pass


class OneChat:
    """What a reader needs of a chat."""

    def __init__(self, messages: MongoMessages) -> None:
        self.blocks = Blocks(messages.blocks, NoSockets(), NoSockets(), lambda *_: None)
        self.conversations = Conversations(lambda one, other: None)
        self.delivery = Delivery(
            self.conversations, messages, NoSockets(), NoSockets(), None, self.blocks, lambda *_: None
        )

    async def follow(self, user: int, peer: int) -> None:
        pass


@pytest.fixture
def reader(messages: MongoMessages) -> Reader:
    """A reader of the stored messages."""
    return Reader(OneChat(messages), messages, messages.directory, answer_timeout=PATIENCE)


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


@pytest.fixture
def store(messages: MongoMessages, pair: Pair) -> Callable[..., object]:
    """Stores messages of the first user to the second: their times in milliseconds after START, and contents."""

    async def store_all(times: list[int], content: Callable[[int], str] = str) -> None:
        await messages.reserve(conversation_of(*pair), len(times))
        for seq, time in enumerate(times, 1):
            message = Message(*pair, seq, START + time, content(seq), key_of(pair[0], str(seq)))
            assert await messages.insert(message) is None

    return store_all


def seqs(page: Page | list[Message]) -> list[int]:
    return [m.seq for m in (page.messages if isinstance(page, Page) else page)]


async def test_pages_by_time(reader: Reader, store: Store, pair: Pair) -> None:
    """Dialect 1: the ten newest before a time, oldest first, also when many share a millisecond."""
    await store([0] * 25 + [1] * 5)

    async def before(time: int | None) -> list[int]:
        return seqs(await reader.history(*pair, time, soon()))

    assert await before(None) == list(range(21, 31))
    assert await before(START + 1) == list(range(16, 26))
    assert await before(START) == []
    assert await before(START + 10**6) == list(range(21, 31))


async def test_pages_by_seq(reader: Reader, store: Store, pair: Pair) -> None:
    """Dialect 2: a hundred messages of one millisecond in pages of seven, in both directions, each exactly once."""
    await store([0] * 100)
    backward: list[int] = []
    page = await reader.before(*pair, None, 7, soon())
    while True:
        backward = seqs(page) + backward
        if page.complete:
            break
        page = await reader.before(*pair, backward[0], 7, soon())
    forward: list[int] = []
    while True:
        page = await reader.after(*pair, forward[-1] if forward else 0, 7, soon())
        forward += seqs(page)
        if page.complete:
            break
    assert backward == forward == list(range(1, 101))


@pytest.mark.parametrize(("count", "complete"), [(6, True), (7, True), (8, False)])
async def test_the_last_page_says_so(reader: Reader, store: Store, pair: Pair, count: int, complete: bool) -> None:
    """No empty page at the end, in either direction."""
    await store([0] * count)
    assert (await reader.before(*pair, None, 7, soon())).complete == complete
    assert (await reader.after(*pair, 0, 7, soon())).complete == complete


async def test_a_page_has_a_size_in_bytes(reader: Reader, store: Store, pair: Pair) -> None:
    """Long messages make short pages; the end that was asked for stays in; one alone may be longer."""
    half = PAGE_BYTES // 2
    await store([0] * 6, lambda seq: "é" * (half // 2 - 1) if seq != 6 else "x" * (PAGE_BYTES + 1))
    page = await reader.after(*pair, 0, 100, soon())
    assert (seqs(page), page.complete) == ([1, 2], False)
    page = await reader.before(*pair, 6, 100, soon())
    assert (seqs(page), page.complete) == ([4, 5], False)
    page = await reader.before(*pair, None, 100, soon())
    assert (seqs(page), page.complete) == ([6], False)


async def test_what_does_not_exist_yet(reader: Reader, store: Store, pair: Pair) -> None:
    """Neither resumed from nor marked."""
    await store([0] * 3)
    assert seqs(await reader.resume(*pair, 3, 10, soon())) == []
    assert await reader.mark(*pair[::-1], Marks(received=3), soon()) == Marks(3, 0)
    with pytest.raises(InvalidFrame, match="seq: 4 does not exist yet"):
        await reader.resume(*pair, 4, 10, soon())
    for wanted in (Marks(received=4), Marks(read=4)):
        with pytest.raises(InvalidFrame, match="does not exist yet"):
            await reader.mark(*pair[::-1], wanted, soon())


async def test_unread_are_the_peers(reader: Reader, store: Store, pair: Pair) -> None:
    """Own messages never count; what was read does not either."""
    await store([0] * 5)
    assert seqs(await reader.first_unread(*pair, soon())) == []
    assert seqs(await reader.first_unread(*pair[::-1], soon())) == [1, 2, 3, 4, 5]
    await reader.mark(*pair[::-1], Marks(read=2), soon())
    assert seqs(await reader.first_unread(*pair[::-1], soon())) == [3, 4, 5]


async def test_a_deadline_that_has_passed(reader: Reader, pair: Pair) -> None:
    """Is an engine that was too slow."""
    for ask in (
        reader.history(*pair, None, 0),
        reader.after(*pair, 0, 7, 0),
        reader.mark(*pair, Marks(), 0),
        reader.conversations(pair[0], None, 7, 0),
    ):
        with pytest.raises(EngineUnavailable, match="no answer in time"):
            await ask


async def test_while_others_write(reader: Reader, store: Store, messages: MongoMessages, pair: Pair) -> None:
    """Pages stay where they are when messages come behind them."""
    await store([0] * 20)
    await messages.reserve(conversation_of(*pair), 60)
    seen: list[int] = []
    page = await reader.before(*pair, None, 7, soon())
    for extra in range(21, 60):
        message = Message(*pair, extra, START, "", key_of(pair[0], str(extra)))
        writing = asyncio.ensure_future(messages.insert(message))
        if not seen or seen[0] > 1:
            seen = seqs(page) + seen
            page = await reader.before(*pair, seen[0], 7, soon())
        await writing
    assert seen == list(range(1, 21))
