"""People who chat: with the page, by roles and accessible names as people use them, or with a socket only."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from re import Pattern
from typing import Any, NamedTuple

import jwt
import requests
from playwright.sync_api import Locator, Page, expect
from pymongo import MongoClient
from websockets.sync.client import ClientConnection, connect

from models.records import Message, conversation_of
from storage.mongo.documents import documents_of
from tests.support.patience import PATIENCE
from tests.support.processes import TOKEN_SECRET
from tests.web.site import Account, Site, register
from tests.web.visitor import Visit, Visitor

OK = (50002, 50004, 50005)  # codes of successful answers
NEW = "New messages"
CONNECTING = "Connecting…"
CUT = 64  # requests in flight

expect.set_options(timeout=PATIENCE * 1000)


class Member(NamedTuple):
    """A user with an account and a token for it."""

    account: Account
    token: str

    @property
    def id(self) -> int:
        return self.account.id

    @property
    def name(self) -> str:
        return self.account.name

    @property
    def nick(self) -> str:
        return self.account.nick


def ask(site: Site, method: str, path: str, body: Any = None, token: str = "") -> Any:
    """Return the data of an HTTP answer of the site."""
    with requests.Session() as session:
        session.trust_env = False
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = session.request(method, site.url + path, json=body, headers=headers, timeout=PATIENCE)
        assert answer.ok, answer.text
        return answer.json()["data"]


def member(account: Account) -> Member:
    """Return an account with a token, made as a back end with the key makes one: signing in would take time."""
    now = int(time.time())
    claims = {"sub": str(account.id), "aud": "tandem", "iat": now, "exp": now + 3600, "jti": secrets.token_hex(8)}
    return Member(account, jwt.encode(claims, TOKEN_SECRET, "HS256"))


def members(site: Site, *nicks: str) -> list[Member]:
    """Register an account for each nick name, all at once, since hashing passwords takes time."""
    with ThreadPoolExecutor(len(nicks)) as executor:
        return [member(account) for account in executor.map(partial(register, site), nicks)]


class Voice:
    """A user without a page: a socket with all of the member's conversations, and the frames that it received.

    Its client blocks, since Playwright owns the event loop of these tests; that of tests/support needs the loop.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._ids = (f"{secrets.token_hex(4)}-{number}" for number in itertools.count())
        self._socket = socket
        self.heard: list[dict[str, Any]] = []
        assert self._frame()["code"] == 50002

    def say(self, peer: Member, *texts: str) -> None:
        """Send messages, and wait until they are stored."""
        for start in range(0, len(texts), CUT):
            asked = [self._write(1, to=str(peer.id), content=text) for text in texts[start : start + CUT]]
            for request in asked:
                answer = self._answer(request)
                assert answer["code"] in OK, answer

    def ask(self, kind: int, peer: Member, **fields: Any) -> dict[str, Any]:
        """Return the answer to a request of this type."""
        return self._answer(self._write(kind, to=str(peer.id), **fields))

    def history(self, peer: Member) -> list[str]:
        """Return the texts of the last hundred messages with a peer."""
        return [message["content"] for message in self.ask(2, peer, limit=100)["messages"]]

    def hears(self, code: int, **fields: Any) -> None:
        """Wait for a frame with this code and these fields."""
        expected = {"code": code, **fields}
        while not any(expected.items() <= frame.items() for frame in self.heard):
            self.heard.append(self._frame())

    def types(self, peer: Member) -> None:
        """Send that the user is typing, which has no answer."""
        self._socket.send(json.dumps({"type": 5, "to": str(peer.id)}))

    def _write(self, kind: int, **fields: Any) -> str:
        request = fields.setdefault("id", next(self._ids))
        self._socket.send(json.dumps({"type": kind, **fields}, ensure_ascii=False))
        return request

    def _answer(self, request: str) -> dict[str, Any]:
        while True:
            frame = self._frame()
            if frame["from"] == "" and frame.get("id") == request:
                return frame
            self.heard.append(frame)

    def _frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self._socket.recv(timeout=PATIENCE))
        return frame


@contextmanager
def voice(site: Site, member: Member) -> Iterator[Voice]:
    """Connect a member without a page."""
    headers = {"Authorization": f"Bearer {member.token}"}
    with connect(f"ws://127.0.0.1:{site.port}/ws?v=2&lang=en", additional_headers=headers, proxy=None) as socket:
        yield Voice(socket)


def acquainted(site: Site, one: Member, other: Member, *more: str) -> None:
    """Let two members exchange a message each, so that both may write freely; then the first sends `more`."""
    with voice(site, one) as first, voice(site, other) as second:
        first.say(other, "hello")
        second.say(one, "hi")
        for each, peer in ((first, other), (second, one)):
            each.ask(4, peer, read=2)
        first.say(other, *more)


