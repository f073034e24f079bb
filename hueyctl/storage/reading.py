"""What is read from the store, with no worker needed. Every read is one moment's, and leaves no transaction open.

What is asked at a glance costs the same with a million runs as with a thousand: heads of lines, counts that are kept,
indexes named where SQLite would walk through all runs instead.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from hueyctl.model.definition import RateLimit
from hueyctl.model.event import Event
from hueyctl.model.run import TERMINAL, Run, RunState
from hueyctl.storage.database import Database
from hueyctl.storage.gates import HOLDER
from hueyctl.storage.limits import IN_THE_WAY
from hueyctl.storage.lines import HEADS, LINE
from hueyctl.storage.rows import EVENT_COLUMNS, RUN_COLUMNS, Row, event_from, instant, micros, pause_from, run_from
from hueyctl.storage.store import EventFilter, Line, LockHolder, Pause, RunFilter

if TYPE_CHECKING:
    from hueyctl.model.transition import Printed

NO_LIMIT: Final = 2**63 - 1
# No more than so many runs are counted in front of one.
AHEAD_MAX: Final = 1_000

SCHEDULED: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE state = 'scheduled' ORDER BY due_at, n LIMIT ?
"""

# What waits behind gates (the locks of others, the turn of a schedule): the first few gates, by a seek each, and who
# is next at one.
GATES: Final = """
WITH RECURSIVE waited (gate) AS (
    SELECT min(gate) FROM runs WHERE gate IS NOT NULL AND finished_at IS NULL
    UNION ALL
    SELECT (SELECT min(gate) FROM runs WHERE gate IS NOT NULL AND finished_at IS NULL AND gate > waited.gate)
    FROM waited WHERE waited.gate IS NOT NULL
)
SELECT gate FROM waited WHERE gate IS NOT NULL LIMIT ?
"""
AT_GATE: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE gate = ? AND gate IS NOT NULL AND finished_at IS NULL AND state = 'queued'
ORDER BY priority DESC, n LIMIT ?
"""

AHEAD: Final = f"""
SELECT (SELECT count(*) FROM (SELECT 1 FROM runs WHERE state = 'queued' AND gate IS NULL
            AND queue = ?1 AND job = ?2 AND priority > ?3 LIMIT {AHEAD_MAX}) AS higher)
     + (SELECT count(*) FROM (SELECT 1 FROM runs WHERE state = 'queued' AND gate IS NULL
            AND queue = ?1 AND job = ?2 AND priority = ?3 AND n < ?4 LIMIT {AHEAD_MAX}) AS older)
"""

# The run that somebody asked for by hand: no slot of a schedule did, nor a hook, nor a pipeline for its steps.
LAST: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE trigger = 'manual' AND position IS NULL ORDER BY n DESC LIMIT 1
"""

# Those that ended badly, the last to end first; and of a pipeline the steps that did.
BAD_LATELY: Final = f"""
SELECT {RUN_COLUMNS} FROM runs INDEXED BY runs_ended WHERE state = ? AND finished_at IS NOT NULL AND position IS NULL
ORDER BY finished_at DESC LIMIT ?
"""
BAD_STEPS: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE pipeline = ? AND pipeline IS NOT NULL AND position IS NOT NULL
    AND state IN ('failed', 'expired')
