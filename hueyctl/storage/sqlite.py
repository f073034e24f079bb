"""The store in one SQLite file."""

from __future__ import annotations

from pathlib import Path

from hueyctl.storage.sql import SqlStore
from hueyctl.storage.sqlite_database import SqliteDatabase
from hueyctl.storage.sqlite_opening import open_database


def open_store(
    path: Path, *, create: bool = False, migrate: bool = False, read_only: bool = False, busy_s: float = 5.0
) -> SqliteStore:
    """Open the store at `path`, made where `create` and it is missing, brought up to date where `migrate`.

    `busy_s` is how long each verb tries to get the write lock. A store opened `read_only` reads also where file or
    folder can't be written, as far as SQLite can.

    Raises:
        StoreMissing: there is none, and `create` is false.
        StoreDamaged: what is there is no store, or a broken one; it is left as it is.
        StoreNewer: a newer hueyctl wrote it.
        StoreReplaced: the store is gone, but what is left of it shows that it was in use.
        StoreReadOnly: it, or its folder, can't be written.
        StoreError: an older hueyctl wrote it and `migrate` is false; or it is on a network file system.
    """
    database = open_database(path, create=create, migrate=migrate, read_only=read_only, busy_s=busy_s)
    return SqliteStore(database)


class SqliteStore(SqlStore):
    """A `Store`. Never across a fork: SQLite's locks belong to the process."""

    database: SqliteDatabase