def store(url: str, said: list[tuple[int, int, str, int]]) -> None:
    """Store a conversation directly in MongoDB: sender, recipient, text, and the age in milliseconds."""
    name = conversation_of(*said[0][:2])
    now = int(time.time() * 1000)
    run = [
        Message(sender, recipient, seq, now - ago, text, key=seq.to_bytes(16, "big"))
        for seq, (sender, recipient, text, ago) in enumerate(said, 1)
    ]
    both = len({message.sender for message in run}) > 1
    record = {"reserved": len(run), "base": 0, "based": now, "mutual": both}
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_database("tandem")
        database.conversations.insert_one({"_id": name, "users": list(said[0][:2]), **record})
        database.messages.insert_many(documents_of(run))


class Person:
    """A user at a page of the chat, in English."""

    def __init__(self, visitor: Visitor, member: Member, page: Page) -> None:
        self.visitor = visitor
        self.member = member
        self.page = page
        self.contacts = page.get_by_role("navigation", name="Conversations")
        self.search = page.get_by_role("searchbox", name="Find by user name")
        self.problem = page.get_by_role("alert")
        self.head = page.locator("header", has=page.get_by_role("heading", level=2))
        self.box = page.get_by_role("textbox", name="Message", exact=True)
        self.thread = page.get_by_role("region", name="Messages")
        self.jump = page.get_by_role("button", name="Jump to the newest")
        self.until = visitor.until

    def tab(self) -> Person:
        """Return the same user in another tab."""
        return Person(self.visitor, self.member, self.visitor.context.new_page()).enter()

    def enter(self, path: str = "/") -> Person:
        """Go to the page, and wait until it is connected."""
        self.page.goto(path)
        return self.connected()

    def connected(self) -> Person:
        """Wait for the list, which is read once there is a connection, or for the address's conversation."""
        here = self.contacts.get_by_role("link").or_(self.page.get_by_text("No conversations yet"))
        expect(here.or_(self.box).filter(visible=True).first).to_be_visible()
        return self

    # What the page shows

    def contact(self, peer: Member) -> Locator:
        """Return the peer's entry in the list."""
        return self.contacts.get_by_role("link", name=peer.nick)

    def bubble(self, text: str) -> Locator:
        """Return the message with exactly this text."""
        return self.thread.locator("li", has=self.page.get_by_text(text, exact=True))  # by role is slow among many

    def texts(self) -> list[str]:
        """Return all texts of the open conversation, pending ones included."""
        found: list[str] = self.thread.locator("[dir=auto]").evaluate_all("all => all.map(each => each.textContent)")
        return found

    def reads(self, *texts: str) -> None:
        """Wait until the open conversation has exactly these texts, once each and in this order."""
        try:
            self.until(lambda: self.texts() == list(texts))
        except AssertionError as error:
            raise AssertionError(f"{self.texts()} instead of {list(texts)}; {error}") from None

    def marked(self, text: str, mark: str | Pattern[str]) -> None:
        """Wait until the message has this mark, and no other."""
        expect(self.bubble(text).get_by_role("img")).to_have_accessible_name(mark)

    def titled(self, title: str) -> None:
        """Wait until the tab has this title."""
        expect(self.page).to_have_title(title)

    # What the user does

    def find(self, name: str) -> None:
        """Search a user by user name."""
        self.search.fill(name)
        self.search.press("Enter")

    def meet(self, peer: Member) -> Person:
        """Open a conversation with a user who may not be in the list yet."""
        self.find(peer.name)
        expect(self.page.get_by_role("heading", name=peer.nick)).to_be_visible()
        return self

    def open(self, peer: Member) -> Person:
        """Open a conversation from the list, and wait for its messages."""
        self.contact(peer).click()
        expect(self.page.get_by_role("heading", name=peer.nick)).to_be_visible()
        here = self.thread.locator("li").or_(self.thread.get_by_text("No messages yet"))
        expect(here.first).to_be_visible()
        return self

    def send(self, *texts: str) -> None:
        """Write messages, with Enter after each."""
        for text in texts:
            self.box.fill(text)
            self.box.press("Enter")

    def offline(self, now: bool = True) -> None:
        """Take the browser's network away, or bring it back."""
        self.visitor.context.set_offline(now)

    def notices(self, server_away: Callable[[], None]) -> None:
        """Expect the page to say that it connects after `server_away`; the browser logs errors about it too."""
        self.visitor.expect("ERR_(CONNECTION_|EMPTY_RESPONSE|INTERNET_DISCONNECTED)")
        server_away()
        expect(self.page.get_by_role("status").get_by_text(CONNECTING)).to_be_visible()

    def wake(self) -> None:
        """Let the browser report a network, so that the page reconnects at once."""
        # Waits for a page that has reconnected already and is reloading itself.
        self.page.wait_for_function("() => dispatchEvent(new Event('online'))")


def join(site: Site, visit: Visit, member: Member, path: str = "/", **options: Any) -> Person:
    """Open a page for a member, in a browser context of its own."""
    visitor = visit(site, **options)
    visitor.context.add_cookies([{"name": "tandem", "value": member.token, "url": site.url}])
    return Person(visitor, member, visitor.page).enter(path)


def couple(site: Site, visit: Visit, **options: Any) -> tuple[Person, Person]:
    """Return Ann and Bob, who have greeted each other, each at a page without an open conversation."""
    ann, bob = members(site, "Ann", "Bob")
    acquainted(site, ann, bob)
    return join(site, visit, ann, **options), join(site, visit, bob, **options)
