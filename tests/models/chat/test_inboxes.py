"""Tests of inboxes: conversations are followed without a pair socket."""

from __future__ import annotations

from collections.abc import Callable

from models.chat.conversation import Conversation
from models.chat.ports import Reached
from models.records import Message, conversation_of
from server import Server
from tests.conftest import Connect2
from tests.support.sockets import until


async def test_conversations_are_followed_while_the_inbox_is_open(
    connect2: Connect2, http_server: Server, people: Callable[[int], list[int]]
) -> None:
    """Conversations are followed from their heads on, and released when the last inbox socket closes."""
    me, a = people(2)
    sender = await connect2(a, me)
    for text in ("one", "two"):
        await sender.say(text, 50005)
    sender.close()
    conversations = http_server.chat.conversations
    await until(lambda: not list(conversations))
    inboxes = [await connect2(me) for _ in range(2)]
    await until(lambda: conversations.get(conversation_of(me, a)))
    conversation = conversations.get(conversation_of(me, a))
    assert conversation is not None
    assert (conversation.delivered_seq, conversation.followed) == (2, True)
    inboxes[0].close()
    await inboxes[1].ask(2, to=str(a))
    assert conversations.get(conversation_of(me, a)) is conversation
    inboxes[1].close()
    await until(lambda: not list(conversations))


async def test_a_new_conversation_is_found_without_being_told(
    connect2: Connect2, http_server: Server, people: Callable[[int], list[int]]
) -> None:
    """The sweep finds a new conversation whose event was lost."""
    me, a = people(2)
    inbox = await connect2(me)
    chat = http_server.chat
    await chat.inboxes.looked(me)
    other = await connect2(a, me)
    deliver, undelivered = chat.delivery.deliver, []

    def elsewhere(conversation: Conversation, message: Message, origin: object = None) -> Reached:
        undelivered.append(message)
        return Reached(live=False, read=False)

    chat.delivery.deliver = elsewhere  # type: ignore[method-assign]
    try:
        await other.write(1, content="unheard")
        await until(lambda: undelivered)
        await until(lambda: all(c.run is None for c in chat.conversations))
    finally:
        chat.delivery.deliver = deliver  # type: ignore[method-assign]
    other.close()
    await until(lambda: chat.conversations.get(conversation_of(me, a)) is None)
    chat.inboxes.look(me)
    await inbox.receive(50001, content="unheard", seq=1)
