"""Accounts: the order of the steps, and what counts as an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from models.account_ports import Found, Rule
from models.accounts import Accounts
from models.errors import Forbidden, TooFast, Unauthenticated
from models.records import Identity, User

USER = User(7, "Name", "nick", "", "", "active", 0)


class House:
    """Everything that accounts work with, and the order in which it was asked."""

    issues = True

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.full: set[Rule] = set()
        self.password = b"right"

    async def take(self, rule: Rule, subject: str) -> None:
        self.steps.append((rule.name, subject))
        if rule in self.full:
            raise TooFast(rule.value, 9)

    async def forgive(self, rule: Rule, subject: str) -> None:
        self.steps.append(("forgive", subject))

    async def find(self, user_name: str) -> Found | None:
        return Found(7, "digest") if user_name.casefold() == "name" else None

    async def digest_of(self, user: int) -> str:
        return "digest"

    async def matches(self, password: bytes, digest: str | None) -> bool:
        self.steps.append("matches")
        return digest is not None and password == self.password

    async def register(self, *_: object) -> User:
        self.steps.append("register")
        return USER

    async def active_now(self, ids: Sequence[int]) -> dict[int, User]:
        return {7: USER}

    async def set_password(self, user: int, password: bytes) -> None:
        self.steps.append("set_password")

    async def erase(self, user: int) -> None:
        self.steps.append("erase")

    def issue(self, user: User) -> str:
        return "token"

    async def sign_out(self, identity: Identity) -> None:
        self.steps.append("sign_out")


@pytest.fixture
def house() -> Any:
    return House()


@pytest.fixture
def accounts(house: Any) -> Accounts:
    """Accounts that note who is looked at."""
    return Accounts(house, house, house, house, house, lambda user: house.steps.append(("changed", user)))


async def test_signing_in(accounts: Accounts, house: Any) -> None:
    """Counted by address and by account before the password is looked at; forgiven when it was right."""
    assert await accounts.sign_in("1.1.1.1", "NAME", b"right") == (USER, "token")
    assert house.steps == [("ADDRESS", "1.1.1.1"), ("ACCOUNT", "7"), "matches", ("forgive", "7")]


@pytest.mark.parametrize(("name", "subject"), [("name", "7"), ("Nobody", "name nobody")])
async def test_what_is_wrong_is_not_told(name: str, subject: str, accounts: Accounts, house: Any) -> None:
    """A wrong password and an unknown name take the same steps and give the same answer."""
    with pytest.raises(Unauthenticated, match=r"^the user name or the password is wrong$"):
        await accounts.sign_in("1.1.1.1", name, b"wrong")
    assert house.steps == [("ADDRESS", "1.1.1.1"), ("ACCOUNT", subject), "matches"]


@pytest.mark.parametrize("rule", [Rule.ADDRESS, Rule.ACCOUNT])
async def test_too_many_attempts(rule: Rule, accounts: Accounts, house: Any) -> None:
    """No password is looked at any more, the right one neither."""
    house.full = {rule}
    with pytest.raises(TooFast):
        await accounts.sign_in("1.1.1.1", "name", b"right")
    assert "matches" not in house.steps


async def test_registering(accounts: Accounts, house: Any) -> None:
    """Counted by address."""
    await accounts.register("1.1.1.1", "name", "nick", b"password")
    assert house.steps == [("REGISTRATION", "1.1.1.1"), "register"]


async def test_where_tokens_come_from_elsewhere(accounts: Accounts, house: Any) -> None:
    """Nobody can try passwords here."""
    house.issues = False
    with pytest.raises(Forbidden):
        await accounts.sign_in("1.1.1.1", "name", b"right")
    assert house.steps == []
    assert await accounts.change_password(7, b"right", b"new") == (USER, None)


async def test_changing_and_deleting(accounts: Accounts, house: Any) -> None:
    """Need the password, count as attempts, and have the sockets looked at."""
    await accounts.change_password(7, b"right", b"new password")
    await accounts.delete(7, b"right")
    checked = [("ACCOUNT", "7"), "matches", ("forgive", "7")]
    assert house.steps == [*checked, "set_password", ("changed", 7), *checked, "erase", ("changed", 7)]
    house.steps.clear()
    for attempt in (accounts.change_password(7, b"wrong", b"new password"), accounts.delete(7, b"wrong")):
        with pytest.raises(Forbidden):
            await attempt
    assert house.steps == [("ACCOUNT", "7"), "matches"] * 2


async def test_signing_out_needs_a_token(accounts: Accounts, house: Any) -> None:
    """Whoever was believed has none to end."""
    await accounts.sign_out(Identity(7, b"session"))
    assert house.steps == ["sign_out", ("changed", 7)]
    with pytest.raises(Unauthenticated):
        await accounts.sign_out(Identity(7))
