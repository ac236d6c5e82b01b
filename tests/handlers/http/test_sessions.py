"""Tests of signing in and out, the session, passwords and tickets, and of what authenticates a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pymysql
import pytest
from tornado.httpclient import HTTPClientError

from handlers.websocket.handler import ChatSocket
from models.errors import StorageUnavailable
from server import Server
from tests.conftest import Ask, Connect2, TokenOf
from tests.support.patience import PATIENCE
from tests.support.sockets import Client2, RawSocket, socket_path, websocket

Pair = tuple[int, int]
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def flags() -> list[str]:
    return ["--auth=token"]


@pytest.fixture
def known(database: pymysql.Connection, people: Callable[[int], list[int]]) -> Callable[[str], tuple[int, str]]:
    """A user with a password, whose digest is as gin-chat-demo's Go package writes it."""

    def make(password: str) -> tuple[int, str]:
        (user,) = people(1)
        digest = bcrypt.hashpw(password.encode(), bcrypt.gensalt(12, prefix=b"2a")).decode()
        with database.cursor() as cursor:
            cursor.execute(
                "UPDATE `user` SET password_digest = %s, user_name = %s WHERE id = %s", (digest, f"n{user}", user)
            )
        return user, f"n{user}"

    return make


SignOn = Callable[[str], Awaitable[Client2]]


@pytest.fixture
def sign_on(http_server: Server, opened: list[Any]) -> SignOn:
    """Return a function that opens an inbox socket with a token."""

    async def open_socket(token: str) -> Client2:
        client = Client2(await websocket(http_server.port, "/ws?v=2", bearer(token)))
        opened.append(client)
        await client.receive(50002)
        return client

    return open_socket


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_an_account_of_gin_chat_demo(ask: Ask, known: Any, http_port: int) -> None:
    """A password of gin-chat-demo signs in, by form and JSON, with a token and a cookie closed to scripts and sites."""
    user, name = known("old password")
    answer = await ask("POST", "/user/login", body={"user_name": name, "password": "old password"})
    assert (answer.status, answer.data["user"]["id"]) == (200, user)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"tandem-{http_port}={answer.data['token']};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    form = urlencode({"user_name": name, "password": "old password"})
    assert (await ask("POST", "/user/login", body=form, **FORM)).status == 200
    for credentials in (bearer(answer.data["token"]), {"Cookie": cookie.partition(";")[0]}):
        assert (await ask("GET", "/user/me", **credentials)).data["id"] == user


async def test_wrong_password_unknown_name_and_inactive(ask: Ask, known: Any, database: pymysql.Connection) -> None:
    """A wrong password, an unknown name and an inactive account get the same answer."""
    _, name = known("right password")
    inactive, gone = known("right password")
    with database.cursor() as cursor:
        cursor.execute("UPDATE `user` SET status = 'banned' WHERE id = %s", (inactive,))
    tried = [(name, "wrong password"), ("nobody-at-all", "wrong password"), (gone, "right password")]
    answers = [await ask("POST", "/user/login", body={"user_name": n, "password": p}) for n, p in tried]
    assert [answer.status for answer in answers] == [401] * 3
    assert len({answer.body for answer in answers}) == 1
    assert all("Set-Cookie" not in answer.headers for answer in answers)


@pytest.mark.parametrize("flags", [["--auth=token", "--sign-ins-per-account=3"]])
async def test_guessing_one_account(ask: Ask, known: Any) -> None:
    """Of ten concurrent guesses, in any spelling of the name, three are checked; then the right one is refused."""
    _, name = known("right password")
    spellings = [name, name.upper()] * 5
    answers = await asyncio.gather(
        *(ask("POST", "/user/login", body={"user_name": n, "password": f"guess {i}"}) for i, n in enumerate(spellings))
    )
    assert sorted(answer.status for answer in answers) == [401] * 3 + [429] * 7
    refused = await ask("POST", "/user/login", body={"user_name": name, "password": "right password"})
    assert (refused.status, 1 <= int(refused.headers["Retry-After"]) <= 900) == (429, True)


