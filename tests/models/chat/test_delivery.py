"""Tests of delivery: sockets get messages ascending and without a gap, whatever is lost or out of order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from models.chat.blocks import Blocks
from models.chat.conversation import Conversation, ReadState, Run, SocketKind
from models.chat.conversations import Conversations
from models.chat.delivery import Delivery
from models.chat.ports import Reached
from models.records import Message, conversation_of
from tests.support.chats import ListedMessages, OtherProcess, loader_of
from tests.support.ports import UnusedBlockStore, UnusedSockets
from tests.support.sockets import until


class Given(UnusedSockets):
    """The sockets of a process, which record the seqs of the messages that they get."""

    def __init__(self) -> None:
        self.seqs: list[int] = []

    @override
    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        self.seqs.append(message.seq)
        return Reached(live=True, read=False)


class Process:
    """One process with a conversation and a socket, and the messages that the socket got."""

    def __init__(self) -> None:
        self.store, sockets, cluster = ListedMessages(), Given(), OtherProcess()
        self.given = sockets.seqs
        blocks = Blocks(UnusedBlockStore(), sockets, cluster, lambda user, peer: None)
        self.conversations = Conversations(lambda one, other: None)
        self.loader = loader_of(self.conversations, self.store, lambda: 0.0)
        self.delivery = Delivery(
            self.conversations, self.store, sockets, cluster, self.loader, blocks, lambda conversation, message: None
        )
        self.conversation = self.conversations.follow(1, 2, SocketKind.PAIR)
        self.conversation.read_states = {user: ReadState(0, None, 0) for user in (1, 2)}

    def close_socket(self) -> None:
        self.conversations.unfollow(1, 2, SocketKind.PAIR)

    def inserts(self, *documents: Message) -> None:
        """Begin a run that inserts these documents, or end it if there are none."""
        self.conversation.run = Run([]) if documents else None
        if self.conversation.run is not None:
            self.conversation.run.documents = documents

    def write(self) -> Message:
        seq = len(self.store.messages) + 1
        self.store.messages.append(Message(1, 2, seq, seq, str(seq), bytes([seq])))
        return self.store.messages[-1]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_lost_or_late(data: st.DataObject) -> None:
    """Events are lost, repeated and reordered, and reads fail: the last event that arrives brings all messages."""

    async def run() -> None:
        process = Process()
        process.conversation.delivered_seq = 0
        frames = [process.write() for _ in range(data.draw(st.integers(1, 12)))]
        coming = [*data.draw(st.lists(st.sampled_from(frames), max_size=20)), frames[-1]]
        process.store.failures = data.draw(st.integers(0, 2))
        for frame in coming:
            process.delivery.on_remote_message(process.conversation, frame)
            for _ in range(data.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            assert process.given == list(range(1, len(process.given) + 1))
        await until(lambda: process.given == list(range(1, len(frames) + 1)))
        await until(lambda: process.conversation.catch_up_task is None)

    asyncio.run(run())


async def test_nothing_overtakes_a_message_that_is_being_inserted() -> None:
    """Messages that arrive during an insert are kept back, and delivered right after it."""
    process = Process()
    process.conversation.delivered_seq = 0
    first, second = process.write(), process.write()
    process.inserts(first)
    process.delivery.on_remote_message(process.conversation, second)
    assert process.given == []
    process.delivery.deliver(process.conversation, first)
    process.inserts()
    process.delivery.drain_buffered(process.conversation)
    assert process.given == [1, 2]
    assert process.store.reads == 0


async def test_catching_up_leaves_out_what_is_being_inserted() -> None:
    """Catching up does not deliver a message that is being inserted; its sender would get a copy."""
    process = Process()
    process.conversation.delivered_seq = 0
    inserting = process.write()
    process.inserts(inserting)
    await process.delivery.catch_up(process.conversation)
    assert process.given == []
    assert process.conversation.needs_fetch
    process.delivery.deliver(process.conversation, inserting)
    process.inserts()
    process.write()
    process.delivery.drain_buffered(process.conversation)
    await until(lambda: process.given == [1, 2])


async def test_more_early_messages_than_are_kept() -> None:
    """Messages beyond the buffer's limit are read from the store."""
    process = Process()
    process.conversation.delivered_seq = 0
    messages = [process.write() for _ in range(200)]
    process.inserts(messages[0])
    for message in messages[1:]:
        process.delivery.on_remote_message(process.conversation, message)
    assert len(process.conversation.out_of_order) < 100
    process.delivery.deliver(process.conversation, messages[0])
    process.inserts()
    process.delivery.drain_buffered(process.conversation)
    await until(lambda: process.given == list(range(1, 201)))
    assert not process.conversation.out_of_order


