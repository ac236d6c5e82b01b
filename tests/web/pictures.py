"""Take the pictures of the documentation: `python -m tests.web.pictures [DIRECTORY]`, by default docs/images.

It starts databases and a server of its own, stores some users and their messages, and takes each picture at the same
time of day.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, expect

from tests.support.processes import ROOT, embedded_databases, external
from tests.web.people import Member, Person, members, store, voice
from tests.web.programs import browsing
from tests.web.site import Site
from tests.web.visitor import Visitor

DESKTOP = {"width": 1200, "height": 760}
PHONE = {"width": 390, "height": 844}
MINUTE = 60_000  # milliseconds
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ZONE = "UTC"

# Sender, text and age; the last line is the newest. "<" marks messages to the page's user.
TALKS: dict[str, list[tuple[int, str]]] = {
    "Mei": [
        (DAY + 3 * HOUR, "< Are you coming to the allotment on Saturday? We could plant the beans."),
        (DAY + 3 * HOUR - MINUTE, "> Yes! I'll bring the spade and some bread."),
        (DAY + 2 * HOUR, "< 太好了，那就说定了。"),
        (DAY + 2 * HOUR - MINUTE, "< 🌱"),
        (96 * MINUTE, "> Rain is forecast until noon: https://weather.example/saturday"),
        (95 * MINUTE, "> Shall we say two o'clock?"),
        (61 * MINUTE, "< Two is fine. Omar wants to join, he wrote: «إن شاء الله، سأحضر الشاي»"),
        (60 * MINUTE, "> Tea is always welcome 🫖"),
        (9 * MINUTE, "< What I still have to buy:\n– string\n– seed potatoes\n– a new watering can, the old one leaks"),
        (8 * MINUTE, "> I have string. Leave the watering can to me, there is one in the cellar."),
        (3 * MINUTE, "< Perfect. See you on Saturday!"),
    ],
    "Omar": [(5 * HOUR, "> هل تأتي يوم السبت؟"), (40 * MINUTE, "< نعم، بكل سرور"), (39 * MINUTE, "< 🫖🫖")],
    "小红": [(2 * HOUR, "> 照片收到了吗？"), (70 * MINUTE, "< 收到了，拍得真好！")],
    "Jonas": [(4 * HOUR, "< The train is late again"), (3 * HOUR, "> No hurry, I have a book.")],
    "Priya": [(DAY + 5 * HOUR, "< Here is the recipe: https://recipes.example/dal"), (DAY + 4 * HOUR, "> 😍")],
    "Hanna": [
        (22 * MINUTE, "> Hello Hanna, we met at the seed swap."),
        (21 * MINUTE, "> You asked for the tomato seeds 🍅"),
        (21 * MINUTE, "> I have some left."),
    ],
    "Lucía": [(3 * DAY, "> Happy birthday! 🎂"), (3 * DAY - HOUR, "< Thank you!!")],
}
UNREAD = {"Omar": 2, "小红": 1}  # unread messages at the end
SILENT = "Hanna"  # has not been online since
ONLINE = ("Mei", "小红", "Jonas")


class Scene(NamedTuple):
    """A server with users who have chatted, the time of the pictures, and a browser."""

    site: Site
    browser: Browser
    now: datetime.datetime
    me: Member
    peers: dict[str, Member]


@contextmanager
def scene() -> Iterator[Scene]:
    """Prepare all users and messages of the pictures."""
    # Today, so that no message has expired, at a time late enough for the earlier messages.
    now = datetime.datetime.now(datetime.UTC).replace(hour=10, minute=24, second=0, microsecond=0)
    if now > datetime.datetime.now(datetime.UTC):
        now -= datetime.timedelta(days=1)
    with ExitStack() as stack:
        addresses = stack.enter_context(embedded_databases()).addresses
        site = Site(*external(addresses), "--auth=token")
        stack.callback(site.discard)
        since = int((datetime.datetime.now(datetime.UTC) - now).total_seconds() * 1000)
        # One after the other, since a portrait's colour comes from the id.
        me, *others = (member for nick in ("Ann", *TALKS) for member in members(site, nick))
        peers = {other.nick: other for other in others}
        for nick, lines in TALKS.items():
            who = {">": (me.id, peers[nick].id), "<": (peers[nick].id, me.id)}
            store(addresses.mongo, [(*who[line[0]], line[2:], since + ago) for ago, line in lines])
            for reader, peer, unread in ((me, peers[nick], UNREAD.get(nick, 0)), (peers[nick], me, 0)):
                if nick != SILENT:
                    with voice(site, reader) as each:
                        each.ask(4, peer, read=len(lines) - unread)
        browser = stack.enter_context(browsing())
        yield Scene(site, browser, now, me, peers)


@contextmanager
def at_page(scene: Scene, viewport: dict[str, int], **options: Any) -> Iterator[Person]:
    """Open the page as its user, with a stopped clock and with friends online."""
    visitor = Visitor(scene.browser, scene.site.url, viewport=viewport, timezone_id=ZONE, **options)
    visitor.context.add_cookies([{"name": "tandem", "value": scene.me.token, "url": scene.site.url}])
    visitor.page.clock.set_fixed_time(scene.now)
    with ExitStack() as stack:
        for nick in ONLINE:
            stack.enter_context(voice(scene.site, scene.peers[nick]))
        yield Person(visitor, scene.me, visitor.page).enter()
        visitor.context.close()


def take(page: Page, path: Path) -> None:
    """Write a picture, without blinking or moving parts."""
    page.mouse.move(0, 0)
    page.screenshot(path=path, animations="disabled", caret="hide")


def pictures(scene: Scene, directory: Path) -> None:
    """Take all pictures."""
    mei = scene.peers["Mei"]
    for name, scheme in (("page-desktop", "light"), ("page-desktop-dark", "dark")):
        with at_page(scene, DESKTOP, color_scheme=scheme) as ann:
            ann.open(mei)
            expect(ann.head).to_contain_text("online")
            ann.box.blur()
            take(ann.page, directory / f"{name}.png")
    with at_page(scene, PHONE, device_scale_factor=1.5, color_scheme="dark") as ann:  # otherwise the file is large
        ann.open(mei)
        expect(ann.head).to_contain_text("online")
        ann.box.blur()
        take(ann.page, directory / "page-phone-dark.png")
    with at_page(scene, PHONE, device_scale_factor=2) as ann:
        expect(ann.contact(mei)).to_contain_text("online")
        take(ann.page, directory / "page-phone-list.png")
    sign_in(scene, directory / "page-sign-in.png")
    limit(scene, directory / "page-limit.png")
    reconnecting(scene, directory / "page-reconnecting.png")


def sign_in(scene: Scene, path: Path) -> None:
    """Take the form, filled in by a new user."""
    visitor = Visitor(scene.browser, scene.site.url, viewport={"width": 640, "height": 560})
    page = visitor.page
    page.goto("/")
    page.get_by_role("button", name="Sign up").click()
    for label, value in (("User name", "annika"), ("Nickname", "Ann"), ("Password", "at-least-8-bytes")):
        page.get_by_label(label).fill(value)
    page.get_by_label("Password").blur()
    take(page, path)
    visitor.context.close()


def limit(scene: Scene, path: Path) -> None:
    """Take a fourth message to a user who has not answered."""
    with at_page(scene, {"width": 900, "height": 560}) as ann:
        ann.open(scene.peers[SILENT])
        ann.send("Shall I send them to you?")
        expect(ann.page.get_by_role("button", name="Send again")).to_be_visible()
        ann.box.blur()
        take(ann.page, path)


def reconnecting(scene: Scene, path: Path) -> None:
    """Take the page while the server is away and a message is pending."""
    with at_page(scene, {"width": 900, "height": 560}) as ann:
        ann.open(scene.peers["Mei"])
        ann.notices(scene.site.kill)
        ann.send("I'll be there at two.")
        ann.marked("I'll be there at two.", "waiting to be sent")
        ann.box.blur()
        take(ann.page, path)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    where.mkdir(parents=True, exist_ok=True)
    with scene() as everything:
        pictures(everything, where)
