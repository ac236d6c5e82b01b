"""Tests of registration, the caller's own account, and finding a user, over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

import bcrypt
import pymysql
import pytest

from server import Server
from tests.conftest import Ask
from tests.support.sockets import RawSocket

VALID = {"nick_name": "小明", "user_name": "xiaoming", "password": "password"}


async def register(
    port: int, body: str, kind: str = "application/x-www-form-urlencoded", **headers: str
) -> tuple[int, Any]:
    raw = await RawSocket.open(port)
    status, content = await raw.request(
        "/user/register", method="POST", body=body, headers={"Content-Type": kind, **headers}
    )
    raw.abort()
    return status, json.loads(content)


async def test_as_a_form_and_as_json(http_server: Server) -> None:
    """The envelope has the user as gin-chat-demo shows one."""
    for name, body, kind in (
        ("form1", urlencode(VALID | {"user_name": "form1"}), "application/x-www-form-urlencoded"),
        ("json1", json.dumps(VALID | {"user_name": "json1"}), "application/json; charset=utf-8"),
    ):
        status, envelope = await register(http_server.port, body, kind)
        user = envelope.pop("data")
        assert (status, envelope) == (200, {"status": 200, "msg": "ok", "error": ""})
        assert list(user) == [
            "id", "user_name", "nick_name", "nickname", "type", "email", "status", "avatar", "create_at",
        ]  # fmt: skip
        assert (name, "小明", "active") == (user["user_name"], user["nickname"], user["status"])
        assert user["nick_name"] == user["nickname"]


async def test_who_registers_can_chat(http_server: Server, connect: Any, pair: tuple[int, int]) -> None:
    """A new user can chat at once."""
    _, envelope = await register(http_server.port, urlencode(VALID | {"user_name": "chatter"}))
    client = await connect(envelope["data"]["id"], pair[0])
    await client.say("hi", 50005)


async def test_a_taken_name(http_server: Server) -> None:
    """Of two concurrent registrations of a name one succeeds, and the other gets 409."""
    body = urlencode(VALID | {"user_name": "contested"})
    outcomes = await asyncio.gather(*(register(http_server.port, body) for _ in range(2)))
    assert sorted(status for status, _ in outcomes) == [200, 409]
    status, envelope = await register(http_server.port, body)
    assert (status, envelope["data"], envelope["msg"]) == (409, None, "fail")
    assert "user_name" in envelope["error"]


FIELDS = {
    "nick name missing": ({"nick_name": None}, "nick_name"),
    "nick name short": ({"nick_name": "明"}, "nick_name"),
    "nick name long": ({"nick_name": "x" * 11}, "nick_name"),
    "user name missing": ({"user_name": None}, "user_name"),
    "user name short": ({"user_name": "four"}, "user_name"),
    "user name long": ({"user_name": "x" * 16}, "user_name"),
    "user name number": ({"user_name": 12345}, "user_name"),
    "user name operator": ({"user_name": {"$ne": 1}}, "user_name"),
    "user name with an accent of its own": ({"user_name": "abcde1\u0301"}, "user_name"),
    "user name in full-width letters": ({"user_name": "\uff41\uff42\uff43\uff44\uff45"}, "user_name"),
    "user name with NUL": ({"user_name": "abc\0def"}, "user_name"),
    "user name of spaces": ({"user_name": "      "}, "user_name"),
    "password missing": ({"password": None}, "password"),
    "password short": ({"password": "1234567"}, "password"),
    "password long": ({"password": "x" * 73}, "password"),
    "password long in bytes": ({"password": "字" * 25}, "password"),
    "password list": ({"password": ["password"]}, "password"),
    "password with NUL": ({"password": "12345678\0"}, "password"),
}


@pytest.mark.parametrize(("change", "field"), FIELDS.values(), ids=FIELDS.keys())
async def test_an_invalid_field_is_named(change: dict[str, Any], field: str, http_server: Server) -> None:
    """The answer is 400, and no user is registered."""
    given = {key: value for key, value in (VALID | {"user_name": "invalid"} | change).items() if value is not None}
    status, envelope = await register(http_server.port, json.dumps(given), "application/json")
    assert (status, envelope["status"], envelope["data"]) == (400, 400, None)
    assert envelope["error"].startswith(field + ":")
    assert change.get("password") is None or str(change["password"]) not in envelope["error"]


BODIES = {
    "not JSON": ("{", "application/json"),
    "array": ("[]", "application/json"),
    "null": ("null", "application/json"),
    "deep": ("[" * 10_000, "application/json"),
    "lone surrogate": ('{"user_name":"\\ud800aaaaa"}', "application/json"),
    "empty form": ("x=1", "application/x-www-form-urlencoded"),
    "form not UTF-8": ("user_name=%FF%FE%FF%FE%FF", "application/x-www-form-urlencoded"),
    "plain text": ("user_name=abcdef", "text/plain"),
}


@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES.keys())
async def test_an_invalid_body(body: str, kind: str, http_server: Server) -> None:
    """An invalid body is answered with 400 in the envelope."""
    status, envelope = await register(http_server.port, body, kind)
    assert (status, envelope["status"]) == (400, 400)
    assert envelope["error"]


async def test_bounds_are_inclusive(http_server: Server) -> None:
    """The shortest and the longest values of all fields are accepted."""
    shortest = {"nick_name": "ab", "user_name": "abcde", "password": "12345678"}
    longest = {"nick_name": "n" * 10, "user_name": "u" * 15, "password": "p" * 72}
    for given in (shortest, longest):
        assert (await register(http_server.port, urlencode(given)))[0] == 200


async def test_another_sites_page(http_server: Server) -> None:
    """Another site's page cannot register a user."""
    status, _ = await register(http_server.port, urlencode(VALID), **{"Sec-Fetch-Site": "cross-site"})
    assert status == 403


