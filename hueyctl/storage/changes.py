"""What users ask for: runs taken in and revoked, switches set. All of it durable when it returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from hueyctl.errors import Refused
from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.run import TERMINAL, NewRun, Run, RunState
from hueyctl.storage import ends, gates, pipelines
from hueyctl.storage.database import Database, Unstorable
from hueyctl.storage.intake import Intake
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, from_json, micros, run_from, to_json
from hueyctl.storage.store import Accepted, Pause, Revocation

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
    intake = Intake(database, now, log)
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
        intake = Intake(database, now, log)
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