"""

LINES: Final = """
SELECT queue, job, state, count FROM lines WHERE count > 0
UNION ALL
SELECT queue, job, 'running', count(*) FROM runs INDEXED BY runs_running WHERE state = 'running' AND worker > ''
GROUP BY queue, job
ORDER BY 1, 2, 3
"""

# Of the runs of all jobs that ended so last; steps are in the index of those that ended badly alone.
LAST_SUCCEEDED: Final = """
SELECT job, max(finished_at), count(*) FROM (
    SELECT job, finished_at FROM runs WHERE state = 'succeeded' AND finished_at IS NOT NULL AND position IS NULL
    ORDER BY finished_at DESC LIMIT ?
) AS newest GROUP BY job
"""
LAST_BAD: Final = """
SELECT job, max(finished_at), count(*) FROM (
    SELECT job, finished_at FROM runs INDEXED BY runs_bad
    WHERE state = ? AND finished_at IS NOT NULL AND state <> 'succeeded' ORDER BY n DESC LIMIT ?
) AS newest GROUP BY job
"""
LAST_OF_JOB: Final = """
SELECT max(finished_at) FROM (
    SELECT state, finished_at FROM runs INDEXED BY runs_job WHERE job = ? ORDER BY n DESC LIMIT ?
) AS newest WHERE state = ?
"""


def get(database: Database, id: str) -> Run | None:
    """`Store.get`."""
    return _maybe(database.one(f"SELECT {RUN_COLUMNS} FROM runs WHERE id = ?", id))


def find(database: Database, prefix: str, *, limit: int) -> list[Run]:
    """`Store.find`."""
    sql = f"SELECT {RUN_COLUMNS} FROM runs WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    return _runs(database.all(sql, prefix, prefix + "\U0010ffff", limit))


def newest(database: Database, *, job: str | None) -> Run | None:
    """`Store.newest`."""
    if job is None:
        return _maybe(database.one(LAST))
    return _maybe(database.one(f"SELECT {RUN_COLUMNS} FROM runs WHERE job = ? ORDER BY n DESC LIMIT 1", job))


def runs(database: Database, where: RunFilter, *, limit: int | None, before: int | None) -> list[Run]:
    """`Store.runs`."""
    conditions: list[str] = []
    values: list[Any] = []
    for condition, value in (
        ("job = ?", where.job),
        ("queue = ?", where.queue),
        ("schedule = ? AND position IS NULL", where.schedule),
        ("pipeline = ?", where.pipeline),
        ("enqueued_at >= ?", where.since and micros(where.since)),
        ("enqueued_at < ?", where.until and micros(where.until)),
        ("n < ?", before),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    # One state at a time: for several SQLite would sort all runs that are in any of them.
    found: list[Row] = []
    with database.snapshot():
        for state in [None] if where.states is None else dict.fromkeys(where.states):
            index = _index(state, where)
            of_state = [] if state is None else [f"state = '{state.value}'"]
            if index == "runs_bad":
                of_state.append("finished_at IS NOT NULL AND state <> 'succeeded'")
            sql = f"SELECT {RUN_COLUMNS} FROM runs {f'INDEXED BY {index}' if index else ''}"
            if of_state or conditions:
                sql += " WHERE " + " AND ".join(of_state + conditions)
            found += database.all(f"{sql} ORDER BY n DESC LIMIT ?", *values, NO_LIMIT if limit is None else limit)
    found.sort(key=lambda row: -row[0])
    return _runs(found if limit is None else found[:limit])


def events(database: Database, where: EventFilter, *, after: int, limit: int) -> list[Event]:
    """`Store.events`."""
    with database.snapshot():
        conditions, values = _event_conditions(database, where)
        sql = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ?{conditions} ORDER BY seq LIMIT ?"
        rows = database.all(sql, after, *values, limit)
    return [event_from(row) for row in rows]


def last_events(database: Database, where: EventFilter, *, limit: int) -> list[Event]:
    """`Store.last_events`."""
    with database.snapshot():
        conditions, values = _event_conditions(database, where)
        sql = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > 0{conditions} ORDER BY seq DESC LIMIT ?"
        rows = database.all(sql, *values, limit)
    return [event_from(row) for row in reversed(rows)]


def last_seq(database: Database) -> int:
    """`Store.last_seq`."""
    row = database.one("SELECT max(seq) FROM events")
    return row[0] or 0 if row else 0


def lines(database: Database) -> list[Line]:
    """`Store.lines`."""
    return [
        Line(queue=queue, job=job, state=RunState(state), count=count)
        for queue, job, state, count in database.all(LINES)
    ]


def heads(database: Database) -> list[Run]:
    """`Store.heads`."""
    with database.snapshot():
        rows = [row for _, _, queue, job in database.all(HEADS) for row in database.all(LINE, queue, job, 1)]
    return _runs(rows)


def last_ended(database: Database, jobs: Collection[str], state: RunState, *, among: int) -> dict[str, datetime]:
    """`Store.last_ended`."""
    if state is RunState.SUCCEEDED:
        rows = database.all(LAST_SUCCEEDED, 10 * among)
    else:
        rows = database.all(LAST_BAD, state.value, 10 * among)
    found = {job: at for job, at, _ in rows}
    if state is RunState.SUCCEEDED or sum(count for _, _, count in rows) == 10 * among:
        for job in jobs:
            if job not in found:
                [(found[job],)] = database.all(LAST_OF_JOB, job, among, state.value)
    return {job: instant(found[job]) for job in jobs if found.get(job) is not None}


def next_up(database: Database, *, limit: int) -> list[Run]:
    """`Store.next_up`."""
    with database.snapshot():
        # A line whose head isn't among the best has nobody among them.
        heads = sorted(database.all(HEADS))[:limit]
        queued = _by_turn([row for _, _, queue, job in heads for row in database.all(LINE, queue, job, limit)])
        gates = database.all(GATES, limit)
        gated = _by_turn([row for (gate,) in gates for row in database.all(AT_GATE, gate, limit)])
        scheduled = _runs(database.all(SCHEDULED, limit))
    return (queued + gated + scheduled)[:limit]


def _by_turn(rows: list[Row]) -> list[Run]:
    return sorted(_runs(rows), key=lambda run: (-run.priority, run.n))


def last_failed(database: Database, *, limit: int) -> list[Run]:
    """`Store.last_failed`."""
    bad = (RunState.FAILED, RunState.EXPIRED)
    with database.snapshot():
        rows = [row for state in bad for row in database.all(BAD_LATELY, state.value, 2 * limit)]
        whole = [run.id for run in _runs(rows) if run.is_pipeline]
        rows += [row for id in whole for row in database.all(BAD_STEPS, id)]
    # Steps of pipelines that go on have no index by their end: the newest of them will do.
    found = {run.n: run for run in [*_runs(rows), *runs(database, RunFilter(states=bad), limit=2 * limit, before=None)]}
    ended = [(run.finished_at, run.n, run) for run in found.values() if run.finished_at and not run.is_pipeline]
    return [run for _, _, run in sorted(ended, reverse=True)[:limit]]


def ahead_of(database: Database, run: Run) -> int:
    """`Store.ahead_of`."""
    ahead = 0
    with database.snapshot():
        for _, _, queue, job in database.all(HEADS):
            if queue == run.queue and ahead < AHEAD_MAX:
                row = database.one(AHEAD, queue, job, run.priority, run.n)
                ahead += row[0] if row else 0
    return min(ahead, AHEAD_MAX)


def running(database: Database, *, worker: str | None) -> list[Run]:
    """`Store.running`."""
    sql = f"SELECT {RUN_COLUMNS} FROM runs INDEXED BY runs_running WHERE state = 'running' AND worker > ''"
    if worker is None:
        return _runs(database.all(f"{sql} ORDER BY started_at, n"))
    return _runs(database.all(f"{sql} AND worker = ? ORDER BY started_at, n", worker))


def printed(database: Database, run: Run, attempt: int) -> Printed | None:
    """`Store.printed`."""
    if not database.is_shared:
        return None
    from hueyctl.model.transition import Printed

    row = database.one("SELECT stdout, stderr FROM outputs WHERE n = ? AND attempt = ?", run.n, attempt)
    return Printed(*row) if row else None


def lock_holder(database: Database, key: str) -> LockHolder | None:
    """`Store.lock_holder`."""
    row = database.one(HOLDER, key)
    return LockHolder(row[0], instant(row[1])) if row else None


def rate_opens_at(database: Database, job: str, limit: RateLimit, *, now: datetime) -> datetime | None:
    """`Store.rate_opens_at`."""
    row = database.one(IN_THE_WAY, job, limit.count - 1)
    opens_at = None if row is None else instant(row[0]) + limit.per
    return opens_at if opens_at is not None and opens_at > now else None


def pauses(database: Database) -> list[Pause]:
    """`Store.pauses`."""
    return [pause_from(row) for row in database.all("SELECT kind, name, note, by, at FROM pauses ORDER BY kind, name")]


def _index(state: RunState | None, where: RunFilter) -> str | None:
    """The index by which few runs are looked at: states that few are in come first."""
    if state is RunState.RUNNING:
        return "runs_running"
    if state is RunState.HELD:
        return "runs_held"
    if state in TERMINAL and state is not RunState.SUCCEEDED:
        return "runs_bad"
    if where.job is not None:
        return "runs_job"
    if where.schedule is not None:
        return "runs_schedule"
    return None


def _event_conditions(database: Database, where: EventFilter) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    if where.run is not None:
        row = database.one("SELECT n, pipeline = id FROM runs WHERE id = ?", where.run)
        if row is None:  # events outlive their run; those of a pruned one are found by walking
            conditions.append("(run = ? OR pipeline = ?)")
            values += [where.run, where.run]
        elif row[1]:
            conditions.append("n IN (SELECT n FROM runs WHERE pipeline = ?)")
            values.append(where.run)
        else:
            conditions.append("n = ?")
            values.append(row[0])
    if where.job is not None:
        conditions.append("job = ?")
        values.append(where.job)
    if where.types is not None:
        conditions.append(f"type IN ({', '.join('?' * len(where.types))})" if where.types else "FALSE")
        values += where.types
    if where.since is not None:
        conditions.append("time >= ?")
        values.append(micros(where.since))
    if where.until is not None:
        conditions.append("time < ?")
        values.append(micros(where.until))
    return "".join(f" AND {condition}" for condition in conditions), values


def _runs(rows: list[Row]) -> list[Run]:
    return [run_from(row) for row in rows]


def _maybe(row: Row | None) -> Run | None:
    return run_from(row) if row else None
