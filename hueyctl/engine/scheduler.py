"""The scheduler: tells the dispatcher when the next slot is, and decides each slot when its time has come.

Promises:
- A slot is decided once, whoever else runs: the store decides (`Store.fire`), in the transaction that makes the run.
- Nothing ticks: between slots nothing is done, and a slot is as late as the process wakes up, never later by drift.
- What could not be fired in time (no worker, a clock set forward) is recorded as missed, slot by slot, or caught up
  with as the schedule says. A clock set back fires nothing twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.log import WorkerLog
from hueyctl.errors import HueyctlError
from hueyctl.model.definition import Schedule
from hueyctl.model.duration import format_duration
from hueyctl.model.order import run_of
from hueyctl.model.run import NewRun, Trigger
from hueyctl.model.schedule import FireTimes, definition_hash, rule_hash
from hueyctl.storage.store import Fired, Firing, ScheduleDefinition, Store

# So many slots of a schedule are decided in one transaction; runs are claimed and settled in between.
CHUNK = 200


class _Entry:
    """A schedule on its way through time."""

    def __init__(self, schedule: Schedule, cursor: datetime) -> None:
        self.schedule = schedule
        self.times = FireTimes(schedule)
        self.definition = definition_hash(schedule)
        self.cursor = cursor
        self.next = self.times.after(cursor)
        self.oldest_caught_up: datetime | None = None  # of the slots that are late now, where all are to be fired
        self.foreign = False  # the store has another definition of it, and that was said

    def advance(self, slot: datetime) -> None:
        self.cursor = slot
        self.next = self.times.after(slot)


class Scheduler:
    """The schedules of one `jobs.toml`. Used by the dispatcher's thread alone."""

    def __init__(self, definitions: Definitions, log: WorkerLog) -> None:
        self.definitions = definitions
        self._log = log
        self._entries: list[_Entry] = []

    def define(self, store: Store, now: datetime) -> None:
        """Enter the schedules in the store, and begin where it says that each was left."""
        enabled = [schedule for schedule in self.definitions.project.schedules.values() if schedule.enabled]
        if enabled:
            definitions = {each.name: ScheduleDefinition(rule_hash(each), definition_hash(each)) for each in enabled}
            left_at = {state.name: state.last_slot for state in store.define_schedules(definitions, now=now)}
            self._entries = [_Entry(each, left_at[each.name]) for each in enabled]

    @property
    def next_at(self) -> datetime | None:
        """When the next slot is; None: never."""
        return min((entry.next for entry in self._entries if entry.next is not None), default=None)

    def turn(self, store: Store, now: datetime) -> bool:
        """Decide what is due, a chunk of each schedule at the most; was a run made?"""
        fired = False
        for entry in self._entries:
            if entry.next is not None and entry.next <= now:
                fired |= self._decide(store, entry, now)
        return fired

    def _decide(self, store: Store, entry: _Entry, now: datetime) -> bool:
        slots = list(islice(entry.times.between(entry.cursor, now), CHUNK + 1))
        newest = slots[-1] if len(slots) <= CHUNK else None  # None: there are more behind this chunk
        firings = [self._firing(entry, slot, slot == newest, now) for slot in slots[:CHUNK]]
        fired = store.fire(firings, now=now)
        entry.advance(firings[-1].slot)
        if newest is not None:
            entry.oldest_caught_up = None
        self._report(entry, fired)
        return any(each.outcome == "fired" for each in fired)

    def _firing(self, entry: _Entry, slot: datetime, newest: bool, now: datetime) -> Firing:
        run: NewRun | None = None
        missed = self._why_missed(entry, slot, newest, now)
        if missed is None:
            try:
                run = self._run(entry, slot, now)
            except HueyctlError as exc:
                missed = exc.message
        return Firing(
            schedule=entry.schedule.name,
            definition=entry.definition,
            slot=slot,
            run=run,
            overlap=entry.schedule.overlap,
            reason=missed,
        )

    def _why_missed(self, entry: _Entry, slot: datetime, newest: bool, now: datetime) -> str | None:
        schedule, late = entry.schedule, now - slot
        if late <= schedule.grace:
            return None
        said = f"it was {format_duration(timedelta(seconds=round(late.total_seconds())))} late"
        if schedule.catch_up == "none":
            return f"{said}, and catch_up is none"
        if late > schedule.catch_up_window:
            return f"{said}, more than catch_up_window ({format_duration(schedule.catch_up_window)})"
        if schedule.catch_up == "latest":
            return None if newest else f"{said}, and catch_up is for the latest slot alone"
        if entry.oldest_caught_up is None:
            since = max(entry.cursor, now - schedule.catch_up_window)
            last = deque(entry.times.between(since, now), maxlen=schedule.catch_up_max)
            entry.oldest_caught_up = last[0] if last else now
        return None if slot >= entry.oldest_caught_up else f"{said}, with more than catch_up_max slots after it"

    def _run(self, entry: _Entry, slot: datetime, now: datetime) -> NewRun:
        schedule = entry.schedule
        in_time = now - slot <= schedule.grace
        trigger: Trigger = "schedule" if in_time else "catch_up"
        # What is caught up with is due now: `expires` counts from there.
        due_at = entry.times.due(slot) if in_time else None
        return run_of(self.definitions.project, schedule, slot, trigger, due_at)

    def _report(self, entry: _Entry, fired: Iterable[Fired]) -> None:
        foreign = False
        for each in fired:
            slot = each.firing.slot.isoformat()
            match each.outcome:
                case "missed":
                    self._log.warning(f"schedule {entry.schedule.name} missed {slot}: {each.reason}")
                case "skipped":
                    self._log.warning(f"schedule {entry.schedule.name} skipped {slot}: {each.reason}")
                case "foreign":
                    foreign = True
        if foreign and not entry.foreign:
            self._log.error(
                f"schedule {entry.schedule.name} is not fired here: another worker's file defines it differently; "
                "reload the one that is out of date"
            )
        entry.foreign = foreign