@pytest.mark.parametrize("flags", [["--auth=token", "--sign-ins-per-address=3", "--redis-prefix=address"]])
async def test_guessing_from_one_address(ask: Ask) -> None:
    """Attempts with one name each are limited by address too, whatever a forwarding header says."""
    statuses = [
        (
            await ask(
                "POST", "/user/login", body={"user_name": f"no{n}", "password": "x"}, X_Forwarded_For=f"9.9.9.{n}"
            )
        ).status
        for n in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


@pytest.mark.parametrize("flags", [["--auth=token", "--registrations-per-address=2", "--redis-prefix=registrations"]])
async def test_registrations_from_one_address(ask: Ask) -> None:
    """Registrations are limited, since new accounts would void the limit rule; invalid ones do not count."""
    given = {"nick_name": "nick", "password": "password"}
    statuses = [
        (await ask("POST", "/user/register", body=given | {"user_name": name})).status
        for name in ("fresh1", "x", "fresh2", "fresh3")
    ]
    assert statuses == [200, 400, 200, 429]


INVALID = {"no name": ({"password": "x"}, "user_name"), "no password": ({"user_name": "x"}, "password"),
           "a list": ({"user_name": ["x"], "password": "x"}, "user_name"),
           "too long": ({"user_name": "x", "password": "x" * 73}, "password"),
           "NUL": ({"user_name": "x", "password": "x\0"}, "password")}  # fmt: skip


@pytest.mark.parametrize(("given", "field"), INVALID.values(), ids=INVALID)
async def test_an_invalid_field_is_named(given: dict[str, Any], field: str, ask: Ask) -> None:
    """An invalid field is answered with 400 before anything is looked up."""
    answer = await ask("POST", "/user/login", body=given)
    assert (answer.status, answer.error.startswith(f"{field}:")) == (400, True)


async def test_uid_is_not_believed(
    http_server: Server, sign_on: SignOn, ask: Ask, token_of: TokenOf, pair: Pair
) -> None:
    """The answer is 401 without a token, 403 with another user's; `uid` may be left out, or be the token's."""
    one, two = pair
    token = await token_of(one)
    for method, path in (
        ("GET", f"/user/me?uid={one}"),
        ("GET", f"/messages?uid={one}&toUid={two}"),
        ("POST", f"/ws/ticket?uid={one}"),
    ):
        refused = await ask(method, path)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await ask("GET", f"/user/me?uid={two}", token=token)).status == 403
    assert (await ask("GET", f"/user/me?uid={one}", token=token)).status == 200
    for path, headers, status in (
        (f"/ws?uid={one}&toUid={two}", {}, 401),
        (f"/ws?uid={two}&toUid={one}", bearer(token), 403),
        (f"/ws?uid={two}&v=2", bearer(token), 403),
    ):
        with pytest.raises(HTTPClientError) as refused_upgrade:
            await websocket(http_server.port, path, headers)
        assert refused_upgrade.value.code == status
    client = await sign_on(token)
    await client.say("it is me", 50005, to=str(two))


