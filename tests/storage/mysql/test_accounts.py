"""Tests of accounts in MySQL: registering, passwords, deleting."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import bcrypt
import pymysql
import pytest
from pymysql.cursors import Cursor
from tornado.ioloop import IOLoop

from models.accounts.ports import Found
from models.errors import DatabaseRefused, InvalidRequest, NameTaken, StorageUnavailable
from models.records import Identity, Profile, User
from storage.embedded.supervisor import Addresses
from storage.mysql.accounts import MySQLAccounts
from storage.mysql.executor import MySQL
from storage.mysql.schema import migrate
from storage.mysql.sessions import MySQLSessions
from storage.mysql.users import MySQLUsers
from storage.security.passwords import Passwords
from tests.storage.conftest import UNAVAILABLE, MakeFresh, MakeMySQL, MakeRelay, SetUser
from tests.storage.mysql.test_schema import GIN_CHAT_DEMO
from tests.support.clocks import Clock
from tests.support.relay import Relay


async def nothing_known() -> int:
    """Return 0 as the greatest id in stored messages, of which there are none."""
    return 0


@pytest.fixture
def passwords(io_loop: IOLoop) -> Iterator[Passwords]:
    """Passwords with cheap hashes."""
    store = Passwords(1, 16, 10, cost=4)
    yield store
    io_loop.run_sync(store.close)


@pytest.fixture
def accounts(mysql: MySQL, users: MySQLUsers, passwords: Passwords, clock: Clock) -> MySQLAccounts:
    """The accounts."""
    return MySQLAccounts(mysql, users, passwords, nothing_known, clock=clock)


@pytest.fixture
def account(io_loop: IOLoop, accounts: MySQLAccounts, name: str) -> User:
    """An account with the password "password"."""
    return io_loop.run_sync(lambda: accounts.register(name, "nick", b"password"))


@pytest.fixture
def name() -> str:
    """A name that no account has."""
    return f"Name-{secrets.token_hex(4)}"


def row_of(database: pymysql.Connection, user: int, columns: str) -> tuple[object, ...]:
    with database.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM `user` WHERE id = %s", (user,))
        return cursor.fetchone()


async def test_registration(accounts: MySQLAccounts, database: pymysql.Connection, name: str) -> None:
    """A new account has a bcrypt digest and an active row, and `register` returns the user in it."""
    user = await accounts.register(name, "昵称", "pässword1".encode())
    digest, status, nick_name = row_of(database, user.id, "password_digest, status, nick_name")
    assert bcrypt.checkpw("pässword1".encode(), digest.encode())
    assert (status, nick_name, user.user_name) == ("active", "昵称", name)
    assert user.created_at > 0
    assert user.token_version


async def test_two_registrations_of_one_name(accounts: MySQLAccounts, name: str) -> None:
    """Of two concurrent registrations of one name, in any letter case, one fails."""
    outcomes = await asyncio.gather(
        *(accounts.register(each, "nick", b"password") for each in (name, name, name.upper())),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NameTaken", "NameTaken", "User"]


async def test_a_name_that_is_taken_costs_no_hash(
    accounts: MySQLAccounts, account: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is taken is refused before the password is hashed."""
    monkeypatch.setattr(bcrypt, "hashpw", None)
    with pytest.raises(NameTaken):
        await accounts.register(account.user_name, "nick", b"password")


async def test_names_are_data(accounts: MySQLAccounts, users: MySQLUsers) -> None:
    """A name that looks like SQL is only a name."""
    user = await accounts.register("'; DROP--", "$ne", b"password")
    assert (await users.active(user.id))[user.id].user_name == "'; DROP--"
    assert (await accounts.find("'; DROP--")).user == user.id


async def test_an_account_is_found_by_its_name(accounts: MySQLAccounts, account: User) -> None:
    """An account is found by its name in any letter case, with its password digest."""
    found = await accounts.find(account.user_name.swapcase())
    assert found == Found(account.id, await accounts.digest_of(account.id))
    assert await accounts.matches(b"password", found.digest)
    assert not await accounts.matches(b"Password", found.digest)


@pytest.mark.parametrize("assignment", ["deleted_at = NOW()", "status = 'banned'", "status = NULL"])
async def test_inactive_accounts_are_not_found(
    accounts: MySQLAccounts, account: User, set_user: SetUser, assignment: str
) -> None:
    """An inactive account, or one that does not exist, is not found."""
    set_user(account.id, assignment)
    assert await accounts.digest_of(account.id) == ""
    assert await accounts.find(account.user_name) is None
    assert await accounts.find("nobody at all") is None