async def test_a_conversation_that_begins_with_a_message_from_elsewhere() -> None:
    """Sockets do not get messages from before they opened."""
    process = Process()
    for _ in range(3):
        process.write()
    process.delivery.on_remote_message(process.conversation, process.write())
    assert process.given == [4]


async def test_state_is_kept_while_it_catches_up() -> None:
    """The state is kept while it catches up, and dropped afterwards."""
    process = Process()
    process.write()
    process.conversation.delivered_seq = 0
    process.delivery.schedule_catch_up(process.conversation)
    process.close_socket()
    assert process.conversations.get(conversation_of(1, 2)) is process.conversation
    await until(lambda: process.conversations.get(conversation_of(1, 2)) is None)
    assert isinstance(process.conversation, Conversation)


async def test_nothing_is_fetched_once_the_last_socket_has_closed() -> None:
    """A message is missing and the store is down: when the last socket closes, catching up ends."""
    process = Process()
    process.conversation.delivered_seq = 0
    process.write()
    process.store.failures = 10**9
    process.delivery.on_remote_message(process.conversation, process.write())
    await until(lambda: process.store.reads)
    process.close_socket()
    await until(lambda: process.conversation.catch_up_task is None)
    reads = process.store.reads
    await idle()
    assert process.store.reads == reads
    assert not len(process.conversations)


async def test_nothing_is_fetched_where_a_request_is_all_that_uses_the_state() -> None:
    """Without sockets nothing is caught up, and the next socket begins at the store's head."""
    process = Process()
    process.conversation.delivered_seq = 0
    with process.conversations.lease(1, 2) as conversation:
        process.close_socket()
        process.write()
        process.delivery.on_remote_message(conversation, process.write())
        await idle()
        assert (process.store.reads, process.given) == (0, [])
        process.conversations.follow(2, 1, SocketKind.PAIR)
        await process.delivery.catch_up(conversation)
        assert conversation.delivered_seq == 2
        process.delivery.on_remote_message(conversation, process.write())
    assert process.given == [3]


async def test_a_message_that_the_store_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that the store does not have is looked for a few times only: an event may be wrong."""
    monkeypatch.setattr("models.chat.delivery.BACKOFF", (0.001, 0.004))
    process = Process()
    process.conversation.delivered_seq = 0
    process.delivery.on_remote_message(process.conversation, Message(1, 2, 7, 7, "never stored", b"7"))
    await until(lambda: not process.conversation.out_of_order)
    await until(lambda: process.conversation.catch_up_task is None)
    reads = process.store.reads
    await idle()
    assert (process.store.reads, process.given) == (reads, [])
    process.delivery.on_remote_message(process.conversation, process.write())
    assert process.given == [1]


async def test_a_message_that_the_store_shows_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that a new primary shows late is delivered without another event."""
    monkeypatch.setattr("models.chat.delivery.BACKOFF", (0.001, 100.0))
    process = Process()
    process.conversation.delivered_seq = 0
    late = [Message(1, 2, seq, seq, str(seq), bytes([seq])) for seq in (1, 2)]
    process.delivery.on_remote_message(process.conversation, late[1])
    await until(lambda: process.store.reads > 1)
    process.store.messages = late
    await until(lambda: process.given == [1, 2])


async def test_a_fetch_that_left_something_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catching up goes on after an own insert that was in progress when the store was read."""
    process = Process()
    process.conversation.delivered_seq = 0
    gate = asyncio.Event()

    async def read_state(*_: object) -> None:
        await gate.wait()

    monkeypatch.setattr(process.loader, "read_state", read_state)
    ours = process.write()
    process.inserts(ours)
    process.delivery.schedule_catch_up(process.conversation)
    await until(lambda: process.conversation.needs_fetch)
    process.write()  # by another process; its event is lost
    process.delivery.deliver(process.conversation, ours)
    process.inserts()
    process.delivery.drain_buffered(process.conversation)
    gate.set()
    await until(lambda: process.given == [1, 2])


async def idle() -> None:
    """Let everything that is ready on this loop run many times."""
    for _ in range(100):
        await asyncio.sleep(0)
