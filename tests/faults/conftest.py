"""Engines of each module's own, to be hurt."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pymysql
import pytest

from storage.engines import Addresses, PrivateEngines
from storage.schema import migrate
from tests.database import mysql_connection

Stopped = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def engines() -> Iterator[PrivateEngines]:
    directory = Path(tempfile.mkdtemp(prefix="tandem-test-"))
    private = PrivateEngines(directory, start_timeout=30, death_signal=signal.SIGKILL)  # ends what is stopped, too
    try:
        private.start()
        yield private
    finally:
        private.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def addresses(engines: PrivateEngines) -> Addresses:
    return engines.addresses


@pytest.fixture(scope="module")
def database(addresses: Addresses) -> Iterator[pymysql.Connection]:
    with mysql_connection(addresses.mysql) as connection:
        with connection.cursor() as cursor:
            migrate(cursor)
        yield connection


@pytest.fixture
def stopped(engines: PrivateEngines) -> Stopped:
    """Stops an engine, for as long as the context lasts."""

    @contextmanager
    def stop(name: str) -> Iterator[None]:
        os.kill(engines.pids[name], signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(engines.pids[name], signal.SIGCONT)

    return stop
