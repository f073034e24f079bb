"""A copy of a store, made while others go on using it.

Promises:

- The copy is the store as it was at one moment, with everything that was committed by then.
- It is at its path whole or not at all: made beside it, checked, synced, renamed. Whatever fails leaves nothing.
- It is one file that needs nothing beside it (no log), for its owner's eyes only (0600).
- Events written after it is put in a store's place never get numbers that the store had given out by then.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from hueyctl.errors import Refused, StoreDamaged
from hueyctl.model.event import EventType
from hueyctl.storage.rows import micros, utf8
from hueyctl.storage.sqlite_database import SqliteDatabase, quoted_path
from hueyctl.storage.sqlite_opening import open_as_it_is

# What is copied between two looks at signals: a few milliseconds' worth.
STEP_PAGES: Final = 2_000
# Followers resume behind the last event that they saw; what the store wrote after the copy was made is among it. So the
# copy's own next event, which says that it is one, leaves room for those.
SEQ_JUMP: Final = 1_000_000
COPIED: Final = "INSERT INTO events (seq, time, type, by) VALUES (?, ?, ?, ?)"
SIDE_FILES: Final = ("-wal", "-shm", "-journal")


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that was made: where it is, its bytes, its runs, and the seq of the newest event in it (0: none)."""

    file: Path
    size: int
    runs: int
    last_seq: int


def back_up(path: Path, target: Path, *, replace: bool, by: str, now: datetime) -> Backup:
    """Copy the store at `path` to `target` (both absolute), over what is there if `replace`.

    One read transaction is open meanwhile: nobody waits for it, but the store's log can't be shortened under it.

    Raises:
        Refused: `target` is there and `replace` is false, is part of a store, or can't be written.
        StoreDamaged: what was copied is damaged, and so is the store.
        StoreError: the store can't be read.
    """
    _check_target(path, target, replace=replace)
    with closing(open_as_it_is(path)) as database, _beside(target) as new:
        _copy(database, new, target)
        found = _finish(new, path, target, by=by, now=now)
        _check_target(path, target, replace=replace)
        _put(new, target)
    return found


def _check_target(path: Path, target: Path, *, replace: bool) -> None:
    # A name beside the target that SQLite would take for its log: the copy would be read with what is in there.
    side = next((side for end in SIDE_FILES if os.path.lexists(side := f"{target}{end}")), None)
    if side is not None or target in {path, *(Path(f"{path}{end}") for end in SIDE_FILES)}:
        there = f"{side} is there" if side is not None else "it is this store"
        raise Refused(f"{target} belongs to a database in use: {there}", hint="name another file")
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    if stat.S_ISDIR(found.st_mode):
        raise Refused(f"{target} is a folder", hint="name a file in it")
    if not replace:
        raise Refused(f"{target} is there already", hint="--force replaces it")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{target} is not a file")
    if os.path.samestat(found, os.stat(path)):
        raise Refused(f"{target} is this store under another name", hint="name another file")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new empty file beside `target`, gone at the end unless it was renamed."""
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        # Made by us first, for SQLite would make it readable for others.
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    try:
        yield new
    finally:
        for left in (new, *(Path(f"{new}{end}") for end in SIDE_FILES)):
            with suppress(OSError):
                left.unlink()


def _copy(database: SqliteDatabase, new: Path, target: Path) -> None:
    """Fill `new` with the pages of one moment."""
    with closing(_connect(new, "mode=rw")) as copy:
        copy.execute("PRAGMA journal_mode = OFF")  # what fails is thrown away
        # In a transaction of its own each step would see another moment, and begin anew after every foreign commit:
        # under load it would never end.
        with database.snapshot():
            database.all("SELECT 1 FROM meta")
            try:
                database.connection.backup(copy, pages=STEP_PAGES, progress=lambda *_: None)
            except sqlite3.Error as exc:
                raise _told(exc, database, target) from exc


def _finish(new: Path, path: Path, target: Path, *, by: str, now: datetime) -> Backup:
    """Make of a copied file one that stands alone, check it, and have it on the disk."""
    try:
        with closing(_connect(new, "mode=rw")) as copy:
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            runs = copy.execute("SELECT count(*) FROM runs").fetchone()[0]
            last = copy.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
            copy.execute(COPIED, (last + SEQ_JUMP, micros(now), EventType.BACKUP.value, utf8(by)))
        # Read afresh, and not from what the connection that wrote it remembers.
        with closing(_connect(new, "mode=ro&immutable=1")) as copy:
            wrong = [row[0] for row in copy.execute("PRAGMA quick_check(1)").fetchall()]
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise Refused(f"{target} can't be written: {exc}") from exc
        wrong = [str(exc)]
    if wrong != ["ok"]:
        raise StoreDamaged(
            f"{path} is damaged, and so was its copy, which is not kept: {wrong[0]}",
            hint="`hueyctl doctor --full` says how far; keep the file with its -wal, and the backups that you have",
        )
    return Backup(file=target, size=os.stat(new).st_size, runs=runs, last_seq=last)


def _put(new: Path, target: Path) -> None:
    try:
        _sync(new, os.O_RDWR)
        os.rename(new, target)
        _sync(target.parent, os.O_RDONLY)
    except OSError as exc:
        raise _unwritable(target, exc) from exc


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _connect(path: Path, query: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quoted_path(path)}?{query}", uri=True, isolation_level=None)


def _told(exc: sqlite3.Error, database: SqliteDatabase, target: Path) -> Exception:
    code = getattr(exc, "sqlite_errorcode", None) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE:
        return Refused(f"{target} can't be written: the disk, a quota or a file size limit is full")
    return database.told(exc)


def _unwritable(target: Path, exc: OSError) -> Refused:
    return Refused(f"{target} can't be written: {exc.strerror or exc}")
