"""Schedules in the store: each slot is decided once, in the transaction that makes its run.

What decides is `last_slot`: nothing at or below it is ever decided again, whichever worker asks, whatever its clock
says, and whatever has been pruned. Only a backfill goes below it, and only to slots that never ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from hueyctl.failpoints import failpoint
from hueyctl.model.event import EventType
from hueyctl.model.hook import NO_HOOKS, Hooks, Occasion
from hueyctl.model.instant import iso
from hueyctl.model.run import Run, RunState
from hueyctl.storage import changes, gates
from hueyctl.storage.database import Database
from hueyctl.storage.hooks import follow
from hueyctl.storage.log import Log
from hueyctl.storage.reading import NO_LIMIT
from hueyctl.storage.rows import RUN_COLUMNS, instant, maybe_instant, micros, run_from, utf8
from hueyctl.storage.store import DecidedSlot, Fired, Firing, PausedTime, ScheduleDefinition, ScheduleState

STATE: Final = "SELECT definition, last_slot FROM schedules WHERE name = ?"
ENTER: Final = "INSERT INTO schedules (name, rule, definition, file, last_slot, changed_at) VALUES (?, ?, ?, ?, ?, ?)"
REDEFINE: Final = """
UPDATE schedules SET rule = ?1, last_slot = CASE WHEN last_slot < ?2 THEN ?2 ELSE last_slot END, changed_at = ?2
WHERE name = ?3
"""
DEFINED: Final = "UPDATE schedules SET definition = ?, file = ? WHERE name = ?"
# Its rule and its definition are those of no schedule: with its own again, it has changed.
REMOVED: Final = "UPDATE schedules SET rule = '', definition = '' WHERE name = ?"
REACHED: Final = "UPDATE schedules SET last_slot = ? WHERE name = ?"
DECIDED: Final = """
INSERT INTO slots (schedule, slot, outcome, run, reason, at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (schedule, slot) DO UPDATE SET outcome = excluded.outcome, run = excluded.run, reason = excluded.reason,
    at = excluded.at
"""
FIRED: Final = "SELECT run FROM slots WHERE schedule = ? AND slot = ? AND outcome = 'fired'"
PAUSED: Final = """
SELECT since, until FROM paused_times WHERE schedule IN (?1, '') UNION ALL
SELECT at, NULL FROM pauses WHERE kind = 'all' OR (kind = 'schedule' AND name = ?1) ORDER BY 1
"""
LAST: Final = "SELECT slot, outcome, run, reason FROM slots WHERE schedule = ? ORDER BY slot DESC LIMIT ?"
LAST_SO: Final = """
SELECT slot, at FROM (
    SELECT slot, outcome, at FROM slots WHERE schedule = ? ORDER BY slot DESC LIMIT ?
) AS newest WHERE outcome = ? ORDER BY slot DESC LIMIT 1
"""

# Those under way come before those that wait for them: null is the least gate. finished_at is null as long as a run is
# live, in retry too; the literals are those of the index runs_of_schedule.
LIVE: Final = f"""
SELECT {RUN_COLUMNS} FROM runs WHERE schedule = ? AND schedule IS NOT NULL AND finished_at IS NULL
ORDER BY gate NULLS FIRST, n LIMIT ?
"""
# Where one is enough to know what to do; replacing needs all.
LOOKED_AT: Final = {"skip": 1, "line": 1, "allow": 0, "queue": 1, "replace": NO_LIMIT}
WAITS: Final = """
SELECT 1 FROM runs WHERE schedule = ? AND schedule IS NOT NULL AND finished_at IS NULL AND attempt = 0
    AND state <> 'running' LIMIT 1
"""


def define(
    database: Database, definitions: Mapping[str, ScheduleDefinition], *, file: str, now: datetime
) -> list[ScheduleState]:
    """`Store.define_schedules`."""
    at, file = micros(now), utf8(file)
    with database.write(durable=True):
        for (name,) in database.all("SELECT name FROM schedules WHERE file = ?", file):
            if name not in definitions:
                database.run(REMOVED, name)
        for name, definition in definitions.items():
            row = database.one("SELECT rule FROM schedules WHERE name = ?", name)
            if row is None:
                database.run(ENTER, name, definition.rule, definition.whole, file, at, at)
            elif row[0] != definition.rule:
                # From now on, and never from before what was decided under the old rule.
                database.run(REDEFINE, definition.rule, at, name)
            database.run(DEFINED, definition.whole, file, name)
    return states(database)


def states(database: Database) -> list[ScheduleState]:
    """`Store.schedule_states`."""
    return [
        ScheduleState(name=name, definition=definition, file=file, last_slot=instant(last), changed_at=instant(at))
        for name, definition, file, last, at in database.all(
            "SELECT name, definition, file, last_slot, changed_at FROM schedules ORDER BY name"
        )
    ]


def fire(database: Database, firings: Sequence[Firing], *, now: datetime, hooks: Hooks = NO_HOOKS) -> list[Fired]:
    """`Store.fire`."""
    fired = []
    with database.write(durable=True):
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
            if before := database.one(FIRED, firing.schedule, slot):
                fired.append(Fired(firing, "past", before[0]))  # by a backfill, while no worker was there
                continue
            paused = database.all(PAUSED, firing.schedule)
            if any(since <= slot and (until is None or slot < until) for since, until in paused):
                fired.append(Fired(firing, "paused"))  # the pause is in the log; its slots are not missed
                continue
            if any(until is None for _, until in paused):  # of before the pause, and nothing is fired in one
                reason = firing.reason or "it was paused before it could be fired"
                firing = msgspec.structs.replace(firing, run=None, reason=reason)
            fired.append(_decide(database, firing, f"schedule {firing.schedule}", now))
        decided = [each for each in fired if each.outcome not in {"foreign", "past"}]
        _call_hooks(database, [each for each in fired if each.outcome == "missed"], hooks, now)
        failpoint("fire.before", decided)
    failpoint("fire.after", decided)
    return fired


def backfill(database: Database, firings: Sequence[Firing], *, by: str, now: datetime) -> list[Fired]:
    """`Store.backfill`."""
    fired = []
    with database.write(durable=True):
        for firing in firings:
            row = database.one(FIRED, firing.schedule, micros(firing.slot))
            fired.append(Fired(firing, "past", row[0]) if row else _decide(database, firing, by, now))
    return fired


def last_slots(database: Database, schedule: str, *, limit: int) -> list[DecidedSlot]:
    """`Store.last_slots`."""
    rows = database.all(LAST, schedule, limit)
    return [DecidedSlot(instant(slot), outcome, run, reason) for slot, outcome, run, reason in rows]


def last_decided(database: Database, schedule: str, outcome: str, *, among: int) -> tuple[datetime, datetime] | None:
    """`Store.last_decided`."""
    row = database.one(LAST_SO, schedule, among, outcome)
    return None if row is None else (instant(row[0]), instant(row[1]))


def paused_times(database: Database, schedule: str) -> list[PausedTime]:
    """`Store.paused_times`."""
    return [PausedTime(instant(since), maybe_instant(until)) for since, until in database.all(PAUSED, schedule)]


def _decide(database: Database, firing: Firing, by: str, now: datetime) -> Fired:
    log = Log(micros(now), by)
    if firing.run is None:
        return _passed_over(database, firing, "missed", firing.reason or "missed", log)
    live = [run_from(row) for row in database.all(LIVE, firing.schedule, LOOKED_AT[firing.overlap])]
    if live and (firing.overlap == "skip" or (firing.overlap == "queue" and database.one(WAITS, firing.schedule))):
        reason = f"overlap: run {live[0].id[:8]} of this schedule is {live[0].state.value}"
        return _passed_over(database, firing, "skipped", reason, log)
    standing = changes.live_of_key(database, firing.run.unique_key)
    if standing is not None and not (firing.overlap == "replace" and _gives_way_at_once(standing, firing.schedule)):
        reason = f"unique: run {standing.id[:8]} stands for it, which is {standing.state.value}"
        return _passed_over(database, firing, "skipped", reason, log)
    if live and firing.overlap == "replace":
        done = [changes.revoke_one(database, run, kill=True, now=now, log=log) for run in live]
        live = [each.run for each in done if each.effect == "requested"]
    new = firing.run
    if live:
        new = msgspec.structs.replace(new, due_at=None)  # due when it is let through
    gate = gates.of_schedule(firing.schedule) if live else None
    run = changes.take_in(database, new, gate=gate, now=now, log=log)
    database.run(DECIDED, firing.schedule, micros(firing.slot), "fired", run.id, None, log.time)
    log.write(database)
    return Fired(firing, "fired", run.id)


def _gives_way_at_once(run: Run, schedule: str) -> bool:
    """Can it be revoked for the schedule's next run? One that runs has its unique key until it has stopped: to stop it
    for a run that can't be beside it would leave none."""
    return run.schedule == schedule and run.state is not RunState.RUNNING


def _call_hooks(database: Database, missed: Sequence[Fired], hooks: Hooks, now: datetime) -> None:
    """One for all that was missed of a schedule: after a long stop there may be thousands."""
    by_schedule: dict[str, list[Fired]] = {}
    for each in missed:
        by_schedule.setdefault(each.firing.schedule, []).append(each)
    for schedule, of_it in by_schedule.items():
        last = of_it[-1]
        hook = hooks.get(last.firing.job)
        if hook is None:
            continue
        slot = iso(last.firing.slot)
        what = f"slot {slot} was missed" if len(of_it) == 1 else f"{len(of_it)} slots were missed, the last {slot}"
        reason = f"schedule {schedule}: {what}: {last.reason}"
        occasion = Occasion(
            job=last.firing.job, state="missed", reason=reason, schedule=schedule, slot=last.firing.slot
        )
        log = Log(micros(now), f"schedule {schedule}", hooks)
        log.occasions.append((hook, occasion))
        follow(database, log)


def _passed_over(
    database: Database, firing: Firing, outcome: Literal["missed", "skipped"], reason: str, log: Log
) -> Fired:
    slot, reason = micros(firing.slot), utf8(reason)
    database.run(DECIDED, firing.schedule, slot, outcome, None, reason, log.time)
    data: dict[str, Any] = {"reason": reason}
    log.other(EventType(outcome), schedule=firing.schedule, slot=slot, data=data)
    log.write(database)
    return Fired(firing, outcome, reason=reason)
