"""Tests of bad input: it gets a clear answer and harms no one else. After each attempt, two other users still chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from handlers.websocket.handler import ChatSocket
from server import Server
from tests.conftest import Connect
from tests.support.sockets import RawSocket, socket_path, until

Chatting = Callable[[], "AsyncIterator[None]"]


@pytest.fixture
def chatting(connect: Connect, people: Callable[[int], list[int]]) -> Chatting:
    """Let two bystanders chat before and after the block inside."""

    @asynccontextmanager
    async def talk() -> AsyncIterator[None]:
        user1, user2 = people(2)
        one, two = await connect(user1, user2), await connect(user2, user1)
        for when in ("before", "after"):
            for sender, recipient in ((one, two), (two, one)):
                await sender.say(when, 50004)
                await recipient.receive(50001, when)
            if when == "before":
                yield

    return talk


PROTOCOL_ERROR = (1002).to_bytes(2, "big")

FRAMES = {
    "not JSON": "hello",
    "empty": "",
    "null": "null",
    "array": "[]",
    "number": "3",
    "text": '"hi"',
    "no type": "{}",
    "unknown type": '{"type":99,"content":""}',
    "type zero": '{"type":0,"content":""}',
    "negative type": '{"type":-1,"content":""}',
    "type as text": '{"type":"1","content":"hi"}',
    "type as float": '{"type":1.0,"content":"hi"}',
    "type as bool": '{"type":true,"content":"hi"}',
    "type null": '{"type":null,"content":"hi"}',
    "content number": '{"type":1,"content":5}',
    "null for a message without a type": '{"content":null}',
    "keys twice in different cases": '{"TYPE":1,"Type":1,"content":"hi"}',
    "content number in capitals": '{"TYPE":1,"CONTENT":5}',
    "content object": '{"type":1,"content":{"$ne":1}}',
    "type operator": '{"type":{"$gt":0},"content":"hi"}',
    "duplicate key": '{"type":1,"type":2,"content":"hi"}',
    "duplicate content": '{"type":1,"content":"a","content":"b"}',
    "duplicate key in disguise": '{"type":1,"content":"a","\\u0063ontent":"b"}',
    "NaN": '{"type":NaN}',
    "NaN elsewhere": '{"type":1,"x":NaN}',
    "Infinity": '{"type":Infinity}',
    "huge integer": '{"type":' + "9" * 5000 + "}",
    "integer beyond 64 bits": '{"type":18446744073709551617,"content":"hi"}',
    "deep array": "[" * 10_000 + "]" * 10_000,
    "deep object": '{"type":1,"x":' + "[" * 10_000 + "]" * 10_000 + "}",
    "unclosed depth": '{"a":' * 10_000,
    "lone high surrogate": '{"type":1,"content":"\\ud800"}',
    "lone low surrogate": '{"type":1,"content":"\\udc00 hi"}',
    "swapped surrogates": '{"type":1,"content":"\\ude00\\ud83d"}',
    "raw NUL": '{"type":1,"content":"a\0b"}',
    "trailing text": '{"type":1,"content":"hi"} x',
    "two objects": '{"type":1}{"type":1}',
    "byte order mark": '\ufeff{"type":1,"content":"hi"}',
    "too long": json.dumps({"type": 1, "content": "x" * 8193}),
    "single quotes": "{'type':1}",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
async def test_malformed_frame(frame: str, connect: Connect, pair: tuple[int, int], chatting: Chatting) -> None:
    """A malformed frame is answered with 400, stores and delivers nothing, and leaves the socket open."""
    async with chatting():
        one, two = await connect(*pair), await connect(*reversed(pair))
        await one.send_text(frame)
        await one.receive(400, "请求参数错误", sender="")
        await one.say("still here", 50004)
        await two.receive(50001, "still here")
        await two.send(2)
        await two.receive(50002, "still here")


TEXTS = {
    "NUL": "a\0b",
    "emoji": "👩‍👩‍👧‍👦 🇨🇳",
    "operator": "$where",
    "operator in braces": '{"$gt": ""}',
    "field path": "$content.$id",
    "markup": "<script>alert(1)</script>",
    "separators": "1->2",
    "JSON": '{"type":1,"type":1}',
    "line separators": "a\u2028b\u2029c\r\n",
    "noncharacters": "\ufffe\uffff",
    "right to left": "\u202eabc",
    "longest": "字" * 8192,
    "empty": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_odd_text_arrives_as_it_was(text: str, connect: Connect, pair: tuple[int, int]) -> None:
    """Any Unicode text of up to 8,192 characters is delivered and stored unchanged."""
    one, two = await connect(*pair), await connect(*reversed(pair))
    await one.say(text, 50004)
    await two.receive(50001, text)
    await two.send(2)
    await two.receive(50002, text, sender="you")


async def test_unknown_fields_are_ignored(connect: Connect, pair: tuple[int, int]) -> None:
    """Unknown fields are ignored as by the article's server, also if they are named like MongoDB's operators."""
    one = await connect(*pair)
    await one.send_text('{"type":1,"content":"hi","$where":"sleep(1)","_id":{"$ne":1},"sender":99}')
    await one.receive(50005)
    await one.send(2)
    await one.receive(50002, "hi", sender="me")


AS_IN_GO = {
    '{"Type":1,"Content":"Go and C# by default"}': "Go and C# by default",
    '{"TYPE":1,"CONTENT":"caps"}': "caps",
    '{"type":1,"Content":"one of them"}': "one of them",
    '{"type":1,"content":null}': "",
}


@pytest.mark.parametrize(("frame", "content"), AS_IN_GO.items(), ids=AS_IN_GO)
async def test_frames_as_go_reads_them(frame: str, content: str, connect: Connect, pair: tuple[int, int]) -> None:
    """Protocol v1 accepts keys in any case and null for content, as the article's server does."""
    one, two = await connect(*pair), await connect(*reversed(pair))
    await one.send_text(frame)
    await one.receive(50004)
    await two.receive(50001, content)
    await two.send_text('{"Type":2,"CONTENT":null}')
    await two.receive(50002, content, sender="you")