async def test_a_token_in_the_url_is_none(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """A token in the URL is ignored: URLs are logged."""
    token = await token_of(pair[0])
    for name in ("token", "access_token", "ticket"):
        assert (await ask("GET", f"/user/me?{name}={token}")).status == 401


async def test_a_ticket_opens_one_socket(http_server: Server, ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """Of twenty concurrent uses of a ticket one succeeds, and later it is invalid."""
    answer = await ask("POST", "/ws/ticket", token=await token_of(pair[0]))
    path = f"/ws?v=2&ticket={answer.data['ticket']}"
    tried = await asyncio.gather(*(websocket(http_server.port, path) for _ in range(20)), return_exceptions=True)
    let_in = [connection for connection in tried if not isinstance(connection, Exception)]
    assert (len(let_in), {e.code for e in tried if isinstance(e, HTTPClientError)}) == (1, {401})
    with pytest.raises(HTTPClientError, match="401"):
        await websocket(http_server.port, path)
    let_in[0].close()


async def test_a_ticket_is_for_its_own_user(http_server: Server, ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """`uid` beside a ticket must be the user it was issued to."""
    ticket = (await ask("POST", "/ws/ticket", token=await token_of(pair[0]))).data["ticket"]
    with pytest.raises(HTTPClientError, match="403"):
        await websocket(http_server.port, f"/ws?uid={pair[1]}&v=2&ticket={ticket}")


async def test_a_ticket_of_a_user_who_has_signed_out(
    http_server: Server, ask: Ask, token_of: TokenOf, pair: Pair
) -> None:
    """A ticket ends with the token that it was issued for."""
    token = await token_of(pair[0])
    ticket = (await ask("POST", "/ws/ticket", token=token)).data["ticket"]
    assert (await ask("POST", "/user/logout", token=token)).status == 200
    with pytest.raises(HTTPClientError, match="401"):
        await websocket(http_server.port, f"/ws?v=2&ticket={ticket}")


async def closed_with(client: Client2) -> int | None:
    async with asyncio.timeout(PATIENCE):
        while await client.connection.read_message() is not None:
            pass
    return client.connection.close_code


async def test_signing_out_here(sign_on: SignOn, ask: Ask, token_of: TokenOf, pair: Pair, http_port: int) -> None:
    """Signing out ends this token and its sockets (1008), deletes the cookie, and leaves other devices signed in."""
    here, elsewhere = await token_of(pair[0]), await token_of(pair[0])
    socket, other = await sign_on(here), await sign_on(elsewhere)
    answer = await ask("POST", "/user/logout", token=here)
    assert (answer.status, answer.headers["Set-Cookie"].startswith(f'tandem-{http_port}="";')) == (200, True)
    assert await closed_with(socket) == 1008
    assert (await ask("GET", "/user/me", token=here)).status == 401
    assert (await ask("GET", "/user/me", token=elsewhere)).status == 200
    assert await other.silent()


async def test_signing_out_everywhere(sign_on: SignOn, ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """Signing out everywhere ends all of the user's tokens and sockets, and no other user's; a new token is valid."""
    tokens = [await token_of(pair[0]) for _ in range(2)]
    sockets = [await sign_on(token) for token in tokens]
    bystander = await sign_on(await token_of(pair[1]))
    assert (await ask("POST", "/user/logout/everywhere", token=tokens[0])).status == 200
    assert [await closed_with(socket) for socket in sockets] == [1008, 1008]
    assert [(await ask("GET", "/user/me", token=token)).status for token in tokens] == [401, 401]
    assert (await ask("GET", "/user/me", token=await token_of(pair[0]))).status == 200
    await bystander.say("still here", 50005, to=str(pair[0]))


async def test_changing_the_password(sign_on: SignOn, ask: Ask, known: Any) -> None:
    """Changing the password needs the current one, ends all tokens and gives a new one; the old password is invalid."""
    user, name = known("first password")
    old = (await ask("POST", "/user/login", body={"user_name": name, "password": "first password"})).data["token"]
    socket = await sign_on(old)
    wrong = {"password": "a guess", "new_password": "second password"}
    assert (await ask("POST", "/user/password", token=old, body=wrong)).status == 403
    short = {"password": "first password", "new_password": "short"}
    assert (await ask("POST", "/user/password", token=old, body=short)).error.startswith("new_password:")
    right = {"password": "first password", "new_password": "second password"}
    changed = await ask("POST", "/user/password", token=old, body=right)
    assert (changed.status, changed.data["user"]["id"]) == (200, user)
    assert await closed_with(socket) == 1008
    assert (await ask("GET", "/user/me", token=old)).status == 401
    assert (await ask("GET", "/user/me", token=changed.data["token"])).status == 200
    assert (await ask("POST", "/user/login", body={"user_name": name, "password": "first password"})).status == 401


@pytest.mark.parametrize("flags", [["--auth=token", "--session-check=0.05", "--lookup-ttl=0.05"]])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE `user` SET status = 'banned' WHERE id = %s",
        "UPDATE `user` SET deleted_at = NOW() WHERE id = %s",
        "UPDATE `user` SET password_digest = '$2a$12$other' WHERE id = %s",
        "DELETE FROM `user` WHERE id = %s",
    ],
    ids=["deactivated", "deleted as gorm does", "password changed", "row deleted"],
)
async def test_by_another_program_in_the_table(
    change: str, sign_on: SignOn, token_of: TokenOf, pair: Pair, ask: Ask, database: pymysql.Connection
) -> None:
    """A change in the table by another program ends tokens and sockets too, without any event."""
    token = await token_of(pair[0])
    socket = await sign_on(token)
    with database.cursor() as cursor:
        cursor.execute(change, (pair[0],))
    assert await closed_with(socket) == 1008
    while (await ask("GET", "/user/me", token=token)).status != 401:
        pass


@pytest.mark.parametrize("flags", [["--auth=token", "--session-check=0.05", "--token-lifetime=60"]])
async def test_a_token_that_expires(
    http_server: Server, token_of: TokenOf, pair: Pair, clock: Any, connect2: Connect2
) -> None:
    """The sockets of an expired token are closed."""
    socket = await connect2(pair[0], headers=bearer(await token_of(pair[0])))
    clock.offset = 120
    assert await closed_with(socket) == 1008


@pytest.mark.parametrize("flags", [["--auth=token", "--lookup-ttl=1000"]])  # the cache outlasts the test
async def test_sockets_stay_open_while_mysql_is_away(
    ask: Ask, http_server: Server, token_of: TokenOf, pair: Pair, connect2: Connect2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open sockets work on; new ones and requests get 503 once the cache is empty."""
    token = await token_of(pair[0])
    socket = await connect2(*pair, headers=bearer(token))
    looked = asyncio.Event()

    async def away(*_: object) -> None:
        looked.set()
        raise StorageUnavailable("mysql", "away")

    monkeypatch.setattr(http_server.stores.mysql, "always", away)
    http_server.chat.account_changed(pair[0])
    await looked.wait()
    await socket.say("still here", 50005)
    assert ChatSocket.hub.count == 1
    for user in pair:
        http_server.stores.users.forget(user)
    with pytest.raises(HTTPClientError, match="503"):
        await websocket(http_server.port, socket_path(*pair), bearer(token))
    assert (await ask("GET", "/user/me", token=token)).status == 503


async def test_a_malformed_header(http_server: Server, pair: Pair) -> None:
    """A malformed Authorization header is treated as no token or as an invalid one."""
    for value in ("Bearer", "Bearer ", "bearer \x80\xff", "Basic dXNlcjpwYXNz", "Bearer a.b.c", "Bearer " + "x" * 8000):
        raw = await RawSocket.open(http_server.port)
        status, _ = await raw.request("/user/me", headers={"Authorization": value})
        assert status == 401
        raw.abort()


@pytest.mark.parametrize("flags", [["--auth=token", "--trusted-proxies=127.0.0.1"]])
async def test_a_cookie_behind_tls(ask: Ask, known: Any, http_port: int) -> None:
    """Behind TLS the cookie is Secure, and no neighbouring site can set its name; the plain one is not accepted."""
    user, name = known("password")
    https = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "9.9.9.9"}
    answer = await ask("POST", "/user/login", body={"user_name": name, "password": "password"}, **https)
    cookie, token = answer.headers["Set-Cookie"], answer.data["token"]
    assert cookie.startswith(f"__Host-tandem-{http_port}={token};")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
    for name in (f"__Host-tandem-{http_port}", "__Host-tandem"):
        assert (await ask("GET", "/user/me", Cookie=f"{name}={token}", **https)).data["id"] == user
    for name in (f"tandem-{http_port}", "tandem", "__Host-tandem-1"):
        assert (await ask("GET", "/user/me", Cookie=f"{name}={token}", **https)).status == 401


async def test_two_servers_on_one_host(ask: Ask, known: Any, http_port: int) -> None:
    """Two servers on one host leave each other's cookies alone, though browsers keep cookies by host for all ports."""
    user, name = known("password")
    theirs = "tandem-1=theirs"
    answer = await ask("POST", "/user/login", body={"user_name": name, "password": "password"}, Cookie=theirs)
    mine = answer.headers["Set-Cookie"].partition(";")[0]
    assert mine == f"tandem-{http_port}={answer.data['token']}"
    assert (await ask("GET", "/user/me", Cookie=f"{theirs}; tandem=of another program; {mine}")).data["id"] == user
    answer = await ask("POST", "/user/logout", Cookie=f"{theirs}; {mine}")
    assert (answer.status, [each.partition("=")[0] for each in answer.headers.get_list("Set-Cookie")]) == (
        200,
        [f"tandem-{http_port}"],
    )


@pytest.mark.parametrize(
    ("host", "cookie"),
    [("chat.example", "tandem"), ("chat.example:8443", "tandem-8443"), ("[::1]", "tandem"), ("[::1]:1", "tandem-1")],
)
async def test_the_name_of_the_cookie(host: str, cookie: str, ask: Ask, known: Any) -> None:
    """The cookie's name has the port of the URL; one without a port is accepted, and deleted too."""
    _, name = known("password")
    answer = await ask("POST", "/user/login", body={"user_name": name, "password": "password"}, Host=host)
    assert answer.headers["Set-Cookie"].partition("=")[0] == cookie
    answer = await ask("POST", "/user/logout", Cookie=f"tandem={answer.data['token']}", Host=host)
    assert {each.partition("=")[0] for each in answer.headers.get_list("Set-Cookie")} == {cookie, "tandem"}


async def test_a_session_before_signing_in(ask: Ask, http_server: Server) -> None:
    """The session before signing in is no error: it has what a page needs then, and no list of accounts."""
    answer = await ask("GET", "/session")
    expected = {
        "auth": "token",
        "user": None,
        "users": [],
        "max_content": 8192,
        "log": http_server.stores.messages.log,
        "registration": True,
    }
    assert (answer.status, answer.data) == (200, expected)
    assert (answer.headers["Cache-Control"], "Set-Cookie" in answer.headers) == ("no-store", False)


async def test_a_session(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """The session has the signed-in user as the account shows it, by header and by cookie; the cookie stays."""
    token = await token_of(pair[0])
    account = (await ask("GET", "/user/me", token=token)).data
    assert account["id"] == pair[0]
    for path in ("/session", f"/session?uid={pair[0]}"):
        for credentials in (bearer(token), {"Cookie": f"tandem={token}"}):
            answer = await ask("GET", path, **credentials)
            assert (answer.status, answer.data["user"], answer.data["users"]) == (200, account, [])
            assert "Set-Cookie" not in answer.headers


async def test_a_session_that_is_over(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """An ended session has no user. The cookie stays: the browser may have got a new one meanwhile."""
    ended = await token_of(pair[0])
    assert (await ask("POST", "/user/logout", token=ended)).status == 200
    for token in (ended, "a.b.c", ""):
        answer = await ask("GET", "/session", Cookie=f"tandem={token}")
        assert (answer.status, answer.data["user"]) == (200, None)
        assert "Set-Cookie" not in answer.headers


async def test_a_cookie_that_is_still_good(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """A valid cookie stays if the header beside it or the `uid` is wrong."""
    cookie = {"Cookie": f"tandem={await token_of(pair[0])}"}
    for path, headers in (
        ("/session", cookie | bearer("a.b.c")),
        ("/session", bearer("a.b.c")),
        (f"/session?uid={pair[1]}", cookie),
        (f"/session?uid={pair[1]}", {}),
    ):
        answer = await ask("GET", path, **headers)
        assert (answer.status, answer.data["user"], "Set-Cookie" in answer.headers) == (200, None, False)


@pytest.mark.parametrize("flags", [[], ["--auth=open"], ["--auth=token"]], ids=["local", "open", "token"])
@pytest.mark.parametrize("query", ["uid=x", "uid=", "uid=1&uid=1", "uid=0"])
async def test_a_session_by_a_malformed_uid(query: str, ask: Ask) -> None:
    """With a malformed `uid` the session has no user: a link may contain anything."""
    answer = await ask("GET", f"/session?{query}")
    assert (answer.status, answer.data["user"]) == (200, None)


BELIEVING = {"local": ["--max-content=100"], "open": ["--auth=open", "--max-content=100"]}


@pytest.mark.parametrize(("mode", "flags"), BELIEVING.items(), ids=BELIEVING)
async def test_a_session_where_uid_is_believed(
    mode: str, ask: Ask, token_of: TokenOf, people: Callable[[int], list[int]], database: pymysql.Connection
) -> None:
    """The session is that of `uid`, if any, and offers the first users to choose from."""
    one, *_ = people(60)
    with database.cursor() as cursor:
        cursor.execute("SELECT id FROM `user` WHERE status = 'active' AND deleted_at IS NULL ORDER BY id LIMIT 50")
        first = [row[0] for row in cursor.fetchall()]
    token = await token_of(one)
    for path, headers, user in (
        (f"/session?uid={one}", {}, one),
        ("/session", bearer(token), one),
        ("/session", {"Cookie": f"tandem={token}"}, one),
        (f"/session?uid={first[0]}", bearer(token), first[0]),
        ("/session?uid=4000000000", {}, None),
        ("/session", {}, None),
        ("/session", bearer("a.b.c"), None),
    ):
        answer = await ask("GET", path, **headers)
        assert (answer.status, answer.data["auth"], answer.data["max_content"]) == (200, mode, 100)
        assert user == (answer.data["user"] and answer.data["user"]["id"])
        assert first == [each["id"] for each in answer.data["users"]]
        assert all(list(each) == ["id", "user_name", "nick_name", "avatar"] for each in answer.data["users"])
    assert (await ask("GET", f"/session?uid={one}")).data["user"] == (await ask("GET", f"/user/me?uid={one}")).data


SLOWLY = ["--request-burst=3", "--request-rate=0.1"]


@pytest.mark.parametrize("flags", [["--auth=token", *SLOWLY], ["--auth=open", *SLOWLY]], ids=["token", "open"])
async def test_a_session_counts_as_a_request(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """`/session` counts as a request of its user, and is refused when there are too many; then others are too."""
    token = await token_of(pair[0])
    answers = await asyncio.gather(*(ask("GET", "/session", token=token) for _ in range(9)))
    assert {answer.status for answer in answers} == {200, 429}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 429)
    assert (await ask("GET", "/user/me", token=token)).status == 429
    assert (await ask("GET", "/session", token=await token_of(pair[1]))).status == 200


@pytest.mark.parametrize("flags", [["--auth=token"], ["--auth=open"]], ids=["token", "open"])
async def test_a_session_while_mysql_is_away(
    ask: Ask, http_server: Server, token_of: TokenOf, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is 503, since the caller is unknown and the cookie may be valid."""
    token = await token_of(pair[0])

    async def away(*_: object) -> None:
        raise StorageUnavailable("mysql", "away")

    monkeypatch.setattr(http_server.stores.mysql, "always", away)
    http_server.stores.users.forget(pair[0])
    answer = await ask("GET", "/session", Cookie=f"tandem={token}")
    assert (answer.status, "Set-Cookie" in answer.headers) == (503, False)


@pytest.mark.parametrize("flags", [["--auth=token", "--trusted-proxies=127.0.0.1"]])
async def test_a_session_behind_tls(ask: Ask, token_of: TokenOf, pair: Pair) -> None:
    """Only the cookie for TLS is read."""
    https = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "9.9.9.9"}
    token = await token_of(pair[0])
    for cookie, user in (("__Host-tandem", pair[0]), ("tandem", None)):
        answer = await ask("GET", "/session", Cookie=f"{cookie}={token}", **https)
        assert user == (answer.data["user"] and answer.data["user"]["id"])
