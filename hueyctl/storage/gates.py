"""Gates: a queued run with one waits for another run, and no claim sees it.

A run waits for the others of its schedule (`schedule:NAME`) as its overlap says, and then for whoever holds its lock
(`lock:KEY`). The table `gates` has the holders: a lock is held by an attempt and by nothing else, from its claim to its
end, whatever that is. So it can't go stale: the rescue of a dead worker's runs lets its locks go.

A claim that finds the lock taken puts the run behind the gate, so that each run is looked at once in each wait, and
those behind it in its line come to their turn. The end of the holder lets the first of each line (queue, job) out,
not the first of all: that one may be paused, or its job not defined by any worker that lives.
"""

from __future__ import annotations

from typing import Final

from hueyctl.model.event import EventType
from hueyctl.model.run import Run, RunState
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log

CLOSE: Final = "UPDATE runs SET gate = ? WHERE n = ?"

# The first in line, if nobody else of the schedule is under way: what is live and doesn't wait for it is (`lock:` sorts
# before `schedule:`). finished_at is null as long as a run is live, in retry too; the literals are those of the indexes
# runs_gated and runs_of_schedule.
OPEN: Final = """
UPDATE runs SET gate = NULL WHERE n = (
    SELECT n FROM runs WHERE gate = ?1 AND gate IS NOT NULL AND finished_at IS NULL ORDER BY priority DESC, n LIMIT 1
) AND NOT EXISTS (
    SELECT 1 FROM runs AS other
    WHERE other.schedule = ?2 AND other.schedule IS NOT NULL AND other.finished_at IS NULL AND other.gate IS NULL
) AND NOT EXISTS (
    SELECT 1 FROM runs AS other
    WHERE other.schedule = ?2 AND other.schedule IS NOT NULL AND other.finished_at IS NULL AND other.gate < ?1
) RETURNING pipeline
"""

# A holder that doesn't run holds nothing: nobody would ever let go of it.
TAKE: Final = """
INSERT INTO gates (key, n, since) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET n = excluded.n, since = excluded.since
    WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.n = gates.n AND runs.state = 'running')
"""

HOLDER: Final = """
SELECT runs.id, gates.since FROM gates JOIN runs ON runs.n = gates.n WHERE gates.key = ? AND runs.state = 'running'
"""

_WAITER: Final = "state = 'queued' AND gate IS NOT NULL AND lock_key IS NOT NULL AND gate = ?1"

# The first waiter of each line, by two seeks a line (as lines.HEADS).
OPEN_LOCK: Final = f"""
UPDATE runs SET gate = NULL WHERE n IN (
    WITH RECURSIVE line (n, queue, job) AS (
        SELECT * FROM (
            SELECT n, queue, job FROM runs INDEXED BY runs_locked WHERE {_WAITER}
            ORDER BY queue, job, priority DESC, n LIMIT 1
        ) AS first
        UNION ALL
        SELECT next.n, next.queue, next.job FROM line JOIN runs AS next ON next.n = coalesce(
            (SELECT n FROM runs INDEXED BY runs_locked WHERE {_WAITER} AND queue = line.queue AND job > line.job
             ORDER BY job, priority DESC, n LIMIT 1),
            (SELECT n FROM runs INDEXED BY runs_locked WHERE {_WAITER} AND queue > line.queue
             ORDER BY queue, job, priority DESC, n LIMIT 1)
        )
    )
    SELECT n FROM line
)
"""

LAST_EVENT: Final = "SELECT type FROM events WHERE n = ? AND n IS NOT NULL ORDER BY seq DESC LIMIT 1"


def of_schedule(schedule: str) -> str:
    """The gate behind which a run waits for those of its schedule that are under way."""
    # A lock's key and a schedule's name must not meet.
    return f"schedule:{schedule}"


def open_next(database: Database, schedule: str | None, log: Log) -> str | None:
    """A run of `schedule` has ended: let the first that waits behind it go, if it was the last under way. Returns the
    pipeline that it let go, if it is one: its steps are still to be let start."""
    opened = None if schedule is None else database.one(OPEN, of_schedule(schedule), schedule)
    if opened is None:
        return None
    log.opened = True
    pipeline: str | None = opened[0]
    return pipeline


def take(database: Database, run: Run, log: Log) -> bool:
    """Give this run, which is about to be claimed, its lock; or let it wait for the one that holds it (False)."""
    if run.lock_key is None or database.run(TAKE, run.lock_key, run.n, log.time):
        return True
    wait_if_held(database, run, log)
    return False


def wait_if_held(database: Database, run: Run, log: Log) -> None:
    """Let this queued run wait, if another one holds its lock; recorded once in each wait."""
    holder = None if run.lock_key is None else database.one(HOLDER, run.lock_key)
    if run.lock_key is not None and holder is not None:
        database.run(CLOSE, _of_lock(run.lock_key), run.n)
        if database.one(LAST_EVENT, run.n) != (EventType.LOCKED.value,):
            log.run(run, EventType.LOCKED, RunState.QUEUED, {"key": run.lock_key, "holder": holder[0]})


def let_go(database: Database, n: int, key: str | None, log: Log) -> None:
    """An attempt of run `n` is over: its lock is free, and those that wait for it may be claimed."""
    if key is not None:
        database.run("DELETE FROM gates WHERE key = ? AND n = ?", key, n)
        open_lock(database, key, log)


def open_lock(database: Database, key: str | None, log: Log) -> bool:
    """One that was let out has left its line unclaimed (or its lock is free): unless another one holds it, let out the
    first that waits in each line. Was there one?"""
    opened = key is not None and database.one(HOLDER, key) is None and database.run(OPEN_LOCK, _of_lock(key)) > 0
    log.opened |= opened
    return opened


def _of_lock(key: str) -> str:
    return f"lock:{key}"
