"""Tests that follow the article's walk-through (its section 3), frame by frame."""

from __future__ import annotations

from tests.conftest import Connect


async def test_the_article(connect: Connect, pair: tuple[int, int]) -> None:
    """1 writes while 2 is offline; 2 connects; both chat; 1 reads history up to its end."""
    user1, user2 = pair

    one = await connect(user1, user2)  # the greeting is 50002, 已连接至服务器
    await one.send(1, "在吗")
    await one.receive(50005, "对方不在线应答", sender="")

    two = await connect(user2, user1)
    await one.send(1, "你好")
    await one.receive(50004, "对方在线应答", sender="")
    await two.receive(50001, "你好", sender="")

    await two.send(3)  # the messages since 2 was offline
    await two.receive(50002, "在吗", sender="you")
    await two.receive(50002, "你好", sender="you")

    await two.send(1, "我在")
    await two.receive(50004)
    await one.receive(50001, "我在", sender="")

    await one.send(2, "not a number, so from the newest")
    await one.receive(50002, "在吗", sender="me")
    await one.receive(50002, "你好", sender="me")
    await one.receive(50002, "我在", sender="you")

    await one.send(2, "1")  # nothing is older than 1970
    await one.receive(50003, "到底了", sender="")


async def test_the_limit(connect: Connect, pair: tuple[int, int]) -> None:
    """A user who has not answered gets three messages and no fourth; after an answer, any number."""
    user1, user2 = pair
    one = await connect(user1, user2)
    for text in ("一", "二", "三"):
        await one.say(text, 50005)
    await one.send(1, "四")
    await one.receive(50006, "达到限制", sender="")

    two = await connect(user2, user1)
    await two.send(3)
    for text in ("一", "二", "三"):  # but not the refused one
        await two.receive(50002, text, sender="you")
    await two.say("好", 50004)

    await one.receive(50001, "好")
    for _ in range(10):
        await one.say("更多", 50004)
