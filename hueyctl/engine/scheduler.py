"""The scheduler: tells the dispatcher when the next slot is, and decides each slot when its time has come.

Promises:
- A slot is decided once, whoever else runs: the store decides (`Store.fire`), in the transaction that makes the run.
- Nothing ticks: between slots nothing is done, and a slot is as late as the process wakes up, never later by drift.
- What could not be fired in time (no worker, a clock set forward) is recorded as missed, slot by slot, or caught up
  with as the schedule says. A clock set back fires nothing twice.
- While a schedule is disabled, or gone from the file, it misses nothing: enabled or back, it starts from then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.log import WorkerLog
from hueyctl.errors import HueyctlError
from hueyctl.model.definition import Schedule
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso
from hueyctl.model.order import run_of
from hueyctl.model.run import NewRun, Trigger
from hueyctl.model.schedule import FireTimes, definition_hash, rule_hash
from hueyctl.storage.store import Fired, Firing, PausedTime, ScheduleDefinition, Store

# So many slots of a schedule are decided in one go; runs are claimed and settled in between.
CHUNK = 200
# A process is never woken on time to the microsecond: so late is in time even where grace is 0.
LEAST_GRACE = timedelta(seconds=1)
# The rule of a schedule that is disabled, in place of the hash of its own: with its own again, it has changed.
DISABLED = "disabled"
# The clocks of workers on one machine agree, and a slot is never decided before its time.
FAR_AHEAD = timedelta(seconds=10)


class _Entry:
    """A schedule on its way through time."""

    def __init__(self, schedule: Schedule, cursor: datetime) -> None:
        self.schedule = schedule
        self.times = FireTimes(schedule)
        self.definition = definition_hash(schedule)
        self.cursor = cursor
        self.next = self.times.after(cursor)
        self.paused: Sequence[PausedTime] = ()
        self.behind = False  # several slots are due at once
        self.oldest_caught_up: datetime | None = None  # of the slots that are late now, where all are to be fired
        self.foreign = False  # the store has another definition of it, and that was said

    def due(self, after: datetime, now: datetime) -> Iterator[datetime]:
        """The slots after `after` up to `now` but for those of a pause, which nobody misses."""
        for pause in self.paused:
            if after < pause.since:
                yield from self.times.between(after, min(pause.since - timedelta.resolution, now))
            if pause.until is None:
                return
            after = max(after, pause.until - timedelta.resolution)
        yield from self.times.between(after, now)

    def advance(self, cursor: datetime) -> None:
        """All up to `cursor` is decided."""
        self.cursor = cursor
        self.next = self.times.after(cursor)


class Scheduler:
    """The schedules of one `jobs.toml`. Used by the dispatcher's thread alone."""

    def __init__(self, definitions: Definitions, log: WorkerLog) -> None:
        self.definitions = definitions
        self._log = log
        self._entries: list[_Entry] = []
        self.next_at: datetime | None = None
        """When the next slot is; None: never."""

    def define(self, store: Store, now: datetime) -> None:
        """Enter the schedules in the store, and begin where it says that each was left."""
        project = self.definitions.project
        schedules = project.schedules.values()
        definitions = {
            each.name: ScheduleDefinition(rule_hash(each) if each.enabled else DISABLED, definition_hash(each))
            for each in schedules
        }
        states = store.define_schedules(definitions, file=str(project.path), now=now)
        left_at = {state.name: state.last_slot for state in states}
        self._entries = [_Entry(each, left_at[each.name]) for each in schedules if each.enabled]
        self._find_next()
        for entry in self._entries:
            if entry.cursor - now > FAR_AHEAD:
                self._log.warning(
                    f"schedule {entry.schedule.name} was decided up to {iso(entry.cursor)}, which is ahead of this "
                    "clock; until then nothing of it is fired"
                )

    def turn(self, store: Store, now: datetime) -> bool:
        """Decide what is due, in one transaction of two chunks at the most; was a run made?

        So a thousand schedules at midnight are a few syncs of the disk, and who has much to catch up with comes last.
        """
        late = [entry for entry in self._entries if entry.next is not None and entry.next <= now]
        late.sort(key=lambda entry: entry.next or now, reverse=True)
        firings: list[Firing] = []
        taken: list[tuple[_Entry, datetime, int]] = []
        for entry in late:
            if len(firings) < CHUNK:
                chunk, reached = self._chunk(store, entry, now)
                taken.append((entry, reached, len(chunk)))
                firings += chunk
        hooks = self.definitions.hooks
        decided = store.fire(firings, now=now, hooks=hooks) if firings else []
        fired = iter(decided)
        for entry, reached, count in taken:
            entry.advance(reached)
            if reached == now:
                entry.behind, entry.oldest_caught_up = False, None
            self._report(entry, list(islice(fired, count)))
        self._find_next()
        return any(
            each.outcome == "fired" or (each.outcome == "missed" and each.firing.job in hooks) for each in decided
        )

    def _find_next(self) -> None:
        self.next_at = min((entry.next for entry in self._entries if entry.next is not None), default=None)

    def _chunk(self, store: Store, entry: _Entry, now: datetime) -> tuple[list[Firing], datetime]:
        """What is due of a schedule, a chunk at the most, and how far it is decided then."""
        entry.paused = store.paused_times(entry.schedule.name)
        slots = list(islice(entry.due(entry.cursor, now), CHUNK + 1))
        more = len(slots) > CHUNK
        entry.behind |= len(slots) > 1
        firings = [self._firing(entry, slot, not more and slot == slots[-1], now) for slot in slots[:CHUNK]]
        return firings, slots[CHUNK - 1] if more else now

    def _firing(self, entry: _Entry, slot: datetime, newest: bool, now: datetime) -> Firing:
        run: NewRun | None = None
        missed = self._why_missed(entry, slot, newest, now)
        if missed is None:
            try:
                run = self._run(entry, slot, now)
            except HueyctlError as exc:
                missed = exc.message
        schedule = entry.schedule
        # Who wants all of them wants none to be in the way of the next: as in a backfill they go one by one.
        made_up_for = schedule.catch_up == "all" and (entry.behind or entry.oldest_caught_up is not None)
        return Firing(
            schedule=schedule.name,
            definition=entry.definition,
            slot=slot,
            run=run,
            job=schedule.target,
            overlap="line" if made_up_for and schedule.overlap != "allow" else schedule.overlap,
            reason=missed,
        )

    def _why_missed(self, entry: _Entry, slot: datetime, newest: bool, now: datetime) -> str | None:
        schedule, late = entry.schedule, now - slot
        if late <= max(schedule.grace, LEAST_GRACE):
            return None
        said = f"it was {format_duration(timedelta(seconds=round(late.total_seconds())))} late"
        if schedule.catch_up == "none":
            return f"{said}, and catch_up is none"
        if late > schedule.catch_up_window:
            return f"{said}, more than catch_up_window ({format_duration(schedule.catch_up_window)})"
        if schedule.catch_up == "latest":
            return None if newest else f"{said}, and catch_up is for the latest slot alone"
        if entry.oldest_caught_up is None:
            # A slot right at the window's edge is within it, as it is above.
            since = max(entry.cursor, now - schedule.catch_up_window - timedelta.resolution)
            last = deque(entry.due(since, now), maxlen=schedule.catch_up_max)
            entry.oldest_caught_up = last[0] if last else now
        return None if slot >= entry.oldest_caught_up else f"{said}, with more than catch_up_max slots after it"

    def _run(self, entry: _Entry, slot: datetime, now: datetime) -> NewRun:
        schedule = entry.schedule
        in_time = now - slot <= max(schedule.grace, LEAST_GRACE)
        trigger: Trigger = "schedule" if in_time else "catch_up"
        # What is caught up with is due now: `expires` counts from there.
        due_at = entry.times.due(slot) if in_time else None
        return run_of(self.definitions.project, schedule, slot, trigger, due_at)

    def _report(self, entry: _Entry, fired: Iterable[Fired]) -> None:
        foreign = False
        for outcome, group in groupby(fired, key=lambda each: each.outcome):
            alike = list(group)
            foreign |= outcome == "foreign"
            if outcome in ("missed", "skipped"):
                # A line for each would be thousands after a long stop; the event log has them all.
                what = iso(alike[-1].firing.slot)
                if len(alike) > 1:
                    what = f"{len(alike)} slots from {iso(alike[0].firing.slot)} to {what}; the last"
                self._log.warning(f"schedule {entry.schedule.name} {outcome} {what}: {alike[-1].reason}")
        if foreign and not entry.foreign:
            self._log.error(
                f"schedule {entry.schedule.name} is not fired here: another worker's file defines it differently; "
                "reload the one that is out of date"
            )
        entry.foreign = foreign
