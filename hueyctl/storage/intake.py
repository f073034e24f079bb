"""New runs on their way into the store: their rows, what is told of them first, and the edges between them.

Promises:
- A run's number is above all that were given before, also to runs that are gone: so no event is of another run.
- Each has its first event, in the order of the runs.
- What it costs to take in many alike is little more than writing them. Runs of one job that somebody enqueues together
  mostly differ in id and message alone: all else is handed over once, and what is told of them is told from their rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from hueyctl.model.event import EventType
from hueyctl.model.run import NewRun, Run, RunState
from hueyctl.storage import pipelines
from hueyctl.storage.database import Database
from hueyctl.storage.log import INSERT_EVENT, Log
from hueyctl.storage.rows import Row, maybe_micros, message_from, micros, to_json, utf8

CHUNK: Final = 5_000

OWN: Final = "n, id, message"
SHARED: Final = (
    "state, job, queue, priority, enqueued_at, due_at, expires_us, expires_at, trigger, schedule, slot, pipeline, "
    "position, lock_key, unique_key"
)
INSERT: Final = f"INSERT INTO runs ({SHARED}, {OWN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# So many that are alike are inserted by one statement; what is left after that, by a shorter one, and row by row.
TOGETHER: Final = (256, 16)

# The first event of runs that stand in the store, told from their rows: a third of what it costs to hand each over.
FIRST_EVENTS: Final = """
INSERT INTO events (time, type, state, n, run, job, schedule, slot, pipeline, by, data)
SELECT ?1, ?2, state, n, id, job, schedule, slot, pipeline, ?3, ?4 FROM runs WHERE n >= ?5 AND n <= ?6 ORDER BY n
"""

# The number of the newest run, or of one that is gone and has left its events: those must not become another's.
LAST_N: Final = """
SELECT coalesce(max(n), 0) FROM (
    SELECT max(n) AS n FROM runs UNION ALL SELECT max(n) FROM events WHERE n IS NOT NULL
) AS newest
"""


class Intake:
    """Takes in new runs, in the transaction under way."""

    def __init__(self, database: Database, now: datetime, log: Log) -> None:
        self._database, self._now, self._log = database, now, log
        found = database.one(LAST_N)
        self._n = found[0] if found else 0
        # The newest that are alike: the first of them, what they share, and their numbers, ids and messages in a row.
        self._first: Run | None = None
        self._shared: Row = ()
        self._own: list[object] = []
        self._rows: list[Row] = []  # of those before that are alike with few others,
        self._events: list[Row] = []  # and what is told of them
        self._edges: list[Row] = []

    def add(self, new: NewRun, gate: str | None = None) -> Run:
        """Take one in, to be written by `insert`; a pipeline's with its steps, which all wait behind a gate."""
        if new.steps:
            return self._add_pipeline(new, gate)
        run, message = _made(new, self._next(), self._now)
        self._add(new, run, message)
        return run

    def insert(self) -> None:
        """Write what was added."""
        self._close()
        self._write_rows()
        self._database.many(pipelines.ADD_EDGE, self._edges)
        self._edges.clear()

    def _next(self) -> int:
        self._n += 1
        return self._n

    def _add(self, new: NewRun, run: Run, message: str) -> None:
        shared = _shared(new, run, self._log.time)
        if shared != self._shared or len(self._own) >= 3 * CHUNK:
            self._close()
            self._first, self._shared = run, shared
        self._own += (run.n, run.id, message)

    def _close(self) -> None:
        """Write those that are alike, if they are many, or keep them to be written with others."""
        first, shared, own = self._first, self._shared, self._own
        if first is None:
            return
        count = len(own) // 3
        if not first.is_pipeline:  # which stands in no line
            self._log.move(first.queue, first.job, None, first.state, count=count)
        type = EventType.SCHEDULED if first.state is RunState.SCHEDULED else EventType.ENQUEUED
        told = self._log.time, type.value, self._log.by, _detail(first)
        if count >= TOGETHER[-1]:
            self._write_rows()
            insert_alike(self._database, shared, own)
            self._database.run(FIRST_EVENTS, *told, first.n, first.n + count - 1)
        else:
            rows = _rows(shared, own)
            self._rows += rows
            self._events += [_event(row, *told) for row in rows]
            if len(self._rows) >= CHUNK:
                self._write_rows()
        self._first, self._shared, self._own = None, (), []

    def _write_rows(self) -> None:
        self._database.many(INSERT, self._rows)
        self._database.many(INSERT_EVENT, self._events)
        self._rows.clear()
        self._events.clear()

    def _add_pipeline(self, new: NewRun, gate: str | None) -> Run:
        new = msgspec.structs.replace(new, expires_s=None)  # its steps expire
        whole, message = _made(new, self._next(), self._now)
        whole = msgspec.structs.replace(whole, state=RunState.WAITING, pipeline=whole.id)
        self._add(new, whole, message)
        self._edges += pipelines.edges_of(new, whole.n)
        for position, step in enumerate(new.steps):
            own = {"trigger": new.trigger, "schedule": None, "slot": None, "unique_key": None}
            of_step = msgspec.structs.replace(step.run, **own)
            run, message = _made(of_step, self._next(), self._now)
            run = msgspec.structs.replace(run, pipeline=whole.id, position=position)
            if step.after or gate is not None:
                run = msgspec.structs.replace(run, state=RunState.WAITING, expires_at=None)
            self._add(of_step, run, message)
        return whole


