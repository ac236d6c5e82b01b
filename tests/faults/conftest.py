"""Databases for each module, which its tests stop and kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pymysql
import pytest

from storage.embedded.supervisor import Addresses, EmbeddedDatabases
from storage.mysql.schema import migrate
from tests.support.database import mysql_connection
from tests.support.processes import embedded_databases, stop

Stopped = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedDatabases]:
    with embedded_databases() as private:
        yield private


@pytest.fixture(scope="module")
def addresses(embedded: EmbeddedDatabases) -> Addresses:
    return embedded.addresses


@pytest.fixture(scope="module")
def database(addresses: Addresses) -> Iterator[pymysql.Connection]:
    with mysql_connection(addresses.mysql) as connection:
        with connection.cursor() as cursor:
            migrate(cursor)
        yield connection


@pytest.fixture
def stopped(embedded: EmbeddedDatabases) -> Stopped:
    """Stop a database for as long as the context lasts."""

    @contextmanager
    def while_stopped(name: str) -> Iterator[None]:
        stop(embedded.pids[name])
        try:
            yield
        finally:
            os.kill(embedded.pids[name], signal.SIGCONT)

    return while_stopped
