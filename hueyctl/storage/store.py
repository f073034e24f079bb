"""`Store`: the few verbs that every store has, and the records they take and give.

Promises that every implementation keeps, and that the contract suite checks:

- What a verb writes, it writes in one transaction, with the events that record it.
- `accept`, `revoke`, `retry`, `pause` and re-claims are on the disk when the verb returns (after a power cut too).
- `exchange` settles under the token of the claim alone: a stale token changes nothing and leaves a `stale` event.
- What calls for one of `hooks` gets that hook's run in the same transaction, with an event (`hook`) that names it. A
  hook that raises leaves its message there, and nothing else undone.
- Every time that decides something comes in as `now` (aware, UTC).
- Every error is a `StoreError` of `hueyctl.errors`; a driver's own never gets out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol

import msgspec

from hueyctl.model.definition import RateLimit, Retention
from hueyctl.model.event import Event
from hueyctl.model.handover import Input
from hueyctl.model.hook import NO_HOOKS, Hooks
from hueyctl.model.run import NewRun, Run, RunState
from hueyctl.model.transition import Printed, Settlement


class Accepted(msgspec.Struct, frozen=True):
    """The run that stands for what was handed in; `existing`: it stood there before."""

    run: Run
    existing: bool = False


class JobPolicy(msgspec.Struct, frozen=True):
    """What a claim needs of a worker's definition of a job."""

    retries: int = 0
    crash_limit: int = 3
    on_worker_lost: Literal["retry", "fail"] = "retry"
    max_concurrent: int | None = None
    rate_limit: RateLimit | None = None


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker can take now.

    `queues` None means all. `admit` says why a run's message doesn't fit the worker's definition (None: it fits);
    one that doesn't becomes `held` with that reason, and no attempt is counted. `queue_limits`: of how many runs of a
    queue may run at once, over all workers, as the limits of `jobs` are.
    """

    worker: str
    limit: int
    jobs: Mapping[str, JobPolicy]
    queues: tuple[str, ...] | None = None
    queue_limits: Mapping[str, int] = {}
    admit: Callable[[Run], str | None] = lambda run: None


class Claim(msgspec.Struct, frozen=True):
    """A run taken by a worker: `run` is it after the claim (running, its attempt counted), `token` the fence.

    Of a step, `pipeline` is the run of its pipeline, and `inputs` are the results of those that it waited for.
    """

    run: Run
    token: str
    pipeline: Run | None = None
    inputs: tuple[Input, ...] = ()


class StepRun(msgspec.Struct, frozen=True):
    """A step of a pipeline that was enqueued: its run, and the positions of the steps that it waits for, in the order
    in which it is handed their results."""

    run: Run
    after: tuple[int, ...]


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What one exchange did.

    `next_due`: when the next scheduled run becomes due, or one that waits expires, or a rate limit lets the next one
    start. `throttled`: one waits for such a limit. `opened`: a run that waited for what ended here may be claimed now.
    """

    claims: tuple[Claim, ...] = ()
    stale: tuple[Settlement, ...] = ()
    next_due: datetime | None = None
    throttled: bool = False
    opened: bool = False


class Revocation(msgspec.Struct, frozen=True):
    """What a revoke did to one run: `revoked` (it was not running), `requested` (running, flagged to be stopped),
    `running` (left alone, since stopping was not asked for), `ended` (it was terminal already)."""

    run: Run
    effect: Literal["revoked", "requested", "running", "ended"]


