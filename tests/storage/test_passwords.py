"""Passwords: digests, the work that each check takes, and the threads that do it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import bcrypt
import pytest
from tornado.ioloop import IOLoop

from models.errors import EngineUnavailable
from storage.passwords import COST, NICENESS, Passwords
from tests.patience import PATIENCE
from tests.sockets import until

OWN = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())  # the main thread's niceness, before any test

# What golang.org/x/crypto/bcrypt makes of "allmine".
FROM_GO = "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga"

NO_DIGESTS = [
    None,
    "",
    "!",
    "$2a$12$x",
    "$2a$99$" + "a" * 53,
    "$2a$03$" + "." * 53,
    "$1$04$" + "." * 53,
    "$2a$04$" + "." * 53 + "\n",
    "$2a$04$" + "9" * 53,  # the salt's last character has bits too many
    "字",
]


@pytest.fixture
def passwords(io_loop: IOLoop) -> Iterator[Passwords]:
    """One thread, and one more caller that waits for it."""
    store = Passwords(1, 1, PATIENCE, cost=6)
    yield store
    io_loop.run_sync(store.close)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of each hash that is made, while it is made as ever."""
    made: list[int] = []
    hashpw, checkpw = bcrypt.hashpw, bcrypt.checkpw

    def hashing(password: bytes, salt: bytes) -> bytes:
        made.append(2 ** int(salt.split(b"$")[2]))
        return hashpw(password, salt)

    def checking(password: bytes, digest: bytes) -> bool:
        matches = checkpw(password, digest)  # what raises has made no hash
        made.append(2 ** int(digest.split(b"$")[2]))
        return matches

    monkeypatch.setattr(bcrypt, "hashpw", hashing)
    monkeypatch.setattr(bcrypt, "checkpw", checking)
    return made


async def test_a_digest_is_its_password_s(passwords: Passwords) -> None:
    """And no other's; never the same twice."""
    one, other = await passwords.digest(b"password"), await passwords.digest(b"password")
    assert one != other
    assert one.startswith("$2b$06$")
    assert await passwords.matches(b"password", one)
    assert not await passwords.matches(b"passwor", one)


async def test_the_cost_unless_another_is_told(rounds: list[int]) -> None:
    """Is that of gin-chat-demo."""
    passwords = Passwords(1, 1, PATIENCE)
    assert (await passwords.digest(b"password")).startswith("$2b$12$")
    assert rounds == [2**COST]
    await passwords.close()


async def test_a_digest_that_go_made(passwords: Passwords) -> None:
    """Is as good as our own."""
    assert await passwords.matches(b"allmine", FROM_GO)
    assert not await passwords.matches(b"allmines", FROM_GO)


async def test_all_of_a_password_counts(passwords: Passwords) -> None:
    """Up to 72 bytes."""
    digest = await passwords.digest(b"a" * 72)
    assert await passwords.matches(b"a" * 72, digest)
    assert not await passwords.matches(b"a" * 71 + b"b", digest)


@pytest.mark.parametrize("cost", [4, 5, 6])
@pytest.mark.parametrize("password", [b"password", b"another one"])
async def test_a_lower_cost_takes_the_same_work(
    passwords: Passwords, rounds: list[int], cost: int, password: bytes
) -> None:
    """Whether the password is right or not: time tells nothing about the account."""
    digest = bcrypt.hashpw(b"password", bcrypt.gensalt(cost)).decode()
    rounds.clear()
    assert await passwords.matches(password, digest) == (password == b"password")
    assert sum(rounds) == 2**6


@pytest.mark.parametrize("digest", NO_DIGESTS)
async def test_no_digest_takes_the_same_work(passwords: Passwords, rounds: list[int], digest: str | None) -> None:
    """And is nobody's."""
    assert not await passwords.matches(b"password", digest)
    assert sum(rounds) == 2**6


async def test_waiting_is_bounded(passwords: Passwords) -> None:
    """Who would wait too long is refused at once; when the others are done there is room again."""
    outcomes = await asyncio.gather(*(passwords.matches(b"", None) for _ in range(5)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, EngineUnavailable)]
    assert [outcome for outcome in outcomes if outcome not in refused] == [False, False]
    assert len(refused) == 3
    assert not await passwords.matches(b"", None)


async def test_the_threads_yield_to_others(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run at the lowest priority, the main thread at its own."""
    seen: list[tuple[str, int]] = []

    def looking(password: bytes, salt: bytes) -> bytes:
        thread = threading.current_thread()
        seen.append((thread.name.partition("_")[0], os.getpriority(os.PRIO_PROCESS, thread.native_id)))
        return b""

    monkeypatch.setattr(bcrypt, "hashpw", looking)
    await passwords.digest(b"password")
    assert seen == [("password", NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == OWN


async def test_closing_ends_the_threads(passwords: Passwords) -> None:
    """None is left."""
    await passwords.digest(b"password")
    await passwords.close()
    await until(lambda: not any(thread.name.startswith("password") for thread in threading.enumerate()))


async def test_not_in_time(io_loop: IOLoop) -> None:
    """Whoever waits for too long is told so; the threads lose nothing by it."""
    store, go_on = Passwords(1, 1, 0.01, cost=4), threading.Event()
    store._executor.submit(go_on.wait)
    with pytest.raises(EngineUnavailable, match="in time"):
        await store.digest(b"password")
    go_on.set()
    store._timeout = PATIENCE
    assert await store.digest(b"password")
    await store.close()
