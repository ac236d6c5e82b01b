"""The quota of sockets: a lease takes uses one by one, and gives all back together; first and last uses are told."""

from __future__ import annotations

import pytest

from handlers.websocket.quota import ALL, ConnectionQuota


def test_what_is_taken_is_given_back() -> None:
    """A lease gives back all that it took, once, also after a use that was refused."""
    told: list[str] = []
    quota = ConnectionQuota(lambda user: told.append(f"first of {user}"), lambda user: told.append(f"last of {user}"))
    one, another = quota.lease(), quota.lease()
    one.take(ALL, 2, LookupError())
    another.take(ALL, 2, LookupError())
    one.take(7, 1, LookupError())
    with pytest.raises(LookupError):
        one.take(7, 1, LookupError())
    assert (quota.count(ALL), quota.count(7), quota.users()) == (2, 1, [7])
    assert told == ["first of 7"]
    one.release()
    one.release()
    assert (quota.count(ALL), quota.count(7), quota.users()) == (1, 0, [])
    assert told == ["first of 7", "last of 7"]
    another.release()
    assert not quota._taken  # noqa: SLF001  # a key that is left would be kept for good


def test_a_first_use_that_fails() -> None:
    """If what is told of a first use fails, the lease has the use, and gives it back."""

    def fail(user: int) -> None:
        raise RuntimeError("a bug")

    last: list[int] = []
    quota = ConnectionQuota(fail, last.append)
    lease = quota.lease()
    with pytest.raises(RuntimeError):
        lease.take(7, 1, LookupError())
    assert quota.count(7) == 1
    lease.release()
    assert (quota.count(7), last) == (0, [7])
