"""Tests of the outbox."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from clients.outbox import UNSURE, Outbox, RisingIds, carry_over, path_of, state_directory
from tests.support.processes import ROOT

LOG = "0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return path_of(tmp_path / "state" / "tandem", "https://chat.example:8443", LOG, 3)


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    outbox = Outbox(path, lambda: 1_700_000_000.0)
    yield outbox
    outbox.close()


def again(path: Path) -> list[tuple[str, int, str, str]]:
    """Return what another client finds in the file."""
    other = Outbox(path, lambda: 0.0)
    found = [tuple(pending) for pending in other]
    other.close()
    return found


def test_messages_in_their_order(outbox: Outbox, path: Path) -> None:
    """Added, marked and removed messages are in the file at once."""
    first, second, third = outbox.add(2, "one"), outbox.add(7, "two\n\x00"), outbox.add(2, "three")
    assert again(path) == [first, second, third]
    assert outbox.next(2) == first
    failed = outbox.mark(first.id, "refused")
    assert outbox.next(2) == third
    assert again(path) == [failed, second, third]
    outbox.remove(second.id)
    assert outbox.next(7) is None
    assert again(path) == [failed, third]
    outbox.mark(first.id, "")
    assert outbox.next(2) == first
    assert again(path) == [first, third]
    assert outbox.get(second.id) is None
    assert len(outbox) == 2
    assert first.time == 1_700_000_000_000


def test_other_users_may_not_read_it(outbox: Outbox, path: Path) -> None:
    """Neither the file nor the directory is open to others, also if they existed and were."""
    outbox.add(2, "secret")
    path.chmod(0o644)
    path.parent.chmod(0o755)
    again(path)
    assert [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()] == [0o600]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_it_survives_a_kill(path: Path) -> None:
    """A message is in the file if the client is killed right after it was added."""
    program = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from clients.outbox import UNSURE, Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]), time.time)\n"
        "for number in range(5): outbox.add(2, str(number))\n"
        "outbox.remove(next(iter(outbox)).id)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [content for _, _, content, _ in again(path)] == ["1", "2", "3", "4"]


def test_one_file_for_each_server_and_user(tmp_path: Path) -> None:
    """Each server and user has a file, whatever is in the server's address."""
    servers, logs = ("http://a/b", "http://a_b", "http://a"), (LOG, LOG[::-1], "")
    paths = {path_of(tmp_path, *each) for each in product(servers, logs, (1, 11))}
    assert len(paths) == 18
    assert all(path.parent == tmp_path for path in paths)


def test_an_outbox_of_before(tmp_path: Path) -> None:
    """An older outbox is taken over once, and none of it is sent by itself: the id may have been another user's."""
    owner = (tmp_path, "http://a", LOG, 3)
    assert not carry_over(*owner)
    old = Outbox(tmp_path / "http%3A%2F%2Fa.3.sqlite3", lambda: 1.0)
    old.add(2, "for whom?")
    old.close()
    assert carry_over(*owner)
    assert [(content, failed) for _, _, content, failed in again(path_of(*owner))] == [("for whom?", UNSURE)]
    assert not carry_over(*owner)
    assert again(path_of(tmp_path, "http://a", LOG[::-1], 3)) == []


def test_an_outbox_of_before_beside_one_of_now(tmp_path: Path) -> None:
    """An older outbox stays if there is a new one, and is not mixed with it."""
    owner = (tmp_path, "http://a", LOG, 3)
    Outbox(path_of(*owner), lambda: 1.0).close()
    Outbox(tmp_path / "http%3A%2F%2Fa.3.sqlite3", lambda: 1.0).close()
    assert not carry_over(*owner)


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """If neither the environment nor the system has a home directory, the error says what to set."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(OSError, match="set HOME or XDG_STATE_HOME"):
        state_directory({})


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path follows the XDG Base Directory Specification: a relative one counts as unset."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert state_directory({"XDG_STATE_HOME": "/elsewhere"}) == Path("/elsewhere/tandem")
    for environment in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "relative"}):
        assert state_directory(environment) == Path("/home/somebody/.local/state/tandem")


def test_ids_rise() -> None:
    """Ids rise within a millisecond, after the clock was set back, and above an id that exists."""
    now = [1000.0]
    ids = RisingIds(lambda: now[0])
    made = [ids.next() for _ in range(10_000)]
    now[0] = 900.0
    made += [ids.next() for _ in range(10)]
    made.append(RisingIds(lambda: now[0], made[-1]).next())
    now[0] = 2000.0
    made.append(ids.next())
    assert made == sorted(set(made))
    assert {(UUID(each).version, UUID(each).variant) for each in made} == {(7, "specified in RFC 4122")}
    assert UUID(made[0]).int >> 80 == 1_000_000
    assert UUID(made[-1]).int >> 80 == 2_000_000


def test_a_file_that_is_none(path: Path) -> None:
    """A file that is not an outbox is an error, and is left as it was."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Exception, match="not a database"):
        Outbox(path, lambda: 0.0)
    assert path.read_bytes().startswith(b"not a database")
    assert list(path.parent.iterdir()) == [path]