def insert_alike(database: Database, shared: Row, own: list[object]) -> None:
    """Insert runs that have `shared` in common; `own` is their numbers, ids and messages, one run after the other."""
    at = 0
    for size in TOGETHER:
        sql = _of_alike(size)
        while len(own) - at >= 3 * size:
            database.run(sql, *shared, *own[at : at + 3 * size])
            at += 3 * size
    database.many(INSERT, _rows(shared, own[at:]))


@lru_cache
def _of_alike(count: int) -> str:
    columns = SHARED.count(",") + 1
    common = ", ".join(f"?{number}" for number in range(1, columns + 1))
    return INSERT[: INSERT.index("(?")] + ", ".join([f"({common}, ?, ?, ?)"] * count)


def _rows(shared: Row, own: list[object]) -> list[Row]:
    return [(*shared, *own[at : at + 3]) for at in range(0, len(own), 3)]


def _detail(run: Run) -> str:
    """What the first event of a run says of it, as JSON."""
    due = run.due_at.isoformat().replace("+00:00", "Z") if run.state is RunState.SCHEDULED else None
    # That somebody has enqueued it goes without saying.
    trigger = run.trigger if run.trigger != "manual" or run.schedule else None
    said = {"queue": run.queue, "priority": run.priority, "due_at": due, "trigger": trigger}
    return to_json({key: value for key, value in said.items() if value is not None})


def _made(new: NewRun, n: int, now: datetime) -> tuple[Run, str]:
    """The run that a new one becomes, and its message as it is stored."""
    due_at = now if new.due_at is None else new.due_at
    message = to_json(new.message)
    run = Run(
        n=n,
        id=utf8(new.id),
        job=utf8(new.job),
        state=RunState.SCHEDULED if due_at > now else RunState.QUEUED,
        queue=utf8(new.queue),
        priority=new.priority,
        message=new.message if message.isascii() else message_from(message),
        trigger=new.trigger,
        schedule=None if new.schedule is None else utf8(new.schedule),
        scheduled_at=new.slot,
        enqueued_at=now,
        due_at=due_at,
        expires_at=None if new.expires_s is None else due_at + timedelta(seconds=new.expires_s),
        lock_key=None if new.lock_key is None else utf8(new.lock_key),
    )
    return run, message


def _shared(new: NewRun, run: Run, at: int) -> Row:
    """What a run's row has in common with others."""
    due = at if new.due_at is None else micros(new.due_at)
    expires_us = None if new.expires_s is None else round(new.expires_s * 1e6)
    return (
        run.state.value,
        run.job,
        run.queue,
        run.priority,
        at,
        due,
        expires_us,
        None if run.expires_at is None or expires_us is None else due + expires_us,
        run.trigger,
        run.schedule,
        maybe_micros(new.slot),
        run.pipeline,
        run.position,
        run.lock_key,
        new.unique_key,
    )


def _event(row: Row, at: int, type: str, by: str | None, data: str) -> Row:
    """The first event of the run of a row, as `INSERT_EVENT` takes it."""
    state, job, *_ = row
    schedule, slot, pipeline = row[9:12]
    n, id, _ = row[-3:]
    return at, type, state, n, id, job, None, None, schedule, slot, pipeline, by, data