async def test_no_password(accounts: MySQLAccounts, account: User, set_user: SetUser) -> None:
    """No password matches a row without a digest, or a name without a row."""
    set_user(account.id, "password_digest = NULL")
    assert (await accounts.find(account.user_name)).digest == ""
    assert await accounts.digest_of(account.id) == await accounts.digest_of(4_000_000_000) == ""
    assert not await accounts.matches(b"", "")
    assert not await accounts.matches(b"password", None)


async def test_a_new_password(accounts: MySQLAccounts, account: User, users: MySQLUsers) -> None:
    """Only the new password matches after a change, and the user's tokens have ended."""
    before = (await users.active(account.id))[account.id]
    changed = await accounts.set_password(account.id, await accounts.digest_of(account.id), b"new password")
    digest = await accounts.digest_of(account.id)
    assert changed == digest
    assert await accounts.matches(b"new password", digest)
    assert not await accounts.matches(b"password", digest)
    after = (await users.active(account.id))[account.id]
    assert before.token_version != after.token_version
    assert before.tokens_since < after.tokens_since


async def test_the_same_password_again(accounts: MySQLAccounts, account: User, users: MySQLUsers) -> None:
    """Setting the same password again ends the tokens too."""
    await accounts.set_password(account.id, await accounts.digest_of(account.id), b"password")
    assert (await users.active(account.id))[account.id].token_version != account.token_version


async def test_two_changes_at_once(accounts: MySQLAccounts, account: User, users: MySQLUsers) -> None:
    """Of concurrent changes that begin with one digest, one succeeds; the others change nothing and end no tokens."""
    digest = await accounts.digest_of(account.id)
    outcomes = await asyncio.gather(*(accounts.set_password(account.id, digest, b"password") for _ in range(5)))
    (changed,) = [outcome for outcome in outcomes if outcome is not None]
    assert changed == await accounts.digest_of(account.id)
    user = (await users.active_now([account.id]))[account.id]
    assert await accounts.confirm(account.id, changed) == user
    assert await accounts.set_password(account.id, changed.swapcase(), b"password") is None
    assert not await accounts.erase(account.id, digest)
    assert (await users.active_now([account.id]))[account.id] == user


async def test_confirming(accounts: MySQLAccounts, account: User, set_user: SetUser) -> None:
    """`confirm` returns the account if the digest is exactly this one and the account is active."""
    digest = await accounts.digest_of(account.id)
    assert (await accounts.confirm(account.id, digest)).id == account.id
    for other in (digest.swapcase(), digest + " ", "", "%"):
        assert await accounts.confirm(account.id, other) is None
    set_user(account.id, "status = 'banned'")
    assert await accounts.confirm(account.id, digest) is None


async def test_leaving(
    accounts: MySQLAccounts, account: User, users: MySQLUsers, set_user: SetUser, database: pymysql.Connection
) -> None:
    """Deleting an account removes all personal data at once."""
    set_user(account.id, "email = 'a@b', avatar = 'https://x', phone = '110'")
    await users.active(account.id)
    assert await accounts.erase(account.id, await accounts.digest_of(account.id))
    assert not await users.active(account.id)
    assert await accounts.find(account.user_name) is None
    assert not await accounts.matches(b"password", await accounts.digest_of(account.id))
    left = row_of(database, account.id, "password_digest, nick_name, email, avatar, phone, deleted_at IS NULL")
    assert left == ("!", "", "", "", "", 0)


async def test_a_name_stays_taken(accounts: MySQLAccounts, account: User) -> None:
    """The name of a deleted account cannot be registered, signed in to, or given a new password."""
    await accounts.erase(account.id, await accounts.digest_of(account.id))
    with pytest.raises(NameTaken):
        await accounts.register(account.user_name, "nick", b"password")
    assert await accounts.set_password(account.id, "!", b"password") is None
    assert not await accounts.matches(b"password", await accounts.digest_of(account.id))


async def test_mysql_away(make_mysql: MakeMySQL, users: MySQLUsers, passwords: Passwords, clock: Clock) -> None:
    """Every call raises StorageUnavailable while MySQL is unavailable."""
    accounts = MySQLAccounts(make_mysql(UNAVAILABLE.mysql), users, passwords, nothing_known, clock=clock)
    for call in (
        accounts.register("nobody", "nobody", b"password"),
        accounts.find("nobody"),
        accounts.digest_of(1),
        accounts.confirm(1, ""),
        accounts.set_password(1, "", b"password"),
        accounts.erase(1, ""),
    ):
        with pytest.raises(StorageUnavailable):
            await call


# Connections that are lost


@pytest.fixture
def relay(make_relay: MakeRelay) -> Relay:
    """A relay between the accounts and MySQL, for the tests that use it."""
    return make_relay()


