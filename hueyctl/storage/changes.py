"""What users ask for: runs taken in and revoked, switches set. All of it durable when it returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from hueyctl.errors import Refused
from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.run import TERMINAL, NewRun, Run, RunState
from hueyctl.storage import ends, gates, pipelines
from hueyctl.storage.database import Database, Unstorable
from hueyctl.storage.log import INSERT_EVENT, Log
from hueyctl.storage.rows import (
    RUN_COLUMNS,
    Row,
    from_json,
    maybe_micros,
    message_from,
    micros,
    run_from,
    to_json,
    utf8,
)
from hueyctl.storage.store import Accepted, Pause, Revocation

CHUNK: Final = 5_000

INSERT: Final = """
INSERT INTO runs (n, id, state, job, queue, priority, enqueued_at, due_at, expires_us, expires_at, trigger, schedule,
    slot, pipeline, position, lock_key, unique_key, message)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# The first event of runs that stand in the store, told from their rows: a third of what it costs to hand each over, if
# they are more than a few.
FIRST_EVENTS: Final = """
INSERT INTO events (time, type, state, n, run, job, schedule, slot, pipeline, by, data)
SELECT ?1, ?2, state, n, id, job, schedule, slot, pipeline, ?3, ?4 FROM runs WHERE n >= ?5 AND n <= ?6 ORDER BY n
"""

FEW: Final = 16

# The number of the newest run, or of one that is gone and has left its events: those must not become another's.
LAST_N: Final = """
SELECT coalesce(max(n), 0) FROM (
    SELECT max(n) AS n FROM runs UNION ALL SELECT max(n) FROM events WHERE n IS NOT NULL
) AS newest
"""

BY_ID: Final = f"SELECT {RUN_COLUMNS} FROM runs WHERE id = ?"

# The literals are those of the index runs_unique: without them it isn't used.
LIVE_BY_KEY: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE unique_key = ?
    AND unique_key IS NOT NULL AND finished_at IS NULL
