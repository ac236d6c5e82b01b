"""Tests of metrics: what is counted, and who may read it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from handlers.websocket.handler import ChatSocket
from server import Server
from tests.conftest import Ask, Connect
from tests.support.sockets import RawSocket, until

Pair = tuple[int, int]


async def samples(ask: Ask) -> dict[tuple[str, str], float]:
    body = (await ask("GET", "/metrics", token="the token")).body.decode()
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


@pytest.mark.parametrize("flags", [["--metrics-token=the token"]])
async def test_what_is_counted(ask: Ask, connect: Connect, pair: Pair) -> None:
    """Sockets, conversations, answers to messages with their times, refused frames and closed sockets are counted."""
    one = await connect(*pair)
    await one.say("hi", 50005)
    for _ in range(10):
        await one.send_text("garbage")
    assert await one.closed() == 1008
    found = await samples(ask)
    assert found["tandem_messages_total", "50005"] == 1
    assert found["tandem_message_seconds_count", ""] == 1
    assert found["tandem_frames_refused_total", "400"] == 10
    assert found["tandem_sockets_closed_total", "1008"] == 1
    assert found["tandem_http_requests_total", "ChatSocket101"] >= 1
    assert found["process_resident_memory_bytes", ""] > 0
    await until(lambda: ChatSocket.hub.count == 0)
    one = await connect(*pair)
    assert ((await samples(ask))["tandem_sockets", ""], (await samples(ask))["tandem_conversations", ""]) == (1, 1)


BROKEN = {
    1002: b"\x83\x80\x00\x00\x00\x00",
    1007: b"\x81\x81\x00\x00\x00\x00\xff",
    1009: b"\x81\xff" + (70_000).to_bytes(8, "big"),
}


@pytest.mark.parametrize("flags", [["--metrics-token=the token"]])
@pytest.mark.parametrize("code", BROKEN)
async def test_who_breaks_the_protocol_is_offline(code: int, http_server: Server, ask: Ask, pair: Pair) -> None:
    """A client that breaks the protocol is offline at once and counted, though its half of the connection is open."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.writer.write(BROKEN[code])
    assert await raw.close_code() == code
    assert pair[0] not in ChatSocket.hub.users()
    assert ChatSocket.hub.count == 1
    assert (await samples(ask))["tandem_sockets_closed_total", f"{code}"] == 1
    raw.abort()
    await until(lambda: ChatSocket.hub.count == 0)


@pytest.mark.parametrize("flags", [["--metrics-token=the token"]])
async def test_only_with_the_token(ask: Ask) -> None:
    """Another token, or none, is answered with 401."""
    assert (await ask("GET", "/metrics", token="the token")).status == 200
    assert [(await ask("GET", "/metrics", token=token)).status for token in ("another", "", "the token2")] == [401] * 3


async def test_not_there_by_itself(ask: Ask) -> None:
    """Without configuration there are no metrics."""
    assert (await ask("GET", "/metrics", token="")).status == 404
