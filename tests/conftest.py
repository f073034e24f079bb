"""What every test relies on: no setting of the machine's own, or of the shell's, reaches it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest
from postgres_server import PostgresServer

# A shell starts what it puts into the background with SIGINT ignored, and what is ignored stays so through every exec:
# then no test could press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("HUEYCTL_", "PG"))]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test process, started for the first test that asks for it."""
    with closing(PostgresServer()) as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Iterator[str]:
    """The address, over the socket, of an empty PostgreSQL database of the test's own."""
    name = postgres.new_database()
    yield postgres.address(name)
    postgres.drop_database(name)
