"""What a connection need not ask again: it holds for as long as nobody has written since, on it or on another one.

A busy worker's transactions follow each other by fractions of a millisecond, mostly with nobody in between: what all of
them ask (which switches are set, when the next run becomes due) is a third of what an empty one costs.
"""

from __future__ import annotations

from typing import Final

from hueyctl.storage.database import Database

# What waits for a time.
PENDING: Final = """
SELECT (SELECT min(due_at) FROM runs WHERE state = 'scheduled'),
       (SELECT min(expires_at) FROM runs
        WHERE expires_at IS NOT NULL AND finished_at IS NULL AND state <> 'running')
"""
PAUSED: Final = "SELECT kind, name FROM pauses WHERE kind IN ('all', 'job', 'queue')"


class Known:
    """Of one connection: read through it, in a write transaction, after `look`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark: object = None
        self._pending: tuple[int | None, int | None] | None = None
        self._paused: frozenset[tuple[str, str]] | None = None
        self._registered: str | None = None
        self.line: tuple[str, str] | None = None
        """The only (queue, job) of which runs may be claimed; None: there are others, or it isn't known."""

    def look(self) -> None:
        """Forget all, if anybody has written since `keep`. The first thing in a transaction."""
        if self._mark != self._database.mark():
            self._pending = self._paused = self._registered = self.line = None

    def keep(self) -> None:
        """What is known now is so after the transaction too. Only when it is committed: one that is undone has known
        what never was."""
        self._mark = self._database.mark()

    def pending(self, *, again: bool = False) -> tuple[int | None, int | None]:
        """When the next scheduled run becomes due, and when the next run expires (microseconds; None: none does).

        A time may be that of a run which no longer waits; `again`: it has come, or a run that may wait for one is new.
        """
        if again or self._pending is None:
            row = self._database.one(PENDING)
            self._pending = (None, None) if row is None else (row[0], row[1])
        return self._pending

    def paused(self) -> frozenset[tuple[str, str]]:
        """The switches that are set, as (kind, name)."""
        if self._paused is None:
            self._paused = frozenset(self._database.all(PAUSED))
        return self._paused

    def registered(self, worker: str) -> bool:
        """Is it known as a worker (still)?"""
        if self._registered != worker:
            if self._database.one("SELECT 1 FROM workers WHERE id = ?", worker) is None:
                return False
            self._registered = worker
        return True
