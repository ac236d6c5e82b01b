"""Fixtures of the chat's tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from models.chat.service import Chat
from storage.mongo.messages import MongoMessages
from storage.redis.counters import RedisCounters
from tests.support.chats import Faulty, Make, NoOtherProcess, PatientChat, Recorder
from tests.support.clocks import Clock
from tests.support.patience import PATIENCE


@pytest.fixture
def make(io_loop: IOLoop, messages: MongoMessages, counters: RedisCounters, clock: Clock) -> Iterator[Make]:
    """Return a function that makes a chat, as in one process."""
    chats: list[Chat] = []

    def make_chat(
        *present: int, answer_timeout: float = PATIENCE, now: Clock = clock, cluster: NoOtherProcess | None = None
    ) -> tuple[PatientChat, Faulty, Recorder]:
        store, sockets = Faulty(messages), Recorder(*present)
        chat = PatientChat(
            store,
            messages.directory,
            counters,
            sockets,
            cluster or NoOtherProcess(),
            messages.blocks,
            clock=now,
            new_key=lambda: secrets.token_bytes(16),
            offline_after=0.2,
        )
        chat.answer_timeout = answer_timeout
        chats.append(chat)
        return chat, store, sockets

    yield make_chat
    for chat in chats:
        io_loop.run_sync(lambda chat=chat: chat.pipeline.drain(PATIENCE))
