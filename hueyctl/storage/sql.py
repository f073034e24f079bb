"""What `storage.store.Store` promises, verb by verb, on any `Database`.

What only workers and a few commands need is loaded when it is asked for: each `hueyctl enqueue` would wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from hueyctl.model.definition import RateLimit, Retention
from hueyctl.model.event import Event
from hueyctl.model.handover import Input
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.run import NewRun, Run, RunState
from hueyctl.storage import changes, pipelines, reading, workers
from hueyctl.storage.database import Database
from hueyctl.storage.known import Known
from hueyctl.storage.store import (
    Accepted,
    DecidedSlot,
    Ends,
    EventFilter,
    Exchange,
    Fired,
    Firing,
    JobStats,
    Line,
    LockHolder,
    Pause,
    PausedTime,
    Pruned,
    Retried,
    Revocation,
    RunFilter,
    ScheduleDefinition,
    ScheduleState,
    StepRun,
    Tally,
    Want,
    Worker,
)

if TYPE_CHECKING:
    from hueyctl.model.transition import Printed, Settlement


class SqlStore:
    """A `Store`. One thread at a time, and never across a fork."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._known = Known(database)
        # Read once: only a boot changes it, and no connection outlives one.
        self._careful_until: datetime | None = None
        self._careful_read = False
        self._data_version: int | None = None

    # -- acceptance -------------------------------------------------------------------------------------------------
    def accept(self, runs: Sequence[NewRun], *, by: str, now: datetime) -> list[Accepted]:
        return changes.accept(self.database, runs, by=by, now=now)

    # -- the hot verb -----------------------------------------------------------------------------------------------
    def exchange(
        self, settlements: Sequence[Settlement], want: Want | None, *, now: datetime, hooks: Hooks = NO_HOOKS
    ) -> Exchange:
        if want is not None and not self._careful_read:
            self._careful_until, self._careful_read = workers.careful_until(self.database), True
        from hueyctl.storage.exchange import exchange

        until = self._careful_until
        # A clock that was far ahead at boot must not make it careful for years.
        careful = until is not None and now < until <= now + workers.CAREFUL_FOR
        return exchange(self.database, self._known, settlements, want, now, hooks=hooks, durable=careful)

    # -- changes asked for by users ---------------------------------------------------------------------------------
    def revoke(self, ids: Sequence[str], *, kill: bool, by: str, now: datetime) -> list[Revocation]:
        return changes.revoke(self.database, ids, kill=kill, by=by, now=now)

    def retry(self, ids: Sequence[str], *, by: str, now: datetime, hooks: Hooks = NO_HOOKS) -> list[Retried]:
        from hueyctl.storage import retries

        return retries.retry(self.database, ids, by=by, now=now, hooks=hooks)

    def pause(self, pauses: Sequence[Pause]) -> None:
        changes.pause(self.database, pauses)

    def resume(self, kind: str, name: str, *, by: str, now: datetime) -> bool:
        return changes.resume(self.database, kind, name, by=by, now=now)

    # -- schedules --------------------------------------------------------------------------------------------------
    def define_schedules(
        self, definitions: Mapping[str, ScheduleDefinition], *, file: str, now: datetime
    ) -> list[ScheduleState]:
        from hueyctl.storage import schedules

        return schedules.define(self.database, definitions, file=file, now=now)

    def fire(self, firings: Sequence[Firing], *, now: datetime, hooks: Hooks = NO_HOOKS) -> list[Fired]:
        from hueyctl.storage import schedules

        return schedules.fire(self.database, firings, now=now, hooks=hooks)

    def backfill(self, firings: Sequence[Firing], *, by: str, now: datetime) -> list[Fired]:
        from hueyctl.storage import schedules

        return schedules.backfill(self.database, firings, by=by, now=now)

    def last_slots(self, schedule: str, *, limit: int) -> list[DecidedSlot]:
        from hueyctl.storage import schedules

        return schedules.last_slots(self.database, schedule, limit=limit)

    def last_decided(
        self, schedule: str, outcome: Literal["fired", "skipped", "missed"], *, among: int = 1_000
    ) -> tuple[datetime, datetime] | None:
        from hueyctl.storage import schedules

        return schedules.last_decided(self.database, schedule, outcome, among=among)

    def paused_times(self, schedule: str) -> list[PausedTime]:
        from hueyctl.storage import schedules

        return schedules.paused_times(self.database, schedule)

    def schedule_states(self) -> list[ScheduleState]:
        from hueyctl.storage import schedules

        return schedules.states(self.database)

    # -- workers ----------------------------------------------------------------------------------------------------
    def register(self, worker: Worker, *, now: datetime) -> None:
        workers.register(self.database, worker, now)
        self._careful_read = False

    def beat(self, worker: str, *, running: int, now: datetime) -> bool:
        return workers.beat(self.database, worker, running=running, now=now)

    def unregister(self, worker: str, *, reason: str, now: datetime) -> None:
        workers.unregister(self.database, worker, reason=reason, now=now)

    def workers(self) -> list[Worker]:
        return workers.workers(self.database)

    def ask(self, worker: str, request: Literal["stop", "reload"], *, by: str, now: datetime) -> bool:
        return workers.ask(self.database, worker, request)

    def asked(self, worker: str) -> tuple[str | None, tuple[tuple[int, str], ...]]:
        return workers.asked(self.database, worker)

    def rescue(
        self, worker: str, *, cause: str, now: datetime, hooks: Hooks = NO_HOOKS, beat: int | None = None
    ) -> list[Run]:
        return workers.rescue(self.database, worker, cause=cause, now=now, hooks=hooks, beat=beat)

    # -- upkeep -----------------------------------------------------------------------------------------------------
    def sweep(self, *, served: Mapping[str, Collection[str]] | None, now: datetime, hooks: Hooks = NO_HOOKS) -> int:
        from hueyctl.storage import upkeep

        return upkeep.sweep(self.database, served, now, hooks)

    def readmit(self, jobs: Collection[str], *, now: datetime) -> int:
        from hueyctl.storage import upkeep

        return upkeep.readmit(self.database, jobs, now)

    def prune(self, retention: Retention, *, now: datetime, limit: int = 500) -> Pruned:
        from hueyctl.storage import upkeep

        return upkeep.prune(self.database, retention, now=now, limit=limit)

    def prunable(self, retention: Retention, *, now: datetime) -> tuple[int, int]:
        from hueyctl.storage import upkeep

        return upkeep.prunable(self.database, retention, now=now)

    def checkpoint(self) -> None:
        self.database.checkpoint()

    # -- reading ----------------------------------------------------------------------------------------------------
    def get(self, id: str) -> Run | None:
        return reading.get(self.database, id)

    def find(self, prefix: str, *, limit: int = 2) -> list[Run]:
        return reading.find(self.database, prefix, limit=limit)

    def newest(self, *, job: str | None = None) -> Run | None:
        return reading.newest(self.database, job=job)

    def runs(self, where: RunFilter, *, limit: int | None, before: int | None = None) -> list[Run]:
        return reading.runs(self.database, where, limit=limit, before=before)

    def events(self, where: EventFilter, *, after: int, limit: int) -> list[Event]:
        return reading.events(self.database, where, after=after, limit=limit)

    def last_events(self, where: EventFilter, *, limit: int) -> list[Event]:
        return reading.last_events(self.database, where, limit=limit)

    def last_seq(self) -> int:
        return reading.last_seq(self.database)

    def stats(self, *, since: datetime, until: datetime, job: str | None = None) -> list[JobStats]:
        from hueyctl.storage import stats

        return stats.stats(self.database, since=since, until=until, job=job)

    def ends(self, *, since: datetime, after: int | None) -> Ends:
        from hueyctl.storage import stats

        return stats.ends(self.database, since=since, after=after)

    def tally(self, *, after: int) -> Tally:
        from hueyctl.storage import stats

        return stats.tally(self.database, after=after)

    def lines(self) -> list[Line]:
        return reading.lines(self.database)

    def heads(self) -> list[Run]:
        return reading.heads(self.database)

    def last_ended(self, jobs: Collection[str], state: RunState, *, among: int = 1_000) -> dict[str, datetime]:
        return reading.last_ended(self.database, jobs, state, among=among)

    def next_up(self, *, limit: int) -> list[Run]:
        return reading.next_up(self.database, limit=limit)

    def last_failed(self, *, limit: int) -> list[Run]:
        return reading.last_failed(self.database, limit=limit)

    def ahead_of(self, run: Run) -> int:
        return reading.ahead_of(self.database, run)

    def running(self, *, worker: str | None = None) -> list[Run]:
        return reading.running(self.database, worker=worker)

    def steps(self, pipeline: str) -> list[StepRun]:
        return pipelines.steps(self.database, pipeline)

    def inputs(self, run: Run) -> tuple[Input, ...]:
        return pipelines.inputs(self.database, run)

    def printed(self, run: Run, attempt: int) -> Printed | None:
        return reading.printed(self.database, run, attempt)

    def lock_holder(self, key: str) -> LockHolder | None:
        return reading.lock_holder(self.database, key)

    def rate_opens_at(self, job: str, limit: RateLimit, *, now: datetime) -> datetime | None:
        return reading.rate_opens_at(self.database, job, limit, now=now)

    def pauses(self) -> list[Pause]:
        return reading.pauses(self.database)

    def changed(self) -> bool:
        version = self.database.data_version()
        changed, self._data_version = version != self._data_version, version
        return changed

    def sync(self) -> None:
        self.database.sync()

    def close(self) -> None:
        self.database.close()
