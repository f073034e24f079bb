"""What the maintaining worker does between claims: expiry, holding, pruning; in steps, as others want to write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from hueyctl.failpoints import failpoint
from hueyctl.model.definition import Retention
from hueyctl.model.event import EventType
from hueyctl.model.hook import ANY_JOB, Hooks
from hueyctl.model.run import RunState
from hueyctl.storage import gates
from hueyctl.storage.database import Database
from hueyctl.storage.exchange import BATCH, expire
from hueyctl.storage.hooks import follow
from hueyctl.storage.log import Log
from hueyctl.storage.rows import MICROSECOND, SUBJECT, micros, run_from, to_json
from hueyctl.storage.settling import BY_NUMBER
from hueyctl.storage.store import Pruned

UNDEFINED: Final = "no worker that serves its queue defines this job"

HOLD: Final = f"""
UPDATE runs SET state = 'held', hold = 'undefined', reason = ? WHERE n IN (
    SELECT n FROM runs WHERE state = 'queued' AND gate IS NULL AND queue = ? AND job = ?
    ORDER BY priority DESC, n LIMIT {BATCH}
) RETURNING {SUBJECT}, lock_key
"""

ADMIT: Final = f"""
UPDATE runs SET state = 'queued', hold = NULL, reason = NULL WHERE n IN (
    SELECT n FROM runs WHERE state = 'held' AND queue = ? AND job = ? AND hold = ? LIMIT {BATCH}
) RETURNING {SUBJECT}
"""

HELD_LINES: Final = "SELECT DISTINCT queue, job FROM runs WHERE state = 'held' AND hold = ?"

# By state, so that each is a stretch of the index runs_ended. A pipeline goes as a whole, and its steps stay as long
# as any of them would: they are not in that index, and its own run has ended last.
_PRUNABLE: Final = """
state = ? AND finished_at < ? AND finished_at IS NOT NULL AND position IS NULL AND (pipeline IS NULL OR finished_at < ?)
"""
PRUNABLE: Final = f"SELECT n, id, pipeline FROM runs WHERE {_PRUNABLE} ORDER BY finished_at LIMIT ?"
PRUNE_RUN: Final = "DELETE FROM runs WHERE n = ?"
PRUNE_EDGES: Final = """
DELETE FROM edges WHERE child IN (SELECT n FROM runs WHERE pipeline = ? AND pipeline IS NOT NULL)
"""
PRUNE_PIPELINE: Final = "DELETE FROM runs WHERE pipeline = ? AND pipeline IS NOT NULL RETURNING id"

# By number, for there is no index on time. An event that a wrong clock put into the future is as old as those around
# it: waiting for its time, with all that is behind it, would let the log grow for years.
OLDEST_EVENTS: Final = "SELECT seq, time FROM events ORDER BY seq LIMIT ?"
NEXT_IN_TIME: Final = "SELECT time FROM events WHERE seq > ? AND time <= ? ORDER BY seq LIMIT 1"
# The newest stays: the next one's number must be above all that were ever given out.
PRUNE_EVENTS: Final = """
DELETE FROM events WHERE seq <= ? AND (time < ? OR time > ?) AND seq < (SELECT max(seq) FROM events)
"""

PRUNABLE_RUNS: Final = f"""
SELECT CAST(coalesce(sum(CASE WHEN pipeline IS NULL THEN 1 ELSE (
    SELECT count(*) FROM runs AS part WHERE part.pipeline = runs.pipeline AND part.pipeline IS NOT NULL
) END), 0) AS BIGINT) FROM runs WHERE {_PRUNABLE}
"""

PRUNABLE_EVENTS: Final = "SELECT count(*) FROM events WHERE time < ? AND seq < (SELECT max(seq) FROM events)"

# A slot that is gone can't come back: `last_slot` is above it.
PRUNE_SLOTS: Final = """
DELETE FROM slots WHERE (schedule, slot) IN (SELECT schedule, slot FROM slots WHERE at < ? ORDER BY at LIMIT ?)
"""

# What lies before a pause that is as old as this is too old to be told as missed: it goes on behind it.
PRUNE_PAUSED: Final = "DELETE FROM paused_times WHERE until < ? RETURNING until, schedule"
GO_ON: Final = "UPDATE schedules SET last_slot = ?1 WHERE last_slot < ?1 AND (name = ?2 OR ?2 = '')"

ENDED_BADLY: Final = ("failed", "revoked", "expired", "skipped")


def sweep(database: Database, served: Mapping[str, Collection[str]] | None, now: datetime, hooks: Hooks) -> int:
    """`Store.sweep`."""
    log = Log(micros(now), None, hooks)
    with database.write(durable=False):
        changed, released = expire(database, log), 0
        if served is not None:
            for queue, job in database.all("SELECT queue, job FROM lines WHERE state = 'queued' AND count > 0"):
                if _is_served(served, queue) and not _is_defined(served, queue, job):
                    rows = database.all(HOLD, UNDEFINED, queue, job)
                    data = to_json({"reason": UNDEFINED})
                    for *subject, _ in sorted(rows):
                        log.row(subject, EventType.HELD, RunState.QUEUED, RunState.HELD, data)
                        if hooks:
                            held = database.all(BY_NUMBER, subject[0])
                            log.hook(run_from(held[0]), or_else=ANY_JOB)
                    for lock_key in {lock_key for *_, lock_key in rows}:
                        gates.open_lock(database, lock_key, log)
                    changed += len(rows)
            for queue, job in database.all(HELD_LINES, "undefined"):
                if _is_defined(served, queue, job):
                    released += _admit(database, queue, job, "undefined", log)
        log.write(database)
        follow(database, log)
        failpoint("release.before", released)
    failpoint("release.after", released)
    return changed + released


def readmit(database: Database, jobs: Collection[str], now: datetime) -> int:
    """`Store.readmit`."""
    log = Log(micros(now), None)
    released = 0
    with database.write(durable=False):
        for queue, job in database.all(HELD_LINES, "misfit"):
            if job in jobs:
                released += _admit(database, queue, job, "misfit", log)
        log.write(database)
    return released


def prune(database: Database, retention: Retention, *, now: datetime, limit: int) -> Pruned:
    """`Store.prune`."""
    ids: list[str] = []
    with database.write(durable=False):
        for end in _ends(retention, now):
            for n, id, pipeline in database.all(PRUNABLE, *end, max(0, limit - len(ids))):
                if len(ids) >= limit:
                    break  # the last may have gone above it: a pipeline goes as a whole
                if pipeline is None:
                    database.run(PRUNE_RUN, n)
                    ids.append(id)
                else:
                    database.run(PRUNE_EDGES, pipeline)
                    ids += [row[0] for row in database.all(PRUNE_PIPELINE, pipeline)]
        events, more = _prune_events(database, micros(now), _before(now, retention.events), limit)
        database.run(PRUNE_SLOTS, _before(now, retention.events), limit)
        for until, schedule in database.all(PRUNE_PAUSED, _before(now, retention.events)):
            database.run(GO_ON, until, schedule)
        failpoint("prune.before", ids or events)
    failpoint("prune.after", ids or events)
    return Pruned(tuple(ids), more=more or len(ids) >= limit, events=events)


def prunable(database: Database, retention: Retention, *, now: datetime) -> tuple[int, int]:
    """`Store.prunable`."""
    with database.snapshot():
        counts = [database.one(PRUNABLE_RUNS, *end) for end in _ends(retention, now)]
        events = database.one(PRUNABLE_EVENTS, _before(now, retention.events))
    return sum(row[0] for row in counts if row), events[0] if events else 0


def _prune_events(database: Database, now: int, before: int, limit: int) -> tuple[int, bool]:
    """How many events were deleted; whether another step may delete more."""
    oldest = database.all(OLDEST_EVENTS, limit)
    last = next((seq for seq, time in reversed(oldest) if time < before), None)
    if last is None and oldest and all(time > now for _, time in oldest):
        after = database.one(NEXT_IN_TIME, oldest[-1][0], now)
        last = oldest[-1][0] if after and after[0] < before else None
    if last is None:
        return 0, False
    return database.run(PRUNE_EVENTS, last, before, now), len(oldest) == limit


def _admit(database: Database, queue: str, job: str, hold: str, log: Log) -> int:
    rows = database.all(ADMIT, queue, job, hold)
    for row in sorted(rows):
        log.row(row, EventType.RELEASED, RunState.HELD, RunState.QUEUED)
    return len(rows)


def _ends(retention: Retention, now: datetime) -> list[tuple[str, int, int]]:
    """Each terminal state, with the times before which a run that ended in it goes, and a pipeline."""
    succeeded, failed = _before(now, retention.succeeded), _before(now, retention.failed)
    # Of the steps of one that ended badly some may have succeeded.
    bad = [(state, failed, min(succeeded, failed)) for state in ENDED_BADLY]
    return [("succeeded", succeeded, succeeded), *bad]


def _before(now: datetime, kept: timedelta) -> int:
    # In integers: a retention of ten thousand years is a way to say "for ever", and no date is that old.
    return micros(now) - kept // MICROSECOND


def _is_served(served: Mapping[str, Collection[str]], queue: str) -> bool:
    return queue in served or "*" in served


def _is_defined(served: Mapping[str, Collection[str]], queue: str, job: str) -> bool:
    return job in served.get(queue, ()) or job in served.get("*", ())
