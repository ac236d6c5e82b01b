"""Tests of what is logged when a database becomes unavailable, available, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from models.errors import DatabaseReadOnly, DatabaseRefused, NameTaken, StorageUnavailable
from storage.outages import QUIET, REPEAT, Outages
from tests.support.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the outages."""
    return ManualClock()


@pytest.fixture
def outages(clock: ManualClock) -> Outages:
    """The outages of a database."""
    return Outages("mysql", clock)


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log's entries."""
    with capture_logs() as lines:
        yield lines


def answer(outages: Outages) -> None:
    with outages.watch():
        pass


def fail(outages: Outages, error: Exception, *, complete: bool = False) -> None:
    with pytest.raises(type(error)), outages.watch(complete=complete):
        raise error


def succeed(outages: Outages) -> None:
    with outages.watch(complete=True):
        pass


AWAY = StorageUnavailable("mysql", "connection refused")
FULL = DatabaseRefused("redis", "memory", "OOM")


def test_an_outage_is_logged_once_with_its_cause_and_once_when_it_ends(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """An outage is logged once with its cause and once at its end, however many calls fail or succeed."""
    answer(outages)
    for _ in range(3):
        fail(outages, AWAY)
    assert outages.away
    fail(outages, StorageUnavailable("mysql", "no answer in time"))
    clock.now = 3.5
    for _ in range(3):
        answer(outages)
    assert not outages.away
    assert logs == [
        {
            "event": "outage_began",
            "log_level": "warning",
            "database": "mysql",
            "reason": "mysql: connection refused",
        },
        {"event": "outage_ended", "log_level": "warning", "database": "mysql", "seconds": 3.5},
    ]


def test_an_answer_to_an_earlier_call_does_not_end_an_outage(
    outages: Outages, logs: list[MutableMapping[str, Any]]
) -> None:
    """An answer to a call that began before the last error does not end the outage."""
    with outages.watch():
        fail(outages, AWAY)
    assert outages.away
    answer(outages)
    assert [line["event"] for line in logs] == ["outage_began", "outage_ended"]


def test_a_database_that_comes_and_goes_does_not_fill_the_log(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """An outage soon after the last one is logged only if it goes on."""
    for _ in range(100):
        fail(outages, AWAY)
        answer(outages)
    assert len(logs) == 2
    fail(outages, AWAY)
    clock.now = QUIET
    fail(outages, AWAY)
    clock.now = QUIET + 1
    answer(outages)
    assert [line["event"] for line in logs] == ["outage_began", "outage_ended"] * 2
    assert logs[-1]["seconds"] == QUIET + 1


def test_what_a_database_refuses_is_no_outage(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """A refusal is logged as an error, once in a while for each kind, and is not an outage."""
    fail(outages, AWAY)
    refused = DatabaseRefused("mysql", "UPDATE command denied", "1142")
    for _ in range(3):
        fail(outages, refused)
    assert not outages.away
    fail(outages, DatabaseRefused("mysql", "no default value", "1364"))
    clock.now = REPEAT
    fail(outages, refused)
    assert [line["reason"] for line in logs if line["event"] == "database_refused"] == [
        "mysql: UPDATE command denied",
        "mysql: no default value",
        "mysql: UPDATE command denied",
    ]
    assert {line["log_level"] for line in logs if line["event"] == "database_refused"} == {"error"}


def test_a_database_that_takes_no_writes(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """A database that is read-only is logged once, until a call that writes succeeds, and is no outage."""
    for _ in range(3):
        fail(outages, DatabaseReadOnly("mysql", "the server is read-only"))
        answer(outages)
        assert not outages.away
    clock.now = 2
    with outages.watch(writes=True):
        pass
    assert logs == [
        {
            "event": "read_only_began",
            "log_level": "warning",
            "database": "mysql",
            "reason": "mysql: the server is read-only",
        },
        {"event": "read_only_ended", "log_level": "warning", "database": "mysql", "seconds": 2},
    ]


def test_a_refusal_that_lasts_is_logged_once_and_once_when_it_ends(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """What a complete call is refused is logged once, however long it lasts, and once when a complete call succeeds."""
    fail(outages, FULL)  # a request, before the first check
    clock.now = 1
    for _ in range(3):
        fail(outages, FULL, complete=True)
        fail(outages, FULL)
        answer(outages)
        clock.now += REPEAT
    for _ in range(2):
        succeed(outages)
    assert [line["event"] for line in logs] == ["database_refused", "refusal_ended"]
    assert logs[-1]["seconds"] == 3 * REPEAT


def test_a_refusal_that_comes_and_goes_does_not_fill_the_log(
    outages: Outages, clock: ManualClock, logs: list[MutableMapping[str, Any]]
) -> None:
    """A refusal soon after the last one is logged only if it goes on."""
    for _ in range(100):
        fail(outages, FULL, complete=True)
        succeed(outages)
    assert len(logs) == 2
    fail(outages, FULL, complete=True)
    clock.now = QUIET
    fail(outages, FULL, complete=True)
    succeed(outages)
    assert [line["event"] for line in logs] == ["database_refused", "refusal_ended"] * 2


def test_a_check_that_began_before_a_refusal(outages: Outages, logs: list[MutableMapping[str, Any]]) -> None:
    """A check that was in progress when a call was refused does not end the refusal."""
    fail(outages, FULL, complete=True)
    with outages.watch(complete=True):
        fail(outages, FULL)
    assert [line["event"] for line in logs] == ["database_refused"]
    succeed(outages)
    assert [line["event"] for line in logs] == ["database_refused", "refusal_ended"]


@pytest.mark.parametrize(("error", "away"), [(NameTaken("x"), False), (asyncio.CancelledError(), True)])
def test_refusals_and_cancelled_calls(error: BaseException, away: bool, outages: Outages) -> None:
    """An error such as NameTaken ends an outage, since the database has answered; a cancelled call does not."""
    fail(outages, AWAY)
    with pytest.raises(type(error)), outages.watch():
        raise error
    assert outages.away is away