async def test_a_body_too_large(http_server: Server) -> None:
    """A body that is too large is refused before it is read."""
    raw = await RawSocket.open(http_server.port)
    raw.writer.write(b"POST /user/register HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
    assert b"413" in (await raw.reader.read()).split(b"\r\n")[0]
    raw.abort()


# The caller's own account


async def test_me(ask: Ask, pair: tuple[int, int]) -> None:
    """The account is shown as by gin-chat-demo."""
    answer = await ask("GET", f"/user/me?uid={pair[0]}")
    assert (answer.status, answer.data["id"], answer.data["status"]) == (200, pair[0], "active")


async def test_me_who_has_just_gone(ask: Ask, pair: tuple[int, int], database: pymysql.Connection) -> None:
    """A deleted account is not shown, though its look-up is still cached."""
    assert (await ask("GET", f"/user/me?uid={pair[0]}")).status == 200
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET status = 'inactive' WHERE id = %s", (pair[0],))
    for path in ("/user/export", "/user/me"):
        assert (await ask("GET", f"{path}?uid={pair[0]}")).status == 404


async def test_changing_the_profile(ask: Ask, pair: tuple[int, int]) -> None:
    """Given fields change at once, for other users too; the rest stays."""
    me = f"/user/me?uid={pair[0]}"
    first = await ask("PATCH", me, body={"nick_name": "小红", "email": "red@example.org"})
    second = await ask("PATCH", me, body={"avatar": "https://example.org/a.png"})
    assert (first.status, second.status) == (200, 200)
    shown = (await ask("GET", me)).data
    assert (shown["nickname"], shown["email"], shown["avatar"]) == (
        "小红",
        "red@example.org",
        "https://example.org/a.png",
    )
    assert (await ask("PATCH", me, body={"user_name": "other"})).status == 400
    assert (await ask("PATCH", me, body="[]")).status == 400


async def test_finding_a_user(ask: Ask, pair: tuple[int, int], database: pymysql.Connection) -> None:
    """A user is found by the whole name, not by a part or a pattern, nor once deleted; public fields are shown."""
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET user_name = 'find_me', email = 'a@b' WHERE id = %s", (pair[1],))
    find = f"/users?uid={pair[0]}&user_name="
    assert (await ask("GET", find + "find_me")).data == {
        "id": pair[1],
        "user_name": "find_me",
        "nick_name": "",
        "avatar": "",
    }
    for name in ("find", "find%25", "find_m_", "%25", "find_me_too"):
        assert (await ask("GET", find + name)).status == 404
    assert (await ask("GET", f"/users?uid={pair[0]}")).status == 400
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET deleted_at = NOW() WHERE id = %s", (pair[1],))
    assert (await ask("GET", find + "find_me")).status == 404


SPELT = {
    "in another case": ("spelt_it", "Spelt_It"),
    "in capital letters": ("spelt_it", "SPELT_IT"),
    "with spaces behind it": ("spelt_it", "spelt_it  "),
    "without accents": ("spélt_ït", "spelt_it"),
}


@pytest.mark.parametrize(("name", "spelt"), SPELT.values(), ids=SPELT)
async def test_a_name_is_compared_as_the_table_does(
    name: str, spelt: str, ask: Ask, pair: tuple[int, int], database: pymysql.Connection
) -> None:
    """Every spelling that signs in, and is taken for registration, finds the user too."""
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET user_name = %s WHERE id = %s", (name, pair[1]))
    found = await ask("GET", f"/users?uid={pair[0]}&user_name={quote(spelt)}")
    assert (found.status, found.data["id"], found.data["user_name"]) == (200, pair[1], name)
    given = {"nick_name": "nick", "user_name": spelt.strip(), "password": "password"}
    assert (await ask("POST", "/user/register", body=given)).status == 409
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET user_name = NULL WHERE id = %s", (pair[1],))


OLD_NAMES = [
    "全角　空格",
    "no\u00a0break",
    "zw\u200dj",
    "tab\tbed",
    "blank\u2800",
    "bell\x07",
    "e\u0301tude",
    " padded",
]


@pytest.mark.parametrize("name", OLD_NAMES)
async def test_what_the_table_holds(name: str, ask: Ask, pair: tuple[int, int], database: pymysql.Connection) -> None:
    """Existing names work, whatever new names may not have: by form and by JSON, and for finding.

    New accounts cannot have them.
    """
    digest = bcrypt.hashpw(b"old password", bcrypt.gensalt(4)).decode()
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET user_name = %s, password_digest = %s WHERE id = %s", (name, digest, pair[1]))
    given = {"user_name": name, "password": "old password"}
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    for signed_in in (
        await ask("POST", "/user/login", body=given),
        await ask("POST", "/user/login", body=urlencode(given), **form),
    ):
        assert (signed_in.status, signed_in.data["user"]["id"]) == (200, pair[1])
    found = await ask("GET", f"/users?uid={pair[0]}&user_name={quote(name)}")
    assert (found.status, found.data["id"]) == (200, pair[1])
    assert (await ask("POST", "/user/register", body=given | {"nick_name": "nick"})).status == 400
    for wrong in ("%FF%FE", "", "x" * 256):
        assert (await ask("GET", f"/users?uid={pair[0]}&user_name={wrong}")).status == 400


async def test_deleting_the_account(ask: Ask, connect: Any, database: pymysql.Connection) -> None:
    """Deleting needs the password, erases personal data and ends sockets. The name stays taken; peers keep history."""
    made = [await ask("POST", "/user/register", body=VALID | {"user_name": name}) for name in ("leaver1", "stayer1")]
    one, two = (answer.data["id"] for answer in made)
    await ask("PATCH", f"/user/me?uid={one}", body={"email": "a@b"})
    socket, peer = await connect(one, two), await connect(two, one)
    await socket.say("goodbye", 50004)
    await peer.receive(50001)
    me = f"/user/me?uid={one}"
    assert (await ask("DELETE", me, body={"password": "wrong password"})).status == 403
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await ask("DELETE", me, body="%FF", **form)).status == 400
    assert (await ask("DELETE", me, body="password=password", **form)).status == 200
    assert await socket.closed() == 1008
    assert (await ask("GET", me)).status == 404
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT user_name, nick_name, email, password_digest, deleted_at IS NOT NULL FROM `user` WHERE id = %s",
            (one,),
        )
        assert cursor.fetchone() == ("leaver1", "", "", "!", 1)
    assert (await ask("POST", "/user/register", body=VALID | {"user_name": "leaver1"})).status == 409
    await peer.send(2)
    await peer.receive(50002, "goodbye")


async def test_an_account_without_a_password(ask: Ask, pair: tuple[int, int]) -> None:
    """An account without a password can neither be deleted nor get a password by a believed `uid`."""
    me = f"?uid={pair[0]}"
    assert (await ask("DELETE", f"/user/me{me}", body={"password": "x"})).status == 403
    given = {"password": "x", "new_password": "long enough"}
    assert (await ask("POST", f"/user/password{me}", body=given)).status == 403


async def test_a_password_in_the_query(http_server: Server) -> None:
    """A password in the query is refused with the reason, since proxies log URLs.

    gin-chat-demo accepts it. The other fields are read from the body.
    """
    path = "/user/register?" + urlencode(VALID | {"user_name": "inquery"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    raw = await RawSocket.open(http_server.port)
    status, content = await raw.request(path, method="POST", headers={**form, "Content-Length": "0"})
    error = "password: stands in the query, which proxies log; send it in the body"
    assert (status, json.loads(content)["error"]) == (400, error)
    status, content = await raw.request(path, method="POST", body=urlencode({"password": "password"}), headers=form)
    assert (status, json.loads(content)["error"]) == (400, "nick_name: is missing")
    raw.abort()
