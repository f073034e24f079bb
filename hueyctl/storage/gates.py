"""Gates: a queued run with one waits for another run's end, and no claim sees it."""

from __future__ import annotations

from typing import Final

from hueyctl.storage.database import Database

CLOSE: Final = "UPDATE runs SET gate = ? WHERE n = ?"

# The first in line, if nobody else of the schedule is under way: what is live and has no gate is. finished_at is null
# as long as a run is live, in retry too; the literals are those of the indexes runs_gated and runs_of_schedule.
OPEN: Final = """
UPDATE runs SET gate = NULL WHERE n = (
    SELECT n FROM runs WHERE gate = ? AND gate IS NOT NULL AND state = 'queued' ORDER BY priority DESC, n LIMIT 1
) AND NOT EXISTS (
    SELECT 1 FROM runs AS other
    WHERE other.schedule = ? AND other.schedule IS NOT NULL AND other.finished_at IS NULL AND other.gate IS NULL
)
"""


def close(database: Database, n: int, schedule: str) -> None:
    """Let run `n` wait for those of its schedule that are under way."""
    database.run(CLOSE, _key(schedule), n)


def open_next(database: Database, schedule: str | None) -> None:
    """A run of `schedule` has ended: let the first that waits behind it go, if it was the last under way."""
    if schedule is not None:
        database.run(OPEN, _key(schedule), schedule)


def _key(schedule: str) -> str:
    # A lock's key and a schedule's name must not meet.
    return f"schedule:{schedule}"