class Retried(msgspec.Struct, frozen=True):
    """What a retry did to one run: `run` after it, and why it was refused (None: it was retried)."""

    run: Run
    refusal: str | None = None


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it registered. `jobs` are the names it defines; `queues` None means all. `request`: what it was
    asked to do and has not done yet. `beat` only grows; `beat_at` (wall clock) is for showing, never for deciding."""

    id: str
    host: str
    pid: int
    version: str
    file: str
    concurrency: int
    jobs: tuple[str, ...]
    queues: tuple[str, ...] | None
    lease_s: float
    started_at: datetime
    beat: int = 0
    beat_at: datetime
    running: int = 0
    request: Literal["stop", "reload"] | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """An independent switch: nothing (`all`), no run of a job or queue, or no slot of a schedule goes on."""

    kind: Literal["all", "job", "queue", "schedule"]
    name: str
    note: str | None
    by: str
    at: datetime


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs: every given field must match; `since` (inclusive) and `until` (exclusive) are of `enqueued_at`. A
    `pipeline` (the id of its run) has that one and its steps."""

    states: tuple[RunState, ...] | None = None
    job: str | None = None
    queue: str | None = None
    schedule: str | None = None
    pipeline: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: every given field must match; `since` is inclusive, `until` exclusive. A `run` that is a pipeline's
    has those of its steps too."""

    types: tuple[str, ...] | None = None
    job: str | None = None
    run: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Pruned(msgspec.Struct, frozen=True):
    """The ids of the runs that a prune deleted, and how many events; `more`: it stopped at its limit of either."""

    runs: tuple[str, ...]
    more: bool
    events: int = 0


class ScheduleDefinition(msgspec.Struct, frozen=True):
    """What a worker's file says of a schedule, as hashes: of the rule that makes its slots, and of all of it."""

    rule: str
    whole: str


