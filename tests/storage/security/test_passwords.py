"""Tests of passwords: digests, the work of each check, and the threads that do it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

import bcrypt
import pytest
from tornado.ioloop import IOLoop

from models.accounts.passwords import prepared
from models.errors import Overloaded
from storage.security.passwords import COST, NICENESS, Passwords
from tests.support.patience import PATIENCE
from tests.support.processes import ROOT
from tests.support.sockets import until

OWN = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())  # the main thread's niceness, before any test

# The digest of "allmine" by golang.org/x/crypto/bcrypt.
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
    "$2a$04$" + "9" * 53,  # the salt's last character has too many bits
    "字",
]


@pytest.fixture
def passwords(io_loop: IOLoop) -> Iterator[Passwords]:
    """Passwords with one thread, and a queue of one caller."""
    store = Passwords(1, 1, PATIENCE, cost=6, patience=PATIENCE)
    yield store
    io_loop.run_sync(store.close)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of each hash that is made, while bcrypt works as usual."""
    made: list[int] = []
    hashpw, checkpw = bcrypt.hashpw, bcrypt.checkpw

    def hashing(password: bytes, salt: bytes) -> bytes:
        made.append(2 ** int(salt.split(b"$")[2]))
        return hashpw(password, salt)

    def checking(password: bytes, digest: bytes) -> bool:
        matches = checkpw(password, digest)  # raises before a hash is made
        made.append(2 ** int(digest.split(b"$")[2]))
        return matches

    monkeypatch.setattr(bcrypt, "hashpw", hashing)
    monkeypatch.setattr(bcrypt, "checkpw", checking)
    return made


async def test_a_digest_is_its_password_s(passwords: Passwords) -> None:
    """A digest matches its password and no other, and two digests of a password differ."""
    one, other = await passwords.digest(b"password"), await passwords.digest(b"password")
    assert one != other
    assert one.startswith("$2b$06$")
    assert await passwords.matches(b"password", one)
    assert not await passwords.matches(b"passwor", one)


async def test_the_cost_unless_another_is_told(rounds: list[int]) -> None:
    """The default cost is gin-chat-demo's."""
    passwords = Passwords(1, 1, PATIENCE, patience=PATIENCE)
    assert (await passwords.digest(b"password")).startswith("$2b$12$")
    assert rounds == [2**COST]
    await passwords.close()


async def test_a_digest_that_go_made(passwords: Passwords) -> None:
    """A digest from Go's bcrypt matches."""
    assert await passwords.matches(b"allmine", FROM_GO)
    assert not await passwords.matches(b"allmines", FROM_GO)


async def test_all_of_a_password_counts(passwords: Passwords) -> None:
    """All characters of a password count, up to 72 bytes."""
    digest = await passwords.digest(b"a" * 72)
    assert await passwords.matches(b"a" * 72, digest)
    assert not await passwords.matches(b"a" * 71 + b"b", digest)


@pytest.mark.parametrize("cost", [4, 5, 6])
@pytest.mark.parametrize("password", [b"password", b"another one"])
async def test_a_lower_cost_takes_the_same_work(
    passwords: Passwords, rounds: list[int], cost: int, password: bytes
) -> None:
    """Checking a digest of a lower cost takes the same work, whether the password is right or not."""
    digest = bcrypt.hashpw(b"password", bcrypt.gensalt(cost)).decode()
    rounds.clear()
    assert await passwords.matches(password, digest) == (password == b"password")
    assert sum(rounds) == 2**6


@pytest.mark.parametrize("digest", NO_DIGESTS)
async def test_no_digest_takes_the_same_work(passwords: Passwords, rounds: list[int], digest: str | None) -> None:
    """Without a valid digest no password matches, and the check takes the same work."""
    assert not await passwords.matches(b"password", digest)
    assert sum(rounds) == 2**6