async def test_binary_frame(connect: Connect, pair: tuple[int, int], chatting: Chatting) -> None:
    """A binary frame is not a request, whatever its content."""
    async with chatting():
        one = await connect(*pair)
        await one.send_text(b'{"type":1,"content":"hi"}', binary=True)
        await one.receive(400)
        await one.say("text", 50005)


async def test_ten_malformed_frames_close_the_socket(
    connect: Connect, pair: tuple[int, int], chatting: Chatting
) -> None:
    """The tenth malformed frame in a row is answered too, and then the socket is closed with 1008."""
    async with chatting():
        one = await connect(*pair)
        for _ in range(10):
            await one.send_text("garbage")
        for _ in range(10):
            await one.receive(400)
        assert await one.closed() == 1008


async def test_a_valid_frame_forgives(connect: Connect, pair: tuple[int, int]) -> None:
    """Only malformed frames in a row count."""
    one = await connect(*pair)
    for _ in range(2):
        for _ in range(9):
            await one.send_text("garbage")
            await one.receive(400)
        await one.send(2)
        await one.receive(50003)


async def test_invalid_utf8(http_server: Server, pair: tuple[int, int], chatting: Chatting) -> None:
    """Text that is not UTF-8 closes the socket with 1007 (RFC 6455, section 8.1)."""
    async with chatting():
        raw = await RawSocket.upgraded(http_server.port, *pair)
        raw.write_frame(1, b'{"type":1,"content":"\xff\xfe"}')
        assert await raw.close_code() == 1007
        raw.abort()
    await until(lambda: ChatSocket.hub.count == 2)


async def test_surrogates_in_utf8(http_server: Server, pair: tuple[int, int], chatting: Chatting) -> None:
    """An encoded surrogate is not valid UTF-8."""
    async with chatting():
        raw = await RawSocket.upgraded(http_server.port, *pair)
        raw.write_frame(1, b'{"type":1,"content":"\xed\xa0\x80"}')
        assert await raw.close_code() == 1007
        raw.abort()


async def test_frame_over_the_limit(http_server: Server, pair: tuple[int, int], chatting: Chatting) -> None:
    """A frame that announces more than 64 KiB closes the socket with 1009 before it is read."""
    async with chatting():
        raw = await RawSocket.upgraded(http_server.port, *pair)
        raw.write_frame(1, b"", length=65_537)
        assert await raw.close_code() == 1009
        raw.abort()


async def test_fragments_without_end(http_server: Server, pair: tuple[int, int], chatting: Chatting) -> None:
    """Fragments add up to at most one frame's limit, then the socket is closed with 1009."""
    async with chatting():
        raw = await RawSocket.upgraded(http_server.port, *pair)
        raw.write_frame(1, b"x" * 1000, fin=False)
        for _ in range(65):
            raw.write_frame(0, b"x" * 1000, fin=False)
        assert await raw.close_code() == 1009
        raw.abort()


async def test_fragmented_message(http_server: Server, pair: tuple[int, int]) -> None:
    """A message in fragments, with a ping between them, is one message."""
    raw = await RawSocket.upgraded(http_server.port, *pair)
    raw.write_frame(1, b'{"type":1,', fin=False)
    raw.write_frame(9, b"are you there")
    assert await raw.frame() == (10, b"are you there")
    raw.write_frame(0, b'"content":"hi"}')
    opcode, payload = await raw.frame()
    assert (opcode, json.loads(payload)["code"]) == (1, 50005)
    raw.abort()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x83\x80\x00\x00\x00\x00",
        b"\xf1\x80\x00\x00\x00\x00",
        b"\x80\x80\x00\x00\x00\x00",
        b"\x09\x80\x00\x00\x00\x00",
    ],
    ids=["reserved opcode", "reserved bits", "continuation of nothing", "fragmented ping"],
)
async def test_broken_protocol(junk: bytes, http_server: Server, pair: tuple[int, int], chatting: Chatting) -> None:
    """A breach of the WebSocket protocol ends only that connection."""
    async with chatting():
        raw = await RawSocket.upgraded(http_server.port, *pair)
        raw.writer.write(junk)
        said = await raw.reader.read()
        assert said[2:4] == PROTOCOL_ERROR
        raw.abort()