class ScheduleState(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a schedule. `definition` is the hash of all that it was when last defined, by a worker
    that had read `file` (empty: it is gone from there); nothing at or below `last_slot` is decided any more, but by a
    backfill."""

    name: str
    definition: str
    file: str
    last_slot: datetime
    changed_at: datetime


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """A slot to be decided: `run` is what it is to start, None where it was missed (`reason` says why).

    `job` is that of the run: its hook follows where the slot is missed. `overlap` is what happens while other runs of
    the schedule are live: it is skipped, one waits for their end (`queue`), any number wait in `line`, it starts beside
    them (`allow`), or they end (`replace`).
    """

    schedule: str
    definition: str
    slot: datetime
    run: NewRun | None
    job: str = ""
    overlap: Literal["skip", "queue", "line", "allow", "replace"] = "skip"
    reason: str | None = None


class Fired(msgspec.Struct, frozen=True):
    """What became of a slot: `fired` (`run` is the run's id), `skipped` or `missed` (for `reason`), `paused` (it
    passed), `past` (it was decided before), or `foreign` (the store has another definition of its schedule)."""

    firing: Firing
    outcome: Literal["fired", "skipped", "missed", "paused", "past", "foreign"]
    run: str | None = None
    reason: str | None = None


class DecidedSlot(msgspec.Struct, frozen=True):
    """A slot that was decided: when it was due, what became of it, the id of its run or the reason why it has none."""

    slot: datetime
    outcome: Literal["fired", "skipped", "missed"]
    run: str | None
    reason: str | None


class PausedTime(msgspec.Struct, frozen=True):
    """A time in which a schedule was paused: from `since` to before `until`; None: it still is."""

    since: datetime
    until: datetime | None

    def covers(self, slot: datetime) -> bool:
        """Was it paused at that slot?"""
        return self.since <= slot and (self.until is None or slot < self.until)


class LockHolder(msgspec.Struct, frozen=True):
    """Who holds a lock: the id of the run, and since when its attempt does."""

    run: str
    since: datetime


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """How many runs of one job stand in one queue in one state (live states alone)."""

    queue: str
    job: str
    state: RunState
    count: int


class Spread(msgspec.Struct, frozen=True):
    """How long many things lasted, in seconds: half of them no longer than `p50`, 95 of 100 no longer than `p95`.

    Each is one that was measured, by the nearest rank: the shortest that so many of them don't exceed.
    """

    p50: float
    p95: float
    max: float


class JobStats(msgspec.Struct, frozen=True, kw_only=True):
    """How the runs of a job ended in some time, and how long they took. `job` None: all jobs together.

    `other` are those that were revoked, expired or skipped; `retried` are attempts that failed and were followed by
    another, `lost` those whose worker died. `waited` is from when a run was due to the start of its last attempt,
    `took` from there to its end; None: none of them started, or none is kept that did.
    """

    job: str | None
    succeeded: int = 0
    failed: int = 0
    other: int = 0
    retried: int = 0
    lost: int = 0
    waited: Spread | None = None
    took: Spread | None = None

    @property
    def ended(self) -> int:
        """How many runs ended, in whatever state."""
        return self.succeeded + self.failed + self.other

    @property
    def failure_rate(self) -> float | None:
        """Which part of the runs that ended by themselves failed; None: there was none."""
        return self.failed / (self.succeeded + self.failed) if self.succeeded + self.failed else None


class Ends(msgspec.Struct, frozen=True):
    """How many runs ended: in which second (its beginning), in which state. `seq`: that of the last event looked at."""

    seq: int
    counts: Mapping[tuple[datetime, RunState], int]


TOOK_AT_MOST_S: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 14400.0)
"""The classes that a `Tally` sorts attempts into, by how long they took; the last one has no end."""


class Tally(msgspec.Struct, frozen=True):
    """What was recorded behind some event. `seq`: that of the last one looked at.

    `events`: how many, by type, job and schedule (None: an event of none). `took`: of the attempts that ended, by job
    and class (an index of `TOOK_AT_MOST_S`, or one more), how many and how many seconds together.
    """

    seq: int
    events: Mapping[tuple[str, str | None, str | None], int]
    took: Mapping[tuple[str, int], tuple[int, float]]


class Store(Protocol):
    """One store, opened. Not for use by two threads at once; each thread opens its own."""

    # -- acceptance -------------------------------------------------------------------------------------------------
    def accept(self, runs: Sequence[NewRun], *, by: str, now: datetime) -> list[Accepted]:
        """Take all of `runs` in, or none, durably. A due time in the future makes a run `scheduled`.

        Of a pipeline, its run is what was accepted; it and the steps that wait for others are `waiting`. It expires by
        its steps alone; those have its trigger, and neither a schedule nor a unique key.

        Raises:
            Refused: an id is taken by a run of another job or with other parameters.
        """

    # -- the hot verb -----------------------------------------------------------------------------------------------
    def exchange(
        self, settlements: Sequence[Settlement], want: Want | None, *, now: datetime, hooks: Hooks = NO_HOOKS
    ) -> Exchange:
        """Settle every attempt that has ended and claim what `want` can take, in one transaction.

        Before claiming, due runs become queued, and runs past `expires_at` that never started become expired.
        Claims are of the highest priority first, oldest first within it, skipping paused and gated ones and full lines;
        a claim counts as an attempt the moment it is made. A worker that isn't registered (any more) gets none: nobody
        would rescue them. A settlement that can't be stored ends its run `failed` with that cause, and takes no other
        with it. `next_due` is `now` where more is to be done than one transaction should, or hooks' runs were made.

        A claimed run whose `lock_key` another one holds isn't claimed but waits (event `locked`): it is let out again
        when the holder's attempt is over. Among those of a key the highest priority goes first, the oldest within it.
        """

    # -- changes asked for by users ---------------------------------------------------------------------------------
    def revoke(self, ids: Sequence[str], *, kill: bool, by: str, now: datetime) -> list[Revocation]:
        """Never let these runs start; with `kill`, flag those that run to be stopped."""

    def retry(self, ids: Sequence[str], *, by: str, now: datetime, hooks: Hooks = NO_HOOKS) -> list[Retried]:
        """Bring ended runs (not succeeded ones) back: same id, retries and losses afresh, due now. A step to which
        nothing can be handed on fails again at once, and has its hook."""

    def pause(self, pauses: Sequence[Pause]) -> None:
        """Set these switches, with an event each. Set again, one has another note, and counts from the first time."""

    def resume(self, kind: str, name: str, *, by: str, now: datetime) -> bool:
        """Unset a switch; False where it wasn't set."""

    # -- schedules --------------------------------------------------------------------------------------------------
    def define_schedules(
        self, definitions: Mapping[str, ScheduleDefinition], *, file: str, now: datetime
    ) -> list[ScheduleState]:
        """Enter all schedules of a `jobs.toml` by their names: those that are new, whose rule has changed, or that
        come back to the file after they were removed from it, start from now. Returns all that the store knows,
        others' too."""

    def fire(self, firings: Sequence[Firing], *, now: datetime, hooks: Hooks = NO_HOOKS) -> list[Fired]:
        """Decide these slots (of each schedule in their order), durably: each once, whoever asks. A run whose
        schedule has others under way is skipped, waits for their end, goes beside them or takes their place, as
        `overlap` says. Of those that are missed, a hook follows once for each schedule."""

    def backfill(self, firings: Sequence[Firing], *, by: str, now: datetime) -> list[Fired]:
        """Decide these slots although they are past, except those that have fired before."""

    def last_slots(self, schedule: str, *, limit: int) -> list[DecidedSlot]:
        """The newest slots of a schedule that were decided, the newest first; kept as long as events are."""

    def last_decided(
        self, schedule: str, outcome: Literal["fired", "skipped", "missed"], *, among: int = 1_000
    ) -> tuple[datetime, datetime] | None:
        """The newest slot of a schedule of which that became, `among` its newest so many, and when that was decided."""

    def paused_times(self, schedule: str) -> list[PausedTime]:
        """When a schedule was paused, alone or with all, and is, by `since`; kept as long as events are. They may
        overlap."""

    def schedule_states(self) -> list[ScheduleState]:
        """Every schedule that was ever defined, by name."""

    # -- workers ----------------------------------------------------------------------------------------------------
    def register(self, worker: Worker, *, now: datetime) -> None:
        """Enter a worker (or its new definitions, after a reload) and write its event. Its locks are held already."""

    def beat(self, worker: str, *, running: int, now: datetime) -> bool:
        """Count this worker's beat up; False: it is not registered (any more: somebody rescued it)."""

    def unregister(self, worker: str, *, reason: str, now: datetime) -> None:
        """Take a worker out that has settled or released all that it had."""

    def workers(self) -> list[Worker]:
        """Every registered worker, the dead that nobody has rescued yet included."""

    def ask(self, worker: str, request: Literal["stop", "reload"], *, by: str, now: datetime) -> bool:
        """Leave a request for a worker; False where there is none of that id."""

    def asked(self, worker: str) -> tuple[str | None, tuple[tuple[int, str], ...]]:
        """What this worker was asked, and (n, token) of its attempts that are to be stopped. Clears the request
        to reload; one to stop stands until the worker has gone."""

    def rescue(
        self, worker: str, *, cause: str, now: datetime, hooks: Hooks = NO_HOOKS, beat: int | None = None
    ) -> list[Run]:
        """Give back every run that this (dead) worker had, by `model.transition.lose`, and take the worker out.

        Who calls it has seen that the worker is dead; calling it twice does no harm. With a `beat` it is dead by its
        silence alone: where it isn't at that one any more, it has gone on since it was judged, and nothing is done.
        """

    # -- upkeep -----------------------------------------------------------------------------------------------------
    def sweep(self, *, served: Mapping[str, Collection[str]] | None, now: datetime, hooks: Hooks = NO_HOOKS) -> int:
        """Expire what is past its time, whether paused or gated; hold what no live worker defines, release what one
        defines again. `served`: for each queue that live workers serve (`*`: all) the jobs they define; None: no
        worker is alive, and nothing is held for it. Returns how many runs changed."""

    def readmit(self, jobs: Collection[str], *, now: datetime) -> int:
        """Release runs of these jobs that were held because their message didn't fit: a new definition is there."""

    def prune(self, retention: Retention, *, now: datetime, limit: int = 500) -> Pruned:
        """Delete at most `limit` runs and as many events past their retention, in one transaction. The output of the
        runs is the caller's to delete. A pipeline goes as a whole, though it be above the limit: when the longest
        retention of any end that its steps may have had has passed since its end."""

    def prunable(self, retention: Retention, *, now: datetime) -> tuple[int, int]:
        """How many runs and how many events are past their retention. Counting events reads all of them."""

    def checkpoint(self) -> None:
        """Move the log into the main file and shorten it, where the store has such a thing."""

    # -- reading ----------------------------------------------------------------------------------------------------
    def get(self, id: str) -> Run | None:
        """The run of that id."""

    def find(self, prefix: str, *, limit: int = 2) -> list[Run]:
        """Runs whose id starts so."""

    def newest(self, *, job: str | None = None) -> Run | None:
        """The newest run of a job; without one, the newest that no schedule and no hook started."""

    def runs(self, where: RunFilter, *, limit: int | None, before: int | None = None) -> list[Run]:
        """Newest first; `before` (a run's `n`) goes on where a page ended."""

    def events(self, where: EventFilter, *, after: int, limit: int) -> list[Event]:
        """In order of seq, from the first after `after`."""

    def last_events(self, where: EventFilter, *, limit: int) -> list[Event]:
        """The newest `limit`, in order of seq."""

    def last_seq(self) -> int:
        """The seq of the newest event ever written, pruned ones included; 0 before the first."""

    def stats(self, *, since: datetime, until: datetime, job: str | None = None) -> list[JobStats]:
        """How runs ended from `since` to before `until`, by the event log: a line for each job of which an attempt did,
        by name, and one for all of them at last. Pipelines have none, unless `job` is one: then it is of its own runs.

        Reads the events of that time alone, a page at a time; what was recorded while the clock was set back by more
        than a minute may be missed. How long runs waited is known of those that are still kept.
        """

    def ends(self, *, since: datetime, after: int | None) -> Ends:
        """How many runs ended from `since` on, pipelines' own aside: of all, or of those whose end is behind the event
        `after`. It reads no other events, so that who asks again with the `seq` of the answer asks for little."""

    def tally(self, *, after: int) -> Tally:
        """What was recorded behind the event `after`, counted. It reads no other events: who asks again with the `seq`
        of the answer counts each once."""

    def lines(self) -> list[Line]:
        """Counts of live runs by queue, job and state."""

    def heads(self) -> list[Run]:
        """Of each job and queue the queued run that would be claimed first; those that wait for a lock aside."""

    def last_ended(self, jobs: Collection[str], state: RunState, *, among: int = 1_000) -> dict[str, datetime]:
        """When runs of these jobs last ended in that state, of the ten times `among` runs that ended so last, or else
        of the job's newest `among`; those of which none did are left out."""

    def next_up(self, *, limit: int) -> list[Run]:
        """Queued and scheduled runs in the order in which they'd be claimed, pauses, limits and workers aside: those
        that wait for a lock or their schedule's turn (of the first `limit` of these) come after the queued."""

    def last_failed(self, *, limit: int) -> list[Run]:
        """Runs that failed or expired, the last to end first; of pipelines their steps (of those that still go on, the
        newest)."""

    def ahead_of(self, run: Run) -> int:
        """How many queued runs of its queue would be claimed before this queued one (counted up to 1,000)."""

    def running(self, *, worker: str | None = None) -> list[Run]:
        """Runs under way, the longest first; no pipelines, but their steps."""

    def steps(self, pipeline: str) -> list[StepRun]:
        """The steps of the pipeline whose run has this id, by position; none, where it isn't a pipeline's."""

    def inputs(self, run: Run) -> tuple[Input, ...]:
        """What the steps have given, so far, that a step waits for; for a pipeline's run: its last steps, whose results
        are its result."""

    def printed(self, run: Run, attempt: int) -> Printed | None:
        """The ends of what an ended attempt has printed, where the store is one that several machines use."""

    def lock_holder(self, key: str) -> LockHolder | None:
        """The running run that holds a lock; None: it is free."""

    def rate_opens_at(self, job: str, limit: RateLimit, *, now: datetime) -> datetime | None:
        """When the next run of the job may start by this limit; None: now."""

    def pauses(self) -> list[Pause]:
        """The switches that are set."""

    def changed(self) -> bool:
        """Has another connection committed since this was asked last? Cheap; True the first time."""

    def sync(self) -> None:
        """Make everything committed so far durable: what has been reported must not come undone."""

    def close(self) -> None:
        """Let the store go."""
