"""Schedules: what they are and do, when they fire, and firing them by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import msgspec

from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.errors import NotFound, Refused, StoreMissing, UsageError
from hueyctl.model import params
from hueyctl.model.definition import Schedule
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso
from hueyctl.model.order import run_of, secrets_of
from hueyctl.model.run import RunState
from hueyctl.model.schedule import FireTimes
from hueyctl.model.wording import did_you_mean, quoted
from hueyctl.storage.store import Fired, Firing, Pause, RunFilter, Store

Overlap = Literal["skip", "queue", "allow", "replace"]

SHOWN_NEXT = 3
SHOWN_SLOTS = 10
UNASKED_MAX = 1_000
"""A backfill of more slots than that has to be confirmed."""
BACKFILL_MAX = 10_000
"""And of more than that is refused: all of it is one transaction, in which nobody else can write."""


class SlotView(msgspec.Struct, frozen=True):
    """A slot that was decided; `fired` has its run's id, and its state unless it was pruned, the others a reason."""

    slot: datetime
    outcome: Literal["fired", "skipped", "missed"]
    run: str | None
    state: RunState | None
    reason: str | None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it stands now. `next`: its next slot (None: there is none, or it is disabled); `pause`: the switch
    because of which that won't fire."""

    schedule: Schedule
    next: datetime | None
    last: SlotView | None
    pause: Pause | None


class ScheduleDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All about one schedule: its next slots, its last ones (the newest first), and its newest runs."""

    view: ScheduleView
    next: list[datetime]
    slots: list[SlotView]
    runs: list[PublicRun]


class Backfilled(msgspec.Struct, frozen=True):
    """What a backfill made of one slot: a run (`fired`), none as it had one already (`past`), or none (`skipped`)."""

    slot: datetime
    outcome: str
    run: str | None
    reason: str | None


def known(session: Session, name: str) -> Schedule:
    """The schedule of that name; raises NotFound with the nearest one."""
    schedule = session.project.schedules.get(name)
    if schedule is None:
        near = did_you_mean(name, session.project.schedules)
        raise NotFound(f"there is no schedule {quoted(name)}{near}", hint="`hueyctl schedule list` lists them")
    return schedule


def schedules(session: Session, *, now: datetime) -> list[ScheduleView]:
    """Every schedule of the file, by name."""
    around = _around(session)
    return [_view(around, schedule, now) for _, schedule in sorted(session.project.schedules.items())]


def schedule_detail(session: Session, name: str, *, now: datetime) -> ScheduleDetail:
    """All about a schedule; raises NotFound."""
    schedule, around = known(session, name), _around(session)
    store = around.store
    runs = [] if store is None else store.runs(RunFilter(schedule=name), limit=SHOWN_SLOTS)
    return ScheduleDetail(
        view=_view(around, schedule, now),
        next=list(islice(_upcoming(around, schedule, now), SHOWN_NEXT)),
        slots=[] if store is None else _slots(store, name, SHOWN_SLOTS),
        runs=[public_of(session, run) for run in runs],
    )


def upcoming(session: Session, *, now: datetime, limit: int) -> list[tuple[datetime, ScheduleView]]:
    """The next slot of each schedule that has one, the soonest first."""
    found = [(view.next, view) for view in schedules(session, now=now) if view.next is not None]
    return sorted(found, key=lambda each: (each[0], each[1].schedule.name))[:limit]


def tried_out(cron: str, timezone: str) -> Schedule:
    """An expression that stands in no file, as a schedule; raises UsageError where it is wrong."""
    schedule = Schedule(name="", target="", target_kind="job", timezone=timezone, cron=cron)
    try:
        FireTimes(schedule)
    except ValueError as exc:
        raise UsageError(f'--cron: expected a cron expression like "30 2 * * *", got {quoted(cron)}: {exc}') from exc
    return schedule


def next_times(schedule: Schedule, *, after: datetime, limit: int) -> list[tuple[datetime, bool]]:
    """The first `limit` slots after that, and of each whether a clock change moved it there."""
    times = FireTimes(schedule)
    slots = list(islice(times.between(after, datetime.max.replace(tzinfo=UTC)), limit))
    return [(slot, times.moved(slot)) for slot in slots]


def trigger(session: Session, name: str, *, due_at: datetime | None, now: datetime) -> PublicRun:
    """Start what a schedule starts, by hand: durably, for no slot, whatever pause or overlap say.

    Raises:
        NotFound: there is no such schedule.
        UsageError: its parameters don't fit its job or pipeline.
        StoreError: the store can't be used; nothing was accepted.
    """
    run = run_of(session.project, known(session, name), None, "manual", due_at)
    (accepted,) = session.creator().accept([run], by=session.by, now=now)
    session.ring()
    return public_of(session, accepted.run)


def backfill(
    session: Session,
    name: str,
    *,
    start: datetime,
    end: datetime,
    overlap: Overlap | None,
    confirmed: bool,
    now: datetime,
) -> list[Backfilled]:
    """Fire each slot from `start` to `end` (both included) that never fired, in one transaction, the oldest first.

    Without `overlap` the runs go one after the other, or side by side where the schedule's own overlap allows that.

    Raises:
        NotFound: there is no such schedule.
        UsageError: `end` isn't over yet, or comes before `start`.
        Refused: there are more than 1,000 slots and it isn't `confirmed`, or more than 10,000.
        StoreError: the store can't be used; nothing was accepted.
    """
    schedule = known(session, name)
    if end > now:
        raise UsageError("to: that is not over yet; what is to come is fired by itself")
    if end < start:
        raise UsageError("to: expected a time after from")
    between = FireTimes(schedule).between(start - timedelta.resolution, end)
    slots = list(islice(between, BACKFILL_MAX + 1))
    if len(slots) > BACKFILL_MAX:
        hint = f"take it in parts: its first {BACKFILL_MAX} end with --to {iso(slots[-2])}"
        raise Refused(f"these are more than {BACKFILL_MAX} slots; nothing was enqueued", hint=hint)
    if len(slots) > UNASKED_MAX and not confirmed:
        raise Refused(f"these are {len(slots)} slots; nothing was enqueued", hint="--yes enqueues them all")
    policy = overlap or ("allow" if schedule.overlap == "allow" else "queue")
    firings = [
        Firing(
            schedule=name,
            definition="",
            slot=slot,
            run=run_of(session.project, schedule, slot, "backfill", None),
            # All of a backfill that is queued wait their turn, where of slots to come one does.
            overlap="line" if policy == "queue" else policy,
        )
        for slot in slots
    ]
    fired = session.creator().backfill(firings, by=session.by, now=now) if firings else []
    session.ring()
    return [_backfilled(each) for each in fired]


def public_schedule(session: Session, view: ScheduleView) -> dict[str, Any]:
    """A schedule as JSON-ready values: durations are seconds, secret parameters masked."""
    schedule = view.schedule
    project = session.project
    starts = project.jobs.get(schedule.target) or project.pipelines[schedule.target]
    found: dict[str, Any] = msgspec.to_builtins(
        {
            "name": schedule.name,
            "job": schedule.target if schedule.target_kind == "job" else None,
            "pipeline": schedule.target if schedule.target_kind == "pipeline" else None,
            "params": params.masked(schedule.params, secrets_of(starts)),
            "priority": schedule.priority,
            "queue": schedule.queue,
            "cron": schedule.cron,
            "every": None if schedule.every is None else schedule.every.total_seconds(),
            "offset": schedule.offset.total_seconds(),
            "at": schedule.at,
            "timezone": schedule.timezone,
            "start": schedule.start,
            "end": schedule.end,
            "enabled": schedule.enabled,
            "jitter": schedule.jitter.total_seconds(),
            "overlap": schedule.overlap,
            "catch_up": schedule.catch_up,
            "catch_up_window": schedule.catch_up_window.total_seconds(),
            "catch_up_max": schedule.catch_up_max,
            "grace": schedule.grace.total_seconds(),
            "next": view.next,
            "last": view.last,
            "paused": view.pause,
        }
    )
    return found


def in_words(schedule: Schedule) -> str:
    """When it fires: `30 2 * * * in Europe/Berlin`, `every 15s`, `at 2026-12-24T18:00:00Z`."""
    if schedule.cron is not None:
        text = f"{schedule.cron} in {schedule.timezone}"
    elif schedule.every is not None:
        offset = f" and {format_duration(schedule.offset)}" if schedule.offset else ""
        text = f"every {format_duration(schedule.every)}{offset}"
    else:
        text = f"at {iso(schedule.at)}" if schedule.at else ""
    start = f", from {iso(schedule.start)}" if schedule.start else ""
    return text + start + (f", until {iso(schedule.end)}" if schedule.end else "")


class _Around(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says of schedules, read once for all of them; `store` None: no worker has been there yet, so that
    the file alone says what will be."""

    store: Store | None = None
    decided: Mapping[str, datetime] = {}
    pauses: Sequence[Pause] = ()


