"""`Database` as one connection to a store's SQLite file: how it is opened, how it writes, and what its errors mean.

Promises:

- A write begins with BEGIN IMMEDIATE, finds the file and the version that it was opened with, and is undone whole
  when anything in it fails. One that changes nothing writes nothing.
- When a `durable` write returns, it and everything committed before it is on the disk: a power cut changes nothing of
  that. Others are lost at worst from the end backwards, never in the middle (WAL with synchronous=NORMAL).
- No read transaction is left open, and the database file is touched by SQLite alone: closing any other descriptor of
  it would drop SQLite's locks, and another process could then unlink the log under us.
- sqlite3's errors become those of `hueyctl.errors`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hueyctl.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreNewer,
    StoreReadOnly,
    StoreReplaced,
)
from hueyctl.failpoints import failpoint
from hueyctl.storage.database import SCHEMA_VERSION, SyncFailed, Unstorable
from hueyctl.storage.inserts import in_few
from hueyctl.storage.place import is_read_only
from hueyctl.storage.rows import Row, utf8

OLDEST_SQLITE = (3, 37)  # STRICT tables
APPLICATION_ID = 0x68756579  # "huey"
PERMISSIONS = "check the permissions of file and folder: a store belongs to one user"
# SQLite waits this long by itself; in between signals are seen, and its back-off starts anew.
BUSY_SLICE_S = 0.06
# 64 MB: without a worker nobody else shortens the log, and a short one would make every tenth enqueue pay for it. A
# checkpoint is three syncs (log, file, the new log's header); a batch of 10,000 runs writes 130 MB of log to its end.
WAL_AUTOCHECKPOINT_PAGES = 16_384
# On a small or almost full disk sooner: what is new in the log must still fit into the file beside it, or it can't be
# shortened any more. SQLite's own is 1,000.
LEAST_AUTOCHECKPOINT_PAGES = 1_000
LOG_SHARE = 1 / 4  # of what is free
# At most, and only once so many pages were touched: a hundred thousand runs taken in at once are 50 MB.
CACHE_KIB = 65_536
# Rows that one statement inserts, where there are so many: SQLite takes 32,766 values, Python's sqlite3 lets go of its
# lock and takes it again for each statement.
SIZES = (256, 32)
NORMAL = 1

# What sqlite3 doesn't bind as it is, it first asks how it adapts itself, which a miss answers by an AttributeError made
# and dropped: a tenth of what a claim and its settlement cost, for the many None. These say the same, in C. They are
# the whole process's: an adapter that the program we are in has registered stays.
for _kind, _as_it_is in ((type(None), dict[None, None]().get), (bytes, bytes), (bool, int)):
    sqlite3.adapters.setdefault((_kind, sqlite3.PrepareProtocol), _as_it_is)


class SqliteDatabase:
    """One open connection. `path` is absolute."""

    is_shared = False

    def __init__(self, path: Path, *, read_only: bool, busy_s: float) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise StoreError(f"SQLite {oldest} or newer is needed; this Python has {sqlite3.sqlite_version}")
        self.path = path
        self.read_only = read_only
        self.busy_s = busy_s
        self._name = os.fspath(path)
        self._wal = f"{path}-wal"
        self._watched = True
        self._seen = -1  # the data version that the format was last checked at
        self._file = self._identity()
        self.connection = self._read_only_connection() if read_only else self._connection("mode=rw")
        try:
            self._check_format()
            if not read_only:
                self._set_up()
            self._log_file = _inode(self._wal)
            self.check_same_file()
        except BaseException:
            self.connection.close()
            raise

    # -- statements -------------------------------------------------------------------------------------------------
    def all(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement and fetch all that it gives, so that nothing of it stays open."""
        try:
            return self.connection.execute(sql, values).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            return self._again(exc, sql, values)[0]

    def one(self, sql: str, *values: Any) -> Row | None:
        """The first row that a statement gives; for those that give at most one."""
        rows = self.all(sql, *values)
        return rows[0] if rows else None

    def run(self, sql: str, *values: Any) -> int:
        """Run one statement that gives no rows; how many rows it changed."""
        try:
            return self.connection.execute(sql, values).rowcount
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            return self._again(exc, sql, values)[1]

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        """Run one statement for each of `rows`, whose text is valid UTF-8; how many rows of the store they changed."""
        try:
            if len(rows) < SIZES[-1]:
                return self.connection.executemany(sql, rows).rowcount
            return sum(self.connection.executemany(*few).rowcount for few in in_few(sql, rows, SIZES))
        except (sqlite3.Error, OverflowError) as exc:
            raise self.told(exc) from exc

    # -- transactions -----------------------------------------------------------------------------------------------
    @contextmanager
    def write(self, *, durable: bool) -> Iterator[None]:
        """A write transaction around the block; `durable`: it is on the disk when it ends, and all before it.

        Raises:
            StoreBusy: another process held the write lock for longer than `busy_s`.
            StoreReplaced: the file is no longer the one that was opened.
            StoreNewer: a newer hueyctl has migrated the store meanwhile.
            SyncFailed: it is written, but the disk failed to keep it.
        """
        self.check_same_file()
        self.run("BEGIN IMMEDIATE")
        try:
            version = self._data_version()
            if version != self._seen:  # only another connection can have migrated it
                self._check_version()
                self._seen = version
            before = self.connection.total_changes
            yield
            changed = self.connection.total_changes != before
            self.run("COMMIT" if changed else "ROLLBACK")
        except BaseException:
            # A failed COMMIT (a full disk) may have rolled back already, or not.
            if self.connection.in_transaction:
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
            raise
        if durable and changed:
            self.sync()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads in the block see one moment. Short: a reader in the way keeps the log from being shortened."""
        self.run("BEGIN")
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                self.connection.execute("COMMIT")

    def sync(self) -> None:
        """Put everything committed so far on the disk, other processes' commits too; what can only read may do it.

        SQLite's own sync of a commit (synchronous=FULL) does the same with everybody locked out meanwhile, and syncs
        the folder once more for each connection: twice the syncs of a `hueyctl enqueue`. The folder needs none: SQLite
        syncs a new log's header, and then its name, before the first commit in it (also with NORMAL). What is no longer
        in the log is in the file: a checkpoint syncs that before the log is written anew or goes.
        """
        self.check_same_file()
        try:
            # SQLite holds no locks on the log, only on the file and the shared memory: closing this drops none.
            log = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if sys.platform == "darwin":
                    fcntl.fcntl(log, fcntl.F_FULLFSYNC)  # its fsync only promises to have told the disk
                else:
                    os.fdatasync(log)
            finally:
                os.close(log)
        except FileNotFoundError:
            return  # as it was before the first commit, or an immutable store: there is nothing to sync
        except OSError as exc:
            raise SyncFailed(f"{self._wal}: the disk failed to sync: {exc.strerror}", hint="check the disk") from exc

    def checkpoint(self) -> None:
        """Move the log into the file and cut it to nothing; what readers and writers are in the way of stays."""
        self.check_same_file()
        failpoint("checkpoint.before")
        self.all("PRAGMA wal_checkpoint(TRUNCATE)")
        failpoint("checkpoint.after")

    def data_version(self) -> int:
        """A number that differs when another connection has committed in between."""
        self.check_same_file()
        return self._data_version()

    def mark(self) -> tuple[int, int]:
        """In a write transaction: what differs once anybody, this connection too, has changed anything since."""
        return self._seen, self.connection.total_changes

    def tell(self, kind: bytes) -> None:
        """Nobody uses such a store from another machine."""

    def boot(self) -> str | None:
        """The boot of this machine."""
        from hueyctl.storage.boot import boot_id  # loaded by workers alone

        return boot_id()

    def _data_version(self) -> int:
        row = self.one("PRAGMA data_version")
        return int(row[0]) if row else 0

    # -- the file ---------------------------------------------------------------------------------------------------
    def check_same_file(self) -> None:
        """Raise StoreReplaced unless the files at the path are those that were opened."""
        if not self._watched:
            return
        if self._identity(opened=True) != self._file:
            raise StoreReplaced(
                f"{self.path} is no longer the file that was opened: it was replaced while in use",
                hint="stop everything that uses it, put the right file back, and start again",
            )
        log = _inode(self._wal)
        if self._log_file is None:
            self._log_file = log
        elif log != self._log_file:
            raise StoreReplaced(
                f"{self._wal} was removed or replaced while in use: it holds the newest changes",
                hint="stop everything that uses the store, and restore it from a `hueyctl backup`",
            )

    def close(self) -> None:
        """Close the connection; the last one of all moves the log into the file."""
        with suppress(sqlite3.Error):
            self.connection.close()

    def told(self, exc: Exception) -> StoreError:
        """What an error of sqlite3 means to the user."""
        if isinstance(exc, OverflowError):
            return Unstorable(f"{self.path}: a number is too large to be stored")
        code = getattr(exc, "sqlite_errorcode", None) or 0
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreBusy(
                    f"{self.path} was locked by another process for more than {self.busy_s:g} s",
                    hint="try again; if it stays locked, find the process that holds it (fuser, lsof)",
                )
            case sqlite3.SQLITE_FULL:
                return StoreFull(f"{self.path}: the disk is full", hint="free some space; nothing was half-done")
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return _unwritable(self.path, "can't be written")
            case sqlite3.SQLITE_CANTOPEN if not os.path.lexists(self.path):
                return missing(self.path)
            case sqlite3.SQLITE_CANTOPEN:
                return _unwritable(self.path, f"can't be opened here: {exc}")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return damaged(self.path, str(exc))
            case sqlite3.SQLITE_IOERR if code in {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}:
                # Quotas and file size limits come as the first, and whoever opens a store on a full disk gets the
                # second; the disk's own errors come when it syncs.
                what = f"{self.path} can't grow: the disk, a quota or a file size limit is full"
                return StoreFull(what, hint="free some space; nothing was half-done")
            case sqlite3.SQLITE_IOERR:
                name = getattr(exc, "sqlite_errorname", "SQLITE_IOERR")
                return StoreError(f"{self.path}: the disk failed ({exc}, {name})", hint="check the disk")
            case sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH:
                return Unstorable(f"{self.path}: {exc}")
            case _:
                return StoreError(f"{self.path}: {exc}")

    # -- opening ----------------------------------------------------------------------------------------------------
    def _connection(self, query: str) -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                f"file:{quoted_path(self.path)}?{query}",
                uri=True,
                timeout=BUSY_SLICE_S,
                isolation_level=None,
                # A store is used by one thread at a time; that it may be handed over is its owner's business.
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.Error as exc:
            raise self.told(exc) from exc

    def _read_only_connection(self) -> sqlite3.Connection:
        connection = self._connection("mode=ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
        except sqlite3.Error as exc:
            connection.close()
            told = self.told(exc)
            # In a folder that can't be written SQLite can't make the shared memory of the log. Without a log there is
            # nothing to share: the file is all, and as nobody can write it, it won't change.
            if not isinstance(told, StoreReadOnly) or _size(self._wal) > 0:
                raise told from exc
            self._watched = False
            return self._connection("mode=ro&immutable=1")
        return connection

    def _set_up(self) -> None:
        self._expect("journal_mode", "WAL", "wal")
        pages = self._log_pages()
        self._expect("wal_autocheckpoint", pages, pages)
        self._expect("cache_size", -CACHE_KIB, -CACHE_KIB)
        self._expect("temp_store", "MEMORY", 2)
        if sys.platform == "darwin":
            self._expect("fullfsync", 1, 1)
            self._expect("checkpoint_fullfsync", 1, 1)
        self._expect("synchronous", NORMAL, NORMAL)

    def _log_pages(self) -> int:
        row = self.one("PRAGMA page_size")
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return WAL_AUTOCHECKPOINT_PAGES
        pages = int(found.f_bavail * found.f_frsize * LOG_SHARE) // (row[0] if row else 4096)
        return max(LEAST_AUTOCHECKPOINT_PAGES, min(pages, WAL_AUTOCHECKPOINT_PAGES))

    def _expect(self, pragma: str, value: object, result: object) -> None:
        self.run(f"PRAGMA {pragma} = {value}")
        found = self.one(f"PRAGMA {pragma}")
        if found != (result,):
            raise StoreError(f"{self.path}: SQLite keeps {pragma} at {found and found[0]}, where {value} is needed")

    def _check_format(self) -> None:
        found = self.one("PRAGMA application_id")
        tables = self.one("SELECT count(*) FROM sqlite_schema WHERE name IN ('runs', 'events', 'meta')")
        if found != (APPLICATION_ID,) or tables != (3,):
            raise damaged(self.path, "it is not a store of hueyctl")
        self._check_version(older_too=False)

    def version(self) -> int:
        """The schema version of the file."""
        row = self.one("PRAGMA user_version")
        return int(row[0]) if row else 0

    def _check_version(self, *, older_too: bool = True) -> None:
        version = self.version()
        if version > SCHEMA_VERSION:
            raise StoreNewer(
                f"{self.path} was written by a newer hueyctl (store version {version}, known here: {SCHEMA_VERSION})",
                hint="upgrade hueyctl",
            )
        if older_too and version < SCHEMA_VERSION:
            raise older(self.path, version)

    def _identity(self, *, opened: bool = False) -> tuple[int, int]:
        found = _inode(self._name)
        if found is None and opened:
            raise StoreReplaced(
                f"{self.path} was deleted or moved while in use",
                hint="stop everything that uses it, put the file back with its -wal, and start again",
            )
        if found is None:
            raise missing(self.path)
        return found

    def _again(self, exc: Exception, sql: str, values: Sequence[Any]) -> tuple[list[Row], int]:
        """Repeat a statement that failed where that helps: with valid text, or until the lock is free."""
        deadline = time.monotonic() + self.busy_s
        while True:
            if isinstance(exc, UnicodeEncodeError):
                values = [utf8(value) if isinstance(value, str) else value for value in values]
            else:
                told = self.told(exc)
                waiting = isinstance(told, StoreBusy) and not self.connection.in_transaction
                if not waiting or time.monotonic() >= deadline:
                    raise told from exc
            try:
                cursor = self.connection.execute(sql, values)
                return cursor.fetchall(), cursor.rowcount
            except (sqlite3.Error, OverflowError) as another:
                exc = another


def missing(path: Path) -> StoreMissing:
    """There is no store at `path`."""
    return StoreMissing(f"{path}: there is no store yet", hint="`hueyctl enqueue` or `hueyctl worker start` makes one")


def _unwritable(path: Path, found: str) -> StoreReadOnly:
    if is_read_only(path.parent):
        return StoreReadOnly(f"{path} can't be written: its file system is mounted read-only")
    return StoreReadOnly(f"{path} {found}", hint=PERMISSIONS)


def damaged(path: Path, found: str) -> StoreDamaged:
    """What is at `path` can't be read as a store."""
    return StoreDamaged(
        f"{path} is damaged: {found}; it was left as it is",
        hint="stop the workers, keep the file with its -wal, and restore a copy made by `hueyctl backup`",
    )


def older(path: Path, version: int) -> StoreError:
    """The store at `path` wants migrating."""
    return StoreError(
        f"{path} was written by an older hueyctl (store version {version}; this one writes {SCHEMA_VERSION})",
        hint="`hueyctl worker start` migrates it",
    )


def quoted_path(path: Path) -> str:
    """A path as SQLite's URIs want it."""
    plain = b"/-_.~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in os.fsencode(path))


def _inode(path: str | Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror}") from exc
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