async def test_waiting_is_bounded(passwords: Passwords) -> None:
    """A call is refused at once if the queue is full, and accepted when it is not."""
    outcomes = await asyncio.gather(*(passwords.matches(b"", None) for _ in range(5)), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert [outcome for outcome in outcomes if outcome not in refused] == [False, False]
    assert len(refused) == 3
    assert not await passwords.matches(b"", None)


async def test_the_threads_yield_to_others(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads run at the lowest priority, and the main thread at its own."""
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
    """After `close` no thread is left."""
    await passwords.digest(b"password")
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("password")]
    assert threads
    await passwords.close()
    await until(lambda: not any(thread.is_alive() for thread in threads))


class Stuck(threading.Event):
    """Threads of low priority go on once it is set; `seen` has the niceness of the thread of each hash."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []


@pytest.fixture
def stuck(io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """Block threads of low priority until the event is set, as a busy machine does."""
    go_on, hashpw = Stuck(), bcrypt.hashpw

    def starving(password: bytes, salt: bytes) -> bytes:
        go_on.seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if go_on.seen[-1] == NICENESS:
            go_on.wait()
        return hashpw(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", starving)
    yield go_on
    go_on.set()


async def test_not_in_time(stuck: Stuck) -> None:
    """A caller that waits too long gets an error that says so, and the threads go on."""
    store = Passwords(1, 1, 0.01, cost=4)
    for _ in range(3):
        with pytest.raises(Overloaded, match="this machine is too busy"):
            await store.digest(b"password")
    stuck.set()
    digest = ""
    async with asyncio.timeout(PATIENCE):
        while not digest:
            with suppress(Overloaded):
                digest = await store.digest(b"password")
    await store.close()


async def test_a_machine_that_others_keep_busy(stuck: Stuck) -> None:
    """A job that a thread of low priority does not finish in time gets ordinary priority, as do jobs behind it."""
    store = Passwords(1, 16, PATIENCE, cost=4, patience=0.05)
    digests = await asyncio.gather(*(store.digest(b"password") for _ in range(10)))
    assert len(set(digests)) == 10
    assert not stuck.is_set()
    stuck.set()
    async with asyncio.timeout(PATIENCE):
        digest = await store.digest(b"password")
        while stuck.seen[-1] != NICENESS:  # until the thread of low priority is free again
            digest = await store.digest(b"password")
    assert await store.matches(b"password", digest)
    await store.close()


async def test_a_storm_alone_gets_no_haste(io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the threads of low priority make progress, queued jobs wait for them, since messages go before sign-ins."""
    seen: set[int] = set()

    def looking(password: bytes, salt: bytes) -> bytes:
        seen.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return b""

    monkeypatch.setattr(bcrypt, "hashpw", looking)
    store = Passwords(1, 1000, PATIENCE, cost=6, patience=PATIENCE)
    await asyncio.gather(*(store.digest(b"password") for _ in range(500)))
    assert seen == {NICENESS}
    await store.close()


async def test_cancelled_callers(stuck: Stuck) -> None:
    """A cancelled caller leaves the queue, and its job is not begun."""
    store = Passwords(1, 5, PATIENCE, cost=4, patience=60)
    asked = [asyncio.ensure_future(store.digest(b"password")) for _ in range(6)]
    await until(lambda: store.busy)
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert not store.busy
    stuck.set()
    assert await store.digest(b"password")
    assert len(stuck.seen) == 2  # the first of those that were cancelled had begun
    await store.close()


async def test_closing_while_callers_wait(stuck: Stuck) -> None:
    """Callers that wait at `close` are told that the server is going away, even if their job had begun."""
    store = Passwords(1, 2, PATIENCE, cost=4, patience=60)
    asked = [asyncio.ensure_future(store.digest(b"password")) for _ in range(3)]
    await until(lambda: store.busy)
    await store.close()
    for outcome in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(outcome, Overloaded)
        assert "going away" in str(outcome)
    with pytest.raises(Overloaded, match="going away"):
        await store.digest(b"password")


NFC, NFD = unicodedata.normalize("NFC", "Pässwörter"), unicodedata.normalize("NFD", "Pässwörter")


async def test_a_password_from_any_keyboard(passwords: Passwords) -> None:
    """A letter typed as one character or two, and spaces of any kind, give the same password."""
    for one, other in ((NFC, NFD), (NFD, NFC), ("한국어 암호", unicodedata.normalize("NFD", "한국어\u00a0암호"))):
        digest = await passwords.digest(one.encode())
        assert await passwords.matches(one.encode(), digest)
        assert await passwords.matches(other.encode(), digest)
        assert bcrypt.checkpw(prepared(one).encode(), digest.encode())


async def test_a_password_hashed_before_normalization(passwords: Passwords) -> None:
    """A password that was hashed as it was typed matches when it is typed so again."""
    for typed in (NFC, NFD, "two\u00a0words", "two\u3000words"):
        digest = bcrypt.hashpw(typed.encode(), bcrypt.gensalt(4)).decode()
        assert await passwords.matches(typed.encode(), digest)
        assert not await passwords.matches((typed + "x").encode(), digest)


async def test_the_second_form_takes_the_same_work_for_all(passwords: Passwords, rounds: list[int]) -> None:
    """The second form takes the same work for names without an account, and ordinary passwords are hashed once."""
    digest = bcrypt.hashpw(b"another one", bcrypt.gensalt(6)).decode()
    for password, hashes in ((NFD, 2), (NFC, 1), ("ascii", 1)):
        for given in (digest, None):
            rounds.clear()
            assert not await passwords.matches(password.encode(), given)
            assert sum(rounds) == hashes * 2**6


# Ends while a hash is in progress, and lets the thread return to Python while the interpreter is being finalized.
ENDING_BESIDE_A_HASH = """
import asyncio, os, sys, threading, time
from storage.security.passwords import Passwords, end_beside_hashes

class Finalized:
    def __init__(self, thread):
        self.task = f"/proc/self/task/{thread}"
    def __del__(self, exists=os.path.exists, sleep=time.sleep):
        while exists(self.task):
            sleep(0.01)

async def main():
    passwords = Passwords(1, 10, 60)
    hashing = asyncio.create_task(passwords.digest(b"a password"))
    while not (threads := [each for each in threading.enumerate() if each.name.startswith("password")]):
        assert not hashing.done(), hashing
        await asyncio.sleep(0)
    await passwords.close()
    await asyncio.gather(hashing, return_exceptions=True)
    return threads[0].native_id

finalized = Finalized(asyncio.run(main()))
end_beside_hashes(3)
"""


def test_the_process_ends_while_a_hash_is_in_progress() -> None:
    """The process ends with its status, and is not aborted."""
    ended = subprocess.run(
        [sys.executable, "-c", ENDING_BESIDE_A_HASH], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stderr) == (3, "")
