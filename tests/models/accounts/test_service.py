"""Tests of accounts: the order of the steps, and what counts as an attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.accounts.ports import Rule
from models.accounts.service import Accounts, Registration
from models.errors import Forbidden, StorageUnavailable, TooFast, Unauthenticated
from models.records import Identity, User
from tests.support.accounts import RecordedAccounts

USER = User(7, "Name", "nick", "", "", "active", 0)


@pytest.fixture
def fake() -> RecordedAccounts:
    return RecordedAccounts(USER)


@pytest.fixture
def accounts(fake: RecordedAccounts) -> Accounts:
    """Accounts that record the users whose sockets have to be checked."""
    return fake.accounts


async def test_signing_in(accounts: Accounts, fake: RecordedAccounts) -> None:
    """Attempts are counted by address and by account before the password is checked, and forgiven if it was right."""
    assert await accounts.sign_in("1.1.1.1", "NAME", b"right") == (USER, "token")
    steps = [("ADDRESS", "1.1.1.1"), ("ACCOUNT", "7"), "matches", ("confirm", "digest"), ("forgive", "7")]
    assert fake.steps == steps


@pytest.mark.parametrize(("name", "subject", "digest"), [("name", "7", "digest"), ("Nobody", "name nobody", "")])
async def test_what_is_wrong_is_not_told(
    name: str, subject: str, digest: str, accounts: Accounts, fake: RecordedAccounts
) -> None:
    """A wrong password and an unknown name take the same steps and give the same answer."""
    with pytest.raises(Unauthenticated, match=r"^the user name or the password is wrong$"):
        await accounts.sign_in("1.1.1.1", name, b"wrong")
    assert fake.steps == [("ADDRESS", "1.1.1.1"), ("ACCOUNT", subject), "matches", ("confirm", digest)]


@pytest.mark.parametrize("rule", [Rule.ADDRESS, Rule.ACCOUNT])
async def test_too_many_attempts(rule: Rule, accounts: Accounts, fake: RecordedAccounts) -> None:
    """After too many attempts no password is checked, not even the right one."""
    fake.attempts.full = {rule}
    with pytest.raises(TooFast):
        await accounts.sign_in("1.1.1.1", "name", b"right")
    assert "matches" not in fake.steps


async def test_registering(accounts: Accounts, fake: RecordedAccounts) -> None:
    """Registrations are counted by address."""
    await accounts.register("1.1.1.1", "name", "nick", b"password")
    assert fake.steps == [("REGISTRATION", "1.1.1.1"), "register"]


@pytest.mark.parametrize(
    ("registration", "issues", "reason"),
    [
        (Registration.AUTO, True, None),
        (Registration.AUTO, False, "tokens are issued elsewhere"),
        (Registration.ON, False, None),
        (Registration.OFF, True, "registration is turned off"),
        (Registration.OFF, False, "registration is turned off"),
    ],
)
async def test_who_can_register(registration: Registration, issues: bool, reason: str | None) -> None:
    """Registration is refused if tokens are issued elsewhere, and a refusal counts nothing."""
    fake = RecordedAccounts(USER, registration)
    fake.tokens.issues, accounts = issues, fake.accounts
    assert accounts.open_to_all is (reason is None)
    if reason is None:
        await accounts.register("1.1.1.1", "name", "nick", b"password")
        return
    with pytest.raises(Forbidden, match=reason):
        await accounts.register("1.1.1.1", "name", "nick", b"password")
    assert fake.steps == []


async def test_where_tokens_come_from_elsewhere(accounts: Accounts, fake: RecordedAccounts) -> None:
    """If tokens are issued elsewhere, no password can be tried."""
    fake.tokens.issues = False
    with pytest.raises(Forbidden):
        await accounts.sign_in("1.1.1.1", "name", b"right")
    assert fake.steps == []
    assert await accounts.change_password("1.1.1.1", 7, b"right", b"new") == (USER, None)


async def test_changing_and_deleting(accounts: Accounts, fake: RecordedAccounts) -> None:
    """Changing and deleting need the password, count as attempts even if it is right, and have the sockets checked."""
    checked = [("ADDRESS", "1.1.1.1"), ("CONFIRMATION", "7"), "matches"]
    await accounts.change_password("1.1.1.1", 7, b"right", b"new password")
    assert fake.steps == [*checked, "set_password", ("changed", 7), ("confirm", "new digest")]
    fake.steps.clear()
    await accounts.delete("1.1.1.1", 7, b"right")
    assert fake.steps == [*checked, "erase", ("changed", 7)]
    fake.steps.clear()
    for attempt in (
        accounts.change_password("1.1.1.1", 7, b"wrong", b"new password"),
        accounts.delete("1.1.1.1", 7, b"wrong"),
    ):
        with pytest.raises(Forbidden):
            await attempt
    assert fake.steps == checked * 2


ATTEMPTS = {
    "signing in": lambda accounts: accounts.sign_in("1.1.1.1", "name", b"right"),
    "changing": lambda accounts: accounts.change_password("1.1.1.1", 7, b"right", b"another"),
    "deleting": lambda accounts: accounts.delete("1.1.1.1", 7, b"right"),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_a_password_that_was_changed_meanwhile(
    attempt: Callable[..., Any], accounts: Accounts, fake: RecordedAccounts
) -> None:
    """A password that was changed while the old one was in the queue makes the old one invalid."""
    fake.store.meanwhile = lambda: setattr(fake.store, "digest", "of the owner's new password")
    with pytest.raises((Unauthenticated, Forbidden)):
        await attempt(accounts)
    assert fake.store.digest == "of the owner's new password"


ALL = ATTEMPTS | {"registering": lambda accounts: accounts.register("1.1.1.1", "name", "nick", b"password")}


@pytest.mark.parametrize("attempt", ALL.values(), ids=ALL)
async def test_when_too_many_wait(attempt: Callable[..., Any], accounts: Accounts, fake: RecordedAccounts) -> None:
    """A full queue refuses before anything is counted, so retries do not use up attempts."""
    fake.store.busy = True
    with pytest.raises(StorageUnavailable):
        await attempt(accounts)
    assert fake.steps == []


async def test_signing_out_needs_a_token(accounts: Accounts, fake: RecordedAccounts) -> None:
    """A caller whose `uid` is believed has no token to end."""
    await accounts.sign_out(Identity(7, b"session"))
    assert fake.steps == ["sign_out", ("changed", 7)]
    with pytest.raises(Unauthenticated):
        await accounts.sign_out(Identity(7))