def _around(session: Session) -> _Around:
    try:
        store = session.reader()
    except StoreMissing:
        return _Around()
    decided = {state.name: state.last_slot for state in store.schedule_states()}
    return _Around(store=store, decided=decided, pauses=store.pauses())


def _view(around: _Around, schedule: Schedule, now: datetime) -> ScheduleView:
    slots = [] if around.store is None else _slots(around.store, schedule.name, 1)
    return ScheduleView(
        schedule=schedule,
        next=next(_upcoming(around, schedule, now), None),
        last=slots[0] if slots else None,
        pause=_pause(around.pauses, schedule.name),
    )


def _upcoming(around: _Around, schedule: Schedule, now: datetime) -> Iterator[datetime]:
    """The slots that will fire: none of them is below what was decided before, whatever this clock says."""
    if not schedule.enabled:
        return iter(())
    decided = around.decided.get(schedule.name, now)
    return FireTimes(schedule).between(max(now, decided), datetime.max.replace(tzinfo=UTC))


def _pause(pauses: Sequence[Pause], name: str) -> Pause | None:
    applying = [each for each in pauses if each.kind == "all" or (each.kind == "schedule" and each.name == name)]
    return applying[0] if applying else None


def _slots(store: Store, name: str, limit: int) -> list[SlotView]:
    found = []
    for each in store.last_slots(name, limit=limit):
        run = store.get(each.run) if each.run else None
        found.append(SlotView(each.slot, each.outcome, each.run, run.state if run else None, each.reason))
    return found


def _backfilled(fired: Fired) -> Backfilled:
    return Backfilled(fired.firing.slot, fired.outcome, fired.run, fired.reason)