UPGRADES = {
    "uid missing": ("toUid={b}", 400),
    "toUid missing": ("uid={a}", 400),
    "both missing": ("", 400),
    "uid empty": ("uid=&toUid={b}", 400),
    "toUid empty": ("uid={a}&toUid=", 400),
    "uid negative": ("uid=-1&toUid={b}", 400),
    "uid zero": ("uid=0&toUid={b}", 400),
    "uid with a leading zero": ("uid=0{a}&toUid={b}", 400),
    "uid not a number": ("uid=abc&toUid={b}", 400),
    "uid hexadecimal": ("uid=0x1&toUid={b}", 400),
    "uid with a fraction": ("uid=1.0&toUid={b}", 400),
    "uid with a sign": ("uid=%2B1&toUid={b}", 400),
    "uid with spaces": ("uid=%201&toUid={b}", 400),
    "uid in other digits": ("uid=%D9%A1&toUid={b}", 400),
    "uid with the article's separator": ("uid={a}-%3E{b}&toUid={b}", 400),
    "uid with our separator": ("uid={a}-{b}&toUid={b}", 400),
    "uid with a colon": ("uid={a}:{b}&toUid={b}", 400),
    "uid with an operator": ("uid[$ne]=1&toUid={b}", 400),
    "uid is an operator": ("uid=$gt&toUid={b}", 400),
    "uid with SQL": ("uid=1%20OR%201=1&toUid={b}", 400),
    "uid with NUL": ("uid={a}%00&toUid={b}", 400),
    "uid not UTF-8": ("uid=%FF&toUid={b}", 400),
    "uid huge": ("uid=99999999999999999999&toUid={b}", 400),
    "uid very long": ("uid=" + "9" * 5000 + "&toUid={b}", 400),
    "uid twice": ("uid={a}&uid={b}&toUid={b}", 400),
    "to oneself": ("uid={a}&toUid={a}", 400),
    "unknown language": ("uid={a}&toUid={b}&lang=$", 400),
    "two languages": ("uid={a}&toUid={b}&lang=en&lang=en", 400),
    "unknown version": ("uid={a}&toUid={b}&v=3", 400),
    "two versions": ("uid={a}&toUid={b}&v=1&v=2", 400),
    "uid unknown": ("uid=4000000000&toUid={b}", 404),
    "toUid unknown": ("uid={a}&toUid=4000000000", 404),
    "toUid beyond the column": ("uid={a}&toUid=9223372036854775807", 404),
}


@pytest.mark.parametrize(("query", "status"), UPGRADES.values(), ids=UPGRADES.keys())
async def test_refused_upgrade(
    query: str, status: int, http_server: Server, pair: tuple[int, int], chatting: Chatting
) -> None:
    """A refused upgrade gives the reason in the JSON envelope, and does not count against a quota."""
    async with chatting():
        raw = await RawSocket.open(http_server.port)
        got, body = await raw.request("/ws?" + query.format(a=pair[0], b=pair[1]), upgrade=True)
        envelope = json.loads(body)
        assert (got, envelope["status"], envelope["data"]) == (status, status, None)
        assert envelope["error"]
        raw.abort()
        assert ChatSocket.hub.count == 2


HEADERS = {
    "no upgrade": ({"Upgrade": "h2c"}, 400),
    "no connection": ({"Connection": "close"}, 400),
    "another connection": ({"Connection": "keep-alive, x-upgrade"}, 400),
    "another site without an origin": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "no key": ({"Sec-WebSocket-Key": ""}, 400),
    "a short key": ({"Sec-WebSocket-Key": "AAAA"}, 400),
    "another origin": ({"Origin": "http://evil.example"}, 403),
    "an origin that is no URL": ({"Origin": "http://[::1"}, 403),
    "another site": ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, 403),
    "old version": ({"Sec-WebSocket-Version": "8"}, 426),
}


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS.keys())
async def test_refused_handshake(
    headers: dict[str, str], status: int, http_server: Server, pair: tuple[int, int], chatting: Chatting
) -> None:
    """A malformed handshake, or one from another site's page, is refused."""
    async with chatting():
        raw = await RawSocket.open(http_server.port)
        got, body = await raw.request(socket_path(*pair), upgrade=True, headers=headers)
        assert (got, json.loads(body)["status"]) == (status, status)
        raw.abort()


async def test_plain_get(http_server: Server, pair: tuple[int, int]) -> None:
    """A plain GET is answered with 426: an upgrade is required."""
    raw = await RawSocket.open(http_server.port)
    status, body = await raw.request(socket_path(*pair))
    assert (status, json.loads(body)["error"]) == (400, "a WebSocket upgrade is expected")
    raw.abort()
