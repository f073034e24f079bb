"""Schedules in the store: each slot is decided once, in the transaction that makes its run.

What decides is `last_slot`: nothing at or below it is ever decided again, whichever worker asks, whatever its clock
says, and whatever has been pruned. Only a backfill goes below it, and only to slots that never ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from hueyctl.model.event import EventType
from hueyctl.model.run import Run, RunState
from hueyctl.storage import changes, gates
from hueyctl.storage.database import Database
from hueyctl.storage.log import Log
from hueyctl.storage.rows import RUN_COLUMNS, instant, micros, run_from, utf8
from hueyctl.storage.store import Fired, Firing, ScheduleDefinition, ScheduleState

STATE: Final = "SELECT definition, last_slot FROM schedules WHERE name = ?"
ENTER: Final = "INSERT INTO schedules (name, rule, definition, last_slot, changed_at) VALUES (?, ?, ?, ?, ?)"
REDEFINE: Final = "UPDATE schedules SET rule = ?, last_slot = max(last_slot, ?), changed_at = ? WHERE name = ?"
REACHED: Final = "UPDATE schedules SET last_slot = ? WHERE name = ?"
DECIDED: Final = "INSERT OR REPLACE INTO slots (schedule, slot, outcome, run, at) VALUES (?, ?, ?, ?, ?)"

# finished_at is null as long as a run is live, in retry too; the literals are those of the index runs_of_schedule.
LIVE: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE schedule = ? AND schedule IS NOT NULL AND finished_at IS NULL ORDER BY n
"""


def define(database: Database, definitions: Mapping[str, ScheduleDefinition], *, now: datetime) -> list[ScheduleState]:
    """`Store.define_schedules`."""
    at = micros(now)
    with database.write(durable=True):
        for name, definition in definitions.items():
            row = database.one("SELECT rule FROM schedules WHERE name = ?", name)
            if row is None:
                database.run(ENTER, name, definition.rule, definition.whole, at, at)
            elif row[0] != definition.rule:
                # From now on, and never from before what was decided under the old rule.
                database.run(REDEFINE, definition.rule, at, at, name)
            database.run("UPDATE schedules SET definition = ? WHERE name = ?", definition.whole, name)
    return states(database)


def states(database: Database) -> list[ScheduleState]:
    """`Store.schedule_states`."""
    return [
        ScheduleState(name=name, definition=definition, last_slot=instant(last), changed_at=instant(at))
        for name, definition, last, at in database.all(
            "SELECT name, definition, last_slot, changed_at FROM schedules ORDER BY name"
        )
    ]


def fire(database: Database, firings: Sequence[Firing], *, now: datetime) -> list[Fired]:
    """`Store.fire`."""
    fired = []
    with database.write(durable=True):
        paused = _paused(database)
        for firing in firings:
            slot = micros(firing.slot)
            row = database.one(STATE, firing.schedule)
            if row is None or row[0] != firing.definition:
                fired.append(Fired(firing, "foreign"))
                continue
            if slot <= row[1]:
                fired.append(Fired(firing, "past"))
                continue
            database.run(REACHED, slot, firing.schedule)
            if None in paused or firing.schedule in paused:
                fired.append(Fired(firing, "paused"))  # the pause is in the log; its slots are not missed
                continue
            fired.append(_decide(database, firing, f"schedule {firing.schedule}", now))
    return fired


def backfill(database: Database, firings: Sequence[Firing], *, by: str, now: datetime) -> list[Fired]:
    """`Store.backfill`."""
    fired = []
    with database.write(durable=True):
        for firing in firings:
            sql = "SELECT run FROM slots WHERE schedule = ? AND slot = ? AND outcome = 'fired'"
            row = database.one(sql, firing.schedule, micros(firing.slot))
            fired.append(Fired(firing, "past", row[0]) if row else _decide(database, firing, by, now))
    return fired


def _paused(database: Database) -> set[str | None]:
    """The schedules that are paused; None among them: all are."""
    rows = database.all("SELECT kind, name FROM pauses WHERE kind IN ('all', 'schedule')")
    return {None if kind == "all" else name for kind, name in rows}


def _decide(database: Database, firing: Firing, by: str, now: datetime) -> Fired:
    log = Log(micros(now), by)
    if firing.run is None:
        return _passed_over(database, firing, "missed", firing.reason or "missed", log)
    live = [] if firing.overlap == "allow" else [run_from(row) for row in database.all(LIVE, firing.schedule)]
    if live and (firing.overlap == "skip" or (firing.overlap == "queue" and _one_waits(live))):
        oldest = live[0]
        reason = f"overlap: run {oldest.id[:8]} of this schedule is {oldest.state.value}"
        return _passed_over(database, firing, "skipped", reason, log)
    if live and firing.overlap == "replace":
        for run in live:
            changes.revoke_one(database, run, kill=True, now=now, log=log)
        live = [run for run in live if run.state is RunState.RUNNING]
    new = firing.run
    if live:
        new = msgspec.structs.replace(new, due_at=None)  # due when it is let through
    run = changes.take_in(database, new, now=now, log=log)
    if live:
        gates.close(database, run.n, firing.schedule)
    database.run(DECIDED, firing.schedule, micros(firing.slot), "fired", run.id, log.time)
    log.write(database)
    return Fired(firing, "fired", run.id)


def _one_waits(live: Sequence[Run]) -> bool:
    return any(run.attempt == 0 for run in live)


def _passed_over(
    database: Database, firing: Firing, outcome: Literal["missed", "skipped"], reason: str, log: Log
) -> Fired:
    slot = micros(firing.slot)
    database.run(DECIDED, firing.schedule, slot, outcome, None, log.time)
    data: dict[str, Any] = {"reason": utf8(reason)}
    log.other(EventType(outcome), schedule=firing.schedule, slot=slot, data=data)
    log.write(database)
    return Fired(firing, outcome, reason=reason)
