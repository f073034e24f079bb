"""How a store comes to be, and how an older one becomes one of today.

A store is at its path whole or not at all: it is made beside it and renamed. So an empty or half-made file there is
never a beginning, but always damage, and nobody writes over it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from hueyctl.errors import StoreBusy, StoreError, StoreReplaced
from hueyctl.storage.database import SCHEMA_VERSION
from hueyctl.storage.identity import refuse_another
from hueyctl.storage.locks import hold, is_free, worker_is_dead
from hueyctl.storage.place import Place, refuse_another_user, refuse_network, told
from hueyctl.storage.sqlite_database import APPLICATION_ID, SqliteDatabase, damaged, missing, older

# What leads from each version to the next; the first version has none before it.
MIGRATIONS: Final[dict[int, str]] = {}
# A reader waits for nobody but one who recovers the log after a crash.
READ_BUSY_S: Final = 5.0


def open_database(path: Path, *, create: bool, migrate: bool, read_only: bool, busy_s: float) -> SqliteDatabase:
    """See `sqlite.open_store`."""
    place = Place(Path(os.path.abspath(path)))
    if not read_only:
        refuse_another_user(place.path)
    if create and not read_only:
        place.prepare()
        if not os.path.lexists(place.path):
            _create(place, busy_s)
    _check_file(place.path)
    refuse_network(place.dir)
    refuse_another(place)
    database = SqliteDatabase(place.path, read_only=read_only, busy_s=busy_s)
    try:
        if database.version() < SCHEMA_VERSION:
            if not migrate:
                raise older(place.path, database.version())
            _migrate(database, place)
    except BaseException:
        database.close()
        raise
    return database


def open_as_it_is(path: Path) -> SqliteDatabase:
    """Open for reading, whatever version wrote it (a newer one's is refused), wherever it lies.

    Raises:
        StoreError: see `sqlite.open_store`.
    """
    path = Path(os.path.abspath(path))
    _check_file(path)
    return SqliteDatabase(path, read_only=True, busy_s=READ_BUSY_S)


def _check_file(path: Path) -> None:
    try:
        found = os.stat(path)
    except FileNotFoundError as exc:
        raise missing(path) from exc
    except OSError as exc:
        raise told(exc, path) from exc
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path} is not a file")
    if found.st_size == 0:
        raise damaged(path, "it is empty")


def _create(place: Place, busy_s: float) -> None:
    deadline = time.monotonic() + busy_s
    while (lock := hold(place.creation_lock)) is None:
        if time.monotonic() >= deadline:
            raise StoreBusy(f"{place.path} is being made by another process, and isn't there yet", hint="try again")
    try:
        if not os.path.lexists(place.path):
            _refuse_remains(place)
            _make(place.path)
    finally:
        lock.release()


def _refuse_remains(place: Place) -> None:
    """Don't start a second life over what is left of a store that was lost: what it had accepted would be forgotten."""
    log = place.path.with_name(place.path.name + "-wal")
    if os.path.lexists(log):
        raise StoreReplaced(
            f"{place.path} is gone, but its log {log.name} is there, which holds what it had accepted",
            hint="put the store back; or remove the log too, if all of it is to be forgotten",
        )
    for lock in sorted(place.workers.iterdir()):
        if not is_free(lock):
            raise StoreReplaced(
                f"{place.path} is gone, while worker {lock.stem} still runs on it",
                hint="stop that worker and put the store back",
            )


def _make(path: Path) -> None:
    new = path.with_name(path.name + ".new")
    for left in (new, *(new.with_name(new.name + end) for end in ("-wal", "-shm", "-journal"))):
        with suppress(FileNotFoundError):
            left.unlink()
    try:
        # Made by us first, for SQLite would make it readable for others.
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            # Loaded once in a store's life: it takes longer than all that an enqueue does.
            from importlib.resources import files

            schema = files("hueyctl.storage").joinpath("schema.sql").read_text(encoding="utf-8")
            connection.executescript(
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};\n"
                f"PRAGMA synchronous = FULL; BEGIN;\n{schema};\nCOMMIT; PRAGMA journal_mode = WAL;"
            )
        # The names of new folders on the way to it, before anybody can find a store in them and have runs accepted.
        for folder in path.parents[1:]:
            with suppress(PermissionError):  # such a folder isn't ours, and its names aren't new
                _sync_names(folder)
        new.rename(path)
        _sync_names(path.parent)
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"{path}: the store can't be made: {exc}") from exc


def _sync_names(folder: Path) -> None:
    """Put the names in `folder` on the disk: the sync of a file says nothing about its name."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _migrate(database: SqliteDatabase, place: Place) -> None:
    version = database.version()
    for (worker,) in database.all("SELECT id FROM workers"):
        if not worker_is_dead(place, worker):
            raise StoreError(f"{place.path} can't be migrated while worker {worker} runs on it", hint="stop it first")
    steps = [MIGRATIONS.get(step) for step in range(version, SCHEMA_VERSION)]
    if None in steps:
        raise damaged(place.path, f"there is no way from store version {version}")
    statements = "".join(f"{step};\n" for step in steps)
    try:
        database.connection.executescript(
            f"BEGIN IMMEDIATE;\n{statements}PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
        )
    except sqlite3.Error as exc:
        with suppress(sqlite3.Error):
            database.connection.execute("ROLLBACK")
        raise database.told(exc) from exc
