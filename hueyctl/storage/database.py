"""`Database`: what the statements of this package are run on, and what of it every kind of database has in common.

The verbs of a store (`sql.SqlStore`) are written once, for SQLite and for PostgreSQL. What they rely on:

- One transaction writes at a time, whoever asks: `write` waits for its turn before it reads anything. So what a verb
  has looked at still holds when it commits, and events are numbered in the order of their commits.
- A write is undone whole when anything in it fails, and one that changes nothing writes nothing.
- Statements are in SQL that both understand, with `?` and `?1` for values. Times and flags are integers.
- A driver's own error never gets out: it becomes one of `hueyctl.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from hueyctl.errors import StoreError
from hueyctl.storage.rows import Row

SCHEMA_VERSION = 1


class Unstorable(StoreError):
    """The values can't be stored: they break a constraint, or are too large."""


class SyncFailed(StoreError):
    """The disk didn't take what was committed. It stands in the store, and may be gone after a power cut.

    Never to be retried: the kernel reports a lost page once, and a second sync of it succeeds.
    """


class Database(Protocol):
    """One open connection. One thread at a time."""

    @property
    def is_shared(self) -> bool:
        """Do several machines use it? Then it has a table for the ends of what runs have printed."""

    # -- statements -------------------------------------------------------------------------------------------------
    def all(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement and fetch all that it gives, so that nothing of it stays open."""

    def one(self, sql: str, *values: Any) -> Row | None:
        """The first row that a statement gives; for those that give at most one."""

    def run(self, sql: str, *values: Any) -> int:
        """Run one statement that gives no rows; how many rows it changed."""

    def many(self, sql: str, rows: Sequence[Row]) -> int:
        """Run one statement for each of `rows`, whose text is valid UTF-8; how many rows of the store they changed."""

    # -- transactions -----------------------------------------------------------------------------------------------
    def write(self, *, durable: bool) -> AbstractContextManager[None]:
        """A write transaction around the block; `durable`: it is on the disk when it ends, and all before it.

        Raises:
            StoreBusy: others wrote for longer than this connection waits.
            StoreReplaced: the store is no longer the one that was opened.
            StoreNewer: a newer hueyctl has migrated the store meanwhile.
            SyncFailed: it is written, but the disk failed to keep it.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Reads in the block see one moment. Short: upkeep waits for them, in one way or another."""

    def mark(self) -> tuple[int, int]:
        """In a write transaction: what differs once anybody, this connection too, has changed anything since."""

    def tell(self, kind: bytes) -> None:
        """In a write transaction: when it is committed, ring those who listen from other machines (see `bell.ring`)."""

    def sync(self) -> None:
        """Put everything committed so far on the disk, other processes' commits too."""

    def checkpoint(self) -> None:
        """Move the log into the main file and shorten it, where there is such a thing."""

    # -- the whole --------------------------------------------------------------------------------------------------
    def data_version(self) -> int:
        """A number that differs when another connection has committed in between."""

    def boot(self) -> str | None:
        """What differs when what keeps the store has been down in between, maybe with what was not synced; None: it
        isn't known."""

    def close(self) -> None:
        """Let the connection go."""
