"""The yardstick: what a batch brought into a store, written to a new file by SQLite alone. Prints runs a second.

The rows of the runs, one for each line of the batch, are read beforehand. Measured is from opening the new file to
closing it, as a command opens and closes its store: the store's schema, settings and statements, one transaction in
chunks of the store's size, and one sync of it.

usage: sqlite_alone.py STORE NEW
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from importlib.resources import files
from itertools import chain

from hueyctl.storage.intake import CHUNK, FIRST_EVENTS, OWN, SHARED, insert_alike
from hueyctl.storage.sqlite_database import CACHE_KIB, WAL_AUTOCHECKPOINT_PAGES

SCHEMA = files("hueyctl.storage").joinpath("schema.sql").read_text(encoding="utf-8")
SETTINGS = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES};
PRAGMA cache_size = -{CACHE_KIB};
"""


def main(store: str, new: str) -> None:
    with closing(sqlite3.connect(store)) as connection:
        runs = connection.execute(f"SELECT {OWN} FROM runs ORDER BY n").fetchall()
        (shared,) = connection.execute(f"SELECT DISTINCT {SHARED} FROM runs").fetchall()
        (told,) = connection.execute("SELECT DISTINCT time, type, by, data FROM events WHERE n IS NOT NULL").fetchall()
    own = list(chain.from_iterable(runs))
    began = time.perf_counter()
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.executescript(f"{SETTINGS} BEGIN; {SCHEMA}; COMMIT;")
        connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(runs), CHUNK):
            some = runs[start : start + CHUNK]
            insert_alike(Statements(connection), shared, own[3 * start : 3 * (start + CHUNK)])
            connection.execute(FIRST_EVENTS, (*told, some[0][0], some[-1][0]))
        connection.execute("COMMIT")
        sync(f"{new}-wal")
    print(len(runs) / (time.perf_counter() - began))


class Statements:
    """A connection as the store's statements are given to it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, *values: object) -> None:
        self._connection.execute(sql, values)

    def many(self, sql: str, rows: list[tuple[object, ...]]) -> None:
        self._connection.executemany(sql, rows)


def sync(path: str) -> None:
    """Put the file on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


main(*sys.argv[1:])