"""

REVOKE: Final = "UPDATE runs SET state = 'revoked', finished_at = ?, reason = ? WHERE n = ?"

# A switch that is set again has been set since the first time.
PAUSE: Final = """
INSERT INTO pauses (kind, name, note, by, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET note = excluded.note, by = excluded.by
"""
PAUSED_TIME: Final = """
INSERT INTO paused_times (schedule, since, until) VALUES (?, ?, ?)
ON CONFLICT (schedule, since) DO UPDATE SET until = excluded.until WHERE excluded.until > paused_times.until
"""


def accept(database: Database, runs: Sequence[NewRun], *, by: str, now: datetime) -> list[Accepted]:
    """`Store.accept`."""
    try:
        return _accept(database, runs, by=by, now=now)
    except (Unstorable, OverflowError) as exc:
        raise Refused(f"nothing was enqueued: {exc}") from exc


def revoke(database: Database, ids: Sequence[str], *, kill: bool, by: str, now: datetime) -> list[Revocation]:
    """`Store.revoke`."""
    log = Log(micros(now), by)
    with database.write(durable=True):
        revocations = [revoke_one(database, run, kill=kill, now=now, log=log) for run in found(database, ids)]
        log.write(database)
        failpoint("revoke.before")
    failpoint("revoke.after")
    return revocations


def revoke_one(database: Database, run: Run, *, kill: bool, now: datetime, log: Log) -> Revocation:
    """Revoke one run, in the transaction under way; a pipeline's with all of its steps."""
    if run.state in TERMINAL:
        return Revocation(run, "ended")
    if run.is_pipeline:
        return _revoke_pipeline(database, run, kill=kill, now=now, log=log)
    if run.state is not RunState.RUNNING:
        reason = f"revoked by {log.by}"
        database.run(REVOKE, log.time, reason, run.n)
        revoked = msgspec.structs.replace(run, state=RunState.REVOKED, finished_at=now, reason=reason)
        log.move(run.queue, run.job, run.state, RunState.REVOKED)
        log.run(revoked, EventType.REVOKED, RunState.REVOKED, {"reason": reason})
        ends.ended(database, revoked, log)
        gates.open_lock(database, run.lock_key, log)
        return Revocation(revoked, "revoked")
    if not kill:
        return Revocation(run, "running")
    if not run.killing:
        database.run("UPDATE runs SET revoking = 1, killing = 1 WHERE n = ?", run.n)
        log.run(run, EventType.REVOKE_REQUESTED, RunState.RUNNING)
        database.tell(b"ask")
    return Revocation(msgspec.structs.replace(run, revoking=True, killing=True), "requested")


def take_in(database: Database, new: NewRun, *, gate: str | None = None, now: datetime, log: Log) -> Run:
    """Accept one run, in the transaction under way; behind `gate` it waits until that opens."""
    intake = _Intake(database, now, log)
    run = intake.add(new, gate)
    intake.insert()
    if gate is None:
        _wait_for_locks(database, [run], log)
        return run
    database.run(gates.CLOSE, gate, run.n)
    return msgspec.structs.replace(run, gate=gate)


def found(database: Database, ids: Iterable[str]) -> Iterable[Run]:
    """The runs of these ids, as they stand when their turn comes; ids that are no longer there are passed over."""
    for id in ids:
        run = _by_id(database, id)
        if run is not None:
            yield run


def live_of_key(database: Database, unique_key: bytes | None) -> Run | None:
    """The live run that has this unique key."""
    row = None if unique_key is None else database.one(LIVE_BY_KEY, unique_key)
    return run_from(row) if row else None


def pause(database: Database, pauses: Sequence[Pause]) -> None:
    """`Store.pause`."""
    with database.write(durable=True):
        for switch in pauses:
            at = micros(switch.at)
            database.tell(b"work")
            database.run(PAUSE, switch.kind, switch.name, switch.note, switch.by, at)
            log = Log(at, switch.by)
            _log_switch(log, EventType.PAUSED, switch.kind, switch.name, switch.note)
            log.write(database)


def resume(database: Database, kind: str, name: str, *, by: str, now: datetime) -> bool:
    """`Store.resume`."""
    log = Log(micros(now), by)
    with database.write(durable=True):
        switch = database.one("DELETE FROM pauses WHERE kind = ? AND name = ? RETURNING at", kind, name)
        if switch is not None:
            database.tell(b"work")
            _log_switch(log, EventType.RESUMED, kind, name, None)
            log.write(database)
            if kind in ("all", "schedule"):
                database.run(PAUSED_TIME, name, switch[0], log.time)
    return switch is not None


def _accept(database: Database, runs: Sequence[NewRun], *, by: str, now: datetime) -> list[Accepted]:
    log = Log(micros(now), by)
    accepted: list[Accepted] = []
    with database.write(durable=True):
        intake = _Intake(database, now, log)
        # What this batch itself brings counts too where an id or a key is looked up.
        named: dict[str, Run] = {}
        keyed: dict[bytes, Run] = {}
        for new in runs:
            standing = _standing(database, new, named, keyed)
            if standing is not None:
                accepted.append(Accepted(standing, existing=True))
                continue
            run = intake.add(new)
            if new.given_id:
                named[run.id] = run
            if new.unique_key is not None:
                keyed[new.unique_key] = run
            accepted.append(Accepted(run))
        intake.insert()
        _wait_for_locks(database, [each.run for each in accepted if not each.existing], log)
        log.write(database)
        failpoint("accept.before")
    failpoint("accept.after")
    return accepted


class _Intake:
    """New runs on their way into the store, in the transaction under way: their rows, first events, and edges."""

    def __init__(self, database: Database, now: datetime, log: Log) -> None:
        self._database, self._now, self._log = database, now, log
        found = database.one(LAST_N)
        self._n = found[0] if found else 0
        self._rows: list[Row] = []
        self._told: list[tuple[Row, int, int]] = []  # of which runs, by their first and last number, what is to be told
        self._edges: list[Row] = []
        # The first of the newest runs of which the same is to be told, and what that is: it is told of all at once.
        self._alike: tuple[Run, Row] | None = None

    def add(self, new: NewRun, gate: str | None = None) -> Run:
        """Take one in, to be written by `insert`; a pipeline's with its steps, which all wait behind a gate."""
        if new.steps:
            return self._add_pipeline(new, gate)
        run, message = _made(new, self._next(), self._now)
        self._add(new, run, message)
        return run

    def insert(self) -> None:
        """Write what was added."""
        self._tell(self._n)
        self._database.many(INSERT, self._rows)
        self._write_events()
        self._database.many(pipelines.ADD_EDGE, self._edges)
        self._rows.clear()
        self._edges.clear()

    def _next(self) -> int:
        self._n += 1
        return self._n

    def _add(self, new: NewRun, run: Run, message: str) -> None:
        told = (run.queue, run.job, run.state, run.priority, run.due_at, run.trigger, run.schedule, run.is_pipeline)
        if self._alike is None or self._alike[1] != told:
            self._tell(run.n - 1)
            self._alike = run, told
        self._rows.append(_row(new, run, message, self._log.time))
        if len(self._rows) >= CHUNK:
            self.insert()

    def _tell(self, last: int) -> None:
        """Have it recorded of those that are alike, up to the number `last`, that they are there."""
        if self._alike is None:
            return
        first, _ = self._alike
        self._alike = None
        if not first.is_pipeline:  # which stands in no line
            self._log.move(first.queue, first.job, None, first.state, count=last + 1 - first.n)
        type = EventType.SCHEDULED if first.state is RunState.SCHEDULED else EventType.ENQUEUED
        self._told.append(((self._log.time, type.value, self._log.by, _detail(first)), first.n, last))

    def _write_events(self) -> None:
        """In the order of the runs: one statement for those of which the same is told, or a row each."""
        each: list[Row] = []
        for told, first, last in self._told:
            if last - first < FEW:
                begin = first - self._rows[0][0]
                each += [_event(row, *told) for row in self._rows[begin : begin + last - first + 1]]
            else:
                self._database.many(INSERT_EVENT, each)
                each.clear()
                self._database.run(FIRST_EVENTS, *told, first, last)
        self._database.many(INSERT_EVENT, each)
        self._told.clear()

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


def _row(new: NewRun, run: Run, message: str, at: int) -> Row:
    due = at if new.due_at is None else micros(new.due_at)
    expires_us = None if new.expires_s is None else round(new.expires_s * 1e6)
    return (
        run.n,
        run.id,
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
        message,
    )


def _event(row: Row, at: int, type: str, by: str | None, data: str) -> Row:
    """The first event of the run of a row, as `INSERT_EVENT` takes it."""
    n, id, state, job, *_ = row
    return at, type, state, n, id, job, None, None, row[11], row[12], row[13], by, data


def _standing(database: Database, new: NewRun, named: dict[str, Run], keyed: dict[bytes, Run]) -> Run | None:
    """The run that stands for a new one already: of its given id, or of its unique key."""
    if new.given_id:
        run = named.get(new.id) or _by_id(database, new.id)
        if run is not None:
            if run.job == new.job and run.message.params == from_json(to_json(new.message.params)):
                return run
            what = f"of another job ({run.job})" if run.job != new.job else "with other parameters"
            raise Refused(f"there is a run {new.id} already, {what}", hint="leave out --id, or give another one")
    if new.unique_key is not None:
        return keyed.get(new.unique_key) or live_of_key(database, new.unique_key)
    return None


def _wait_for_locks(database: Database, runs: Iterable[Run], log: Log) -> None:
    """Let those of these new runs wait whose lock is held: the next claim needn't look at them."""
    for run in runs:
        if run.lock_key is not None and run.state is RunState.QUEUED:
            gates.wait_if_held(database, run, log)


def _revoke_pipeline(database: Database, pipeline: Run, *, kill: bool, now: datetime, log: Log) -> Revocation:
    # From behind, or the first would have those after it skipped.
    for step in reversed(pipelines.live_steps(database, pipeline.id)):
        revoke_one(database, step, kill=kill, now=now, log=log)
    left = _by_id(database, pipeline.id) or pipeline
    if left.state in TERMINAL:
        return Revocation(left, "revoked")
    return Revocation(left, "requested" if kill else "running")


def _by_id(database: Database, id: str) -> Run | None:
    row = database.one(BY_ID, id)
    return run_from(row) if row else None


def _log_switch(log: Log, type: EventType, kind: str, name: str, note: str | None) -> None:
    data = {"kind": kind, "name": name}
    if note:
        data["note"] = note
    log.other(type, job=name if kind == "job" else None, schedule=name if kind == "schedule" else None, data=data)
