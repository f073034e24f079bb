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

from hueyctl.storage.changes import CHUNK, FIRST_EVENTS, INSERT
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
        runs = connection.execute(f"SELECT {columns(INSERT)} FROM runs ORDER BY n").fetchall()
        (told,) = connection.execute("SELECT DISTINCT time, type, by, data FROM events WHERE n IS NOT NULL").fetchall()
    began = time.perf_counter()
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.executescript(f"{SETTINGS} BEGIN; {SCHEMA}; COMMIT;")
        connection.execute("BEGIN IMMEDIATE")
        for start in range(0, len(runs), CHUNK):
            chunk = runs[start : start + CHUNK]
            connection.executemany(INSERT, chunk)
            connection.execute(FIRST_EVENTS, (*told, chunk[0][0], chunk[-1][0]))
        connection.execute("COMMIT")
        sync(f"{new}-wal")
    print(len(runs) / (time.perf_counter() - began))


def columns(insert: str) -> str:
    """The columns that an INSERT statement names."""
    return insert[insert.index("(") + 1 : insert.index(")")]


def sync(path: str) -> None:
    """Put the file on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


main(*sys.argv[1:])