@pytest.fixture
def shaky(relay: Relay, make_mysql: MakeMySQL, passwords: Passwords, clock: Clock) -> MySQLAccounts:
    """Accounts whose connections go through the relay."""
    mysql = make_mysql(relay.url)
    return MySQLAccounts(mysql, MySQLUsers(mysql, cache_size=100, cache_ttl=60), passwords, nothing_known, clock=clock)


async def test_registering_while_the_connection_is_lost(
    relay: Relay, shaky: MySQLAccounts, accounts: MySQLAccounts, name: str
) -> None:
    """If the connection is lost, the answer tells whether the account was made, and never that its name is taken."""
    relay.lose = b"INSERT INTO `user`"
    with pytest.raises(StorageUnavailable):
        await shaky.register(name, "nick", b"password")
    assert await accounts.find(name) is None
    relay.lose = b"COMMIT"
    user = await shaky.register(name, "nick", b"password")
    assert relay.lost == 2
    assert (user.user_name, user.id) == (name, (await accounts.find(name)).user)
    with pytest.raises(NameTaken):
        await shaky.register(name, "nick", b"password")


async def test_a_name_that_another_takes_while_the_connection_is_lost(
    relay: Relay,
    shaky: MySQLAccounts,
    mysql: MySQL,
    users: MySQLUsers,
    passwords: Passwords,
    clock: Clock,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An account that another caller makes meanwhile is not returned as one's own."""
    others, digest = Passwords(1, 1, 10, cost=4), passwords.digest
    accounts = MySQLAccounts(mysql, users, others, nothing_known, clock=clock)

    async def slow(password: bytes) -> str:
        await accounts.register(name, "other", b"another password")
        return await digest(password)

    monkeypatch.setattr(passwords, "digest", slow)
    relay.lose = b"INSERT INTO `user`"
    with pytest.raises(StorageUnavailable):
        await shaky.register(name, "nick", b"password")
    await others.close()


async def test_a_new_password_while_the_connection_is_lost(
    relay: Relay, shaky: MySQLAccounts, accounts: MySQLAccounts, account: User, users: MySQLUsers
) -> None:
    """If the connection is lost, the password changed and all tokens ended, or neither did; the answer tells."""
    before = (await users.active_now([account.id]))[account.id]
    for statement in (b"UPDATE `user`", b"INSERT INTO `tandem_account`"):
        relay.lose = statement
        with pytest.raises(StorageUnavailable):
            await shaky.set_password(account.id, await accounts.digest_of(account.id), b"another one")
        assert (await users.active_now([account.id]))[account.id] == before
    relay.lose = b"COMMIT"
    changed = await shaky.set_password(account.id, await accounts.digest_of(account.id), b"another one")
    assert changed == await accounts.digest_of(account.id)
    assert await accounts.matches(b"another one", changed)
    assert (await users.active_now([account.id]))[account.id].tokens_since > before.tokens_since


async def test_deleting_while_the_connection_is_lost(
    relay: Relay, shaky: MySQLAccounts, accounts: MySQLAccounts, account: User
) -> None:
    """If the connection is lost, the answer tells whether the account was deleted."""
    digest = await accounts.digest_of(account.id)
    relay.lose = b"UPDATE `user`"
    with pytest.raises(StorageUnavailable):
        await shaky.erase(account.id, digest)
    assert await accounts.digest_of(account.id) == digest
    relay.lose = b"COMMIT"
    assert await shaky.erase(account.id, digest)
    assert await accounts.find(account.user_name) is None


# Tables of another program


@pytest.fixture
def elsewhere(
    make_fresh: MakeFresh, make_mysql: MakeMySQL, passwords: Passwords, clock: Clock
) -> Callable[[str], tuple[MySQLAccounts, MySQLUsers, Cursor]]:
    """Make accounts in gin-chat-demo's table with a character set."""

    def make(charset: str = "utf8mb4") -> tuple[MySQLAccounts, MySQLUsers, Cursor]:
        fresh = make_fresh(charset)
        fresh.cursor.execute(GIN_CHAT_DEMO.replace("utf8mb4", charset))
        mysql = make_mysql(fresh.url)
        users = MySQLUsers(mysql, cache_size=0, cache_ttl=1)
        migrate(fresh.cursor)
        return MySQLAccounts(mysql, users, passwords, nothing_known, clock=clock), users, fresh.cursor

    return make


@pytest.mark.parametrize(("charset", "text"), [("utf8mb3", "foxes🦊"), ("latin1", "foxes🦊"), ("latin1", "北京的狐狸")])
async def test_a_name_that_the_table_cannot_keep(charset: str, text: str, elsewhere: Any) -> None:
    """A name that the table cannot store is an invalid field; no account is made, and none is found by it."""
    accounts, users, cursor = elsewhere(charset)
    with pytest.raises(InvalidRequest, match=r"^user_name: holds a character"):
        await accounts.register(text, "nick", b"password")
    assert await accounts.find(text) is None
    assert not cursor.execute("SELECT 1 FROM `user`")
    user = await accounts.register("foxes", "狐狸🦊", b"password")
    assert user.nick_name == "狐狸🦊"
    assert (await users.named("FOXES")).id == user.id


async def test_a_value_that_must_be_unique_elsewhere(elsewhere: Any) -> None:
    """A duplicate in another unique column is not reported as a name that is taken, but as the database's refusal."""
    accounts, _, cursor = elsewhere()
    cursor.execute("ALTER TABLE `user` ADD UNIQUE INDEX phones (phone)")
    await accounts.register("first", "nick", b"password")
    with pytest.raises(DatabaseRefused, match="1062"):
        await accounts.register("second", "nick", b"password")
    with pytest.raises(NameTaken):
        await accounts.register("FIRST", "nick", b"password")


async def test_ids_that_a_trigger_gives(elsewhere: Any) -> None:
    """The id of a new account is the one in its row, even if a trigger has set it."""
    accounts, _, cursor = elsewhere()
    cursor.execute("ALTER TABLE `user` MODIFY id bigint")
    cursor.execute("CREATE TRIGGER t BEFORE INSERT ON `user` FOR EACH ROW SET NEW.id = 7000000007")
    assert (await accounts.register("snowflake", "nick", b"password")).id == 7_000_000_007


LARGEST = 2**63 - 1


async def test_the_largest_id(elsewhere: Any, addresses: Addresses, make_mysql: MakeMySQL, clock: Clock) -> None:
    """An account with the largest id can sign in and out, also everywhere, change its password, and be deleted."""
    accounts, users, cursor = elsewhere()
    cursor.execute("ALTER TABLE `user` MODIFY id bigint unsigned AUTO_INCREMENT, AUTO_INCREMENT = 9223372036854775807")
    user = await accounts.register("largest", "nick", b"password")
    assert user.id == LARGEST
    cursor.execute("SELECT DATABASE()")
    ((database,),) = cursor.fetchall()
    mysql = make_mysql(addresses.mysql.replace("/tandem?", f"/{database}?"))
    sessions = MySQLSessions(mysql, users, clock=clock, cache_size=0, cache_ttl=1)
    await sessions.sign_out(Identity(LARGEST, b"0123456789abcdef", expires=clock() + 60))
    assert await sessions.signed_out_now([b"0123456789abcdef"]) == {b"0123456789abcdef"}
    cursor.execute("SELECT user_id FROM tandem_signed_out")
    assert cursor.fetchall() == ((LARGEST,),)
    await sessions.sign_out_everywhere(LARGEST)
    everywhere = (await users.active_now([LARGEST]))[LARGEST]
    assert everywhere.token_version != user.token_version
    digest = await accounts.set_password(LARGEST, await accounts.digest_of(LARGEST), b"another one")
    assert (await users.active_now([LARGEST]))[LARGEST].token_version != everywhere.token_version
    assert (await users.change(LARGEST, Profile(nick_name="new"))).nick_name == "new"
    assert await accounts.erase(LARGEST, digest)


# A table that is older than the stored messages


async def test_an_id_that_messages_know(
    mysql: MySQL, users: MySQLUsers, passwords: Passwords, account: User, accounts: MySQLAccounts, clock: Clock
) -> None:
    """An id in stored messages is never assigned to a new account, and the error has the remedy as a statement."""

    async def known() -> int:
        return account.id + 2

    restored = MySQLAccounts(mysql, users, passwords, known, clock=clock)
    for number in (1, 2):
        with pytest.raises(DatabaseRefused, match=f"AUTO_INCREMENT = {account.id + 3};"):
            await restored.register(f"Mallory-{account.id + number}", "nick", b"password")
        assert await accounts.find(f"Mallory-{account.id + number}") is None
    assert (await restored.register(f"Mallory-{account.id}", "nick", b"password")).id == account.id + 3


async def test_ids_beyond_those_that_can_be(elsewhere: Any) -> None:
    """An id that is larger than requests can name is not assigned."""
    accounts, _, cursor = elsewhere()
    cursor.execute("ALTER TABLE `user` MODIFY id bigint unsigned AUTO_INCREMENT, AUTO_INCREMENT = 9223372036854775808")
    with pytest.raises(DatabaseRefused, match="all ids"):
        await accounts.register("beyond", "nick", b"password")
    assert await accounts.find("beyond") is None
