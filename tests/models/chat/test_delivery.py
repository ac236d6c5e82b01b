"""Delivery: in whatever order messages come, and whatever is lost, sockets get them ascending and without a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.chat.blocks import Blocks
from models.chat.conversation import Conversation
from models.chat.conversations import Conversations
from models.chat.delivery import Delivery
from models.chat.ports import Reached
from models.errors import EngineUnavailable
from models.records import Message, conversation_of
from tests.support.chats import loader_of
from tests.support.sockets import until


class Store:
    """As many messages as the test says exist; as slow or as broken as it says."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failures = 0
        self.reads = 0

    async def after(self, conversation: str, seq: int, most: int) -> list[Message]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise EngineUnavailable("mongodb", "away")
        found = [message for message in self.messages if message.seq > seq][:most]
        await asyncio.sleep(0)
        return found

    async def newest(self, conversation: str) -> int:
        return self.messages[-1].seq if self.messages else 0

    async def unread_start(self, *_: Any) -> Any:
        raise EngineUnavailable("mongodb", "not asked for here")


class House:
    """One process: a conversation with a socket, and what that was given."""

    def __init__(self) -> None:
        self.store = Store()
        self.given: list[int] = []
        self.single_process = False
        blocks = Blocks(None, self, self, lambda user, peer: None)  # type: ignore[arg-type]  # there are none
        self.conversations = Conversations(lambda one, other: None)
        self.delivery = Delivery(
            self.conversations,
            self.store,
            self,
            self,
            loader_of(self.conversations, self.store, lambda: 0.0),
            blocks,
            lambda conversation, message: None,
        )
        self.socket = self.conversations.follow(1, 2)
        self.conversation = self.socket.conversation
        self.conversation.read_states = {1: self, 2: self}  # type: ignore[dict-item]

    def deliver(self, message: Message, origin: object, *, withheld: bool) -> Reached:
        self.given.append(message.seq)
        return Reached(live=True, read=False)

    def received(self, seq: int, *, live: bool) -> bool:
        return False

    def sent(self, seq: int) -> None: ...

    def write(self) -> Message:
        seq = len(self.store.messages) + 1
        self.store.messages.append(Message(1, 2, seq, seq, str(seq), bytes([seq])))
        return self.store.messages[-1]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_is_lost_or_late(data: st.DataObject) -> None:
    """Frames dropped, repeated and reordered, reads that fail: the last one that comes brings all the others."""

    async def run() -> None:
        house = House()
        house.conversation.delivered_seq = 0
        frames = [house.write() for _ in range(data.draw(st.integers(1, 12)))]
        coming = [*data.draw(st.lists(st.sampled_from(frames), max_size=20)), frames[-1]]
        house.store.failures = data.draw(st.integers(0, 2))
        for frame in coming:
            house.delivery.on_remote_message(house.conversation, frame)
            for _ in range(data.draw(st.integers(0, 3))):
                await asyncio.sleep(0)
            assert house.given == list(range(1, len(house.given) + 1))
        await until(lambda: house.given == list(range(1, len(frames) + 1)))
        await until(lambda: house.conversation.catch_up_task is None)

    asyncio.run(run())


async def test_nothing_overtakes_a_message_that_is_being_inserted() -> None:
    """What comes meanwhile waits, and is there at once afterwards."""
    house = House()
    house.conversation.delivered_seq = 0
    first, second = house.write(), house.write()
    house.conversation.inserting = (first,)
    house.delivery.on_remote_message(house.conversation, second)
    assert house.given == []
    house.delivery.deliver(house.conversation, first)
    house.conversation.inserting = ()
    house.delivery.drain_buffered(house.conversation)
    assert house.given == [1, 2]
    assert house.store.reads == 0


async def test_a_fetch_leaves_what_is_being_inserted_to_its_writer() -> None:
    """Else its sender would get a copy of it."""
    house = House()
    house.conversation.delivered_seq = 0
    inserting = house.write()
    house.conversation.inserting = (inserting,)
    await house.delivery.catch_up(house.conversation)
    assert house.given == []
    assert house.conversation.needs_fetch
    house.delivery.deliver(house.conversation, inserting)
    house.conversation.inserting = ()
    house.write()
    house.delivery.drain_buffered(house.conversation)
    await until(lambda: house.given == [1, 2])


async def test_more_early_messages_than_are_kept() -> None:
    """They are fetched instead."""
    house = House()
    house.conversation.delivered_seq = 0
    messages = [house.write() for _ in range(200)]
    house.conversation.inserting = messages[:1]
    for message in messages[1:]:
        house.delivery.on_remote_message(house.conversation, message)
    assert len(house.conversation.out_of_order) < 100
    house.delivery.deliver(house.conversation, messages[0])
    house.conversation.inserting = ()
    house.delivery.drain_buffered(house.conversation)
    await until(lambda: house.given == list(range(1, 201)))
    assert not house.conversation.out_of_order


async def test_a_conversation_that_begins_with_a_message_from_elsewhere() -> None:
    """What was before its sockets is not theirs."""
    house = House()
    for _ in range(3):
        house.write()
    house.delivery.on_remote_message(house.conversation, house.write())
    assert house.given == [4]


async def test_state_is_kept_while_somebody_fetches() -> None:
    """And let go of afterwards."""
    house = House()
    house.write()
    house.conversation.delivered_seq = 0
    house.delivery.schedule_catch_up(house.conversation)
    house.socket.close()
    assert house.conversations.get(conversation_of(1, 2)) is house.conversation
    await until(lambda: house.conversations.get(conversation_of(1, 2)) is None)
    assert isinstance(house.conversation, Conversation)


async def test_nothing_is_fetched_once_the_last_socket_has_closed() -> None:
    """A message is missing and the store is away: when the socket goes, so does the search for the message."""
    house = House()
    house.conversation.delivered_seq = 0
    house.write()
    house.store.failures = 10**9
    house.delivery.on_remote_message(house.conversation, house.write())
    await until(lambda: house.store.reads)
    house.socket.close()
    await until(lambda: house.conversation.catch_up_task is None)
    reads = house.store.reads
    await idle()
    assert house.store.reads == reads
    assert not len(house.conversations)


async def test_nothing_is_fetched_where_a_request_is_all_that_uses_the_state() -> None:
    """What is told of meanwhile is not missed by any socket; the next one begins anew, where the store stands then."""
    house = House()
    house.conversation.delivered_seq = 0
    with house.conversations.lease(1, 2) as conversation:
        house.socket.close()
        house.write()
        house.delivery.on_remote_message(conversation, house.write())
        await idle()
        assert (house.store.reads, house.given) == (0, [])
        house.conversations.follow(2, 1)
        await house.delivery.catch_up(conversation)
        assert conversation.delivered_seq == 2
        house.delivery.on_remote_message(conversation, house.write())
    assert house.given == [3]


async def test_a_message_that_the_store_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for a few times, and then no more: others may be wrong about what is stored."""
    monkeypatch.setattr("models.chat.delivery.BACKOFF", (0.001, 0.004))
    house = House()
    house.conversation.delivered_seq = 0
    house.delivery.on_remote_message(house.conversation, Message(1, 2, 7, 7, "never stored", b"7"))
    await until(lambda: not house.conversation.out_of_order)
    await until(lambda: house.conversation.catch_up_task is None)
    reads = house.store.reads
    await idle()
    assert (house.store.reads, house.given) == (reads, [])
    house.delivery.on_remote_message(house.conversation, house.write())
    assert house.given == [1]


async def test_a_message_that_the_store_shows_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new primary shows a moment later what the old one had acknowledged: nothing else has to happen for it."""
    monkeypatch.setattr("models.chat.delivery.BACKOFF", (0.001, 100.0))
    house = House()
    house.conversation.delivered_seq = 0
    late = [Message(1, 2, seq, seq, str(seq), bytes([seq])) for seq in (1, 2)]
    house.delivery.on_remote_message(house.conversation, late[1])
    await until(lambda: house.store.reads > 1)
    house.store.messages = late
    await until(lambda: house.given == [1, 2])


async def test_a_fetch_that_left_something_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of ours was being inserted when the store was read, and lands while the fetch is still under way."""
    house = House()
    house.conversation.delivered_seq = 0
    gate = asyncio.Event()

    async def read_state(*_: object) -> None:
        await gate.wait()

    monkeypatch.setattr(house.delivery._loader, "read_state", read_state)
    ours = house.write()
    house.conversation.inserting = (ours,)
    house.delivery.schedule_catch_up(house.conversation)
    await until(lambda: house.conversation.needs_fetch)
    house.write()  # elsewhere; its event is lost
    house.delivery.deliver(house.conversation, ours)
    house.conversation.inserting = ()
    house.delivery.drain_buffered(house.conversation)
    gate.set()
    await until(lambda: house.given == [1, 2])


async def idle() -> None:
    """Lets whatever is running on this loop have many turns."""
    for _ in range(100):
        await asyncio.sleep(0)
