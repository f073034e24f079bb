"""Schedules, over every store: a slot is decided once, and runs of a schedule overlap as it says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from scene import Opener

from hueyctl.model.definition import Retention
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun, RunState
from hueyctl.model.transition import Done, Final, Retry, Settlement, Verdict
from hueyctl.storage.store import (
    DecidedSlot,
    EventFilter,
    Fired,
    Firing,
    JobPolicy,
    Pause,
    RunFilter,
    ScheduleDefinition,
    Store,
    Want,
    Worker,
)

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WORKER = Worker(
    id="w1", host="h", pid=1, version="0", file="f", concurrency=10, jobs=("tick",), queues=None, lease_s=30,
    started_at=START, beat_at=START,
)  # fmt: skip
WANT = Want(worker="w1", limit=10, jobs={"tick": JobPolicy(retries=1)})


def firing(slot: datetime, *, overlap: str = "skip", definition: str = "d1", missed: str | None = None) -> Firing:
    run = NewRun(id=str(uuid.uuid4()), job="tick", message=Message(), trigger="schedule", schedule="s", slot=slot)
    return Firing(
        schedule="s",
        definition=definition,
        slot=slot,
        run=None if missed else run,
        overlap=overlap,
        reason=missed,
    )


def fire(store: Store, slot: datetime, **more: str) -> Fired:
    (fired,) = store.fire([firing(slot, **more)], now=slot)
    return fired


@pytest.fixture
def scheduled(opener: Opener) -> Iterator[Store]:
    """A store with a worker, and a schedule that was defined at START."""
    store = opener()
    store.register(WORKER, now=START)
    store.define_schedules({"s": ScheduleDefinition("r1", "d1")}, file="f", now=START)
    yield store
    store.close()


def settle(store: Store, id: str, verdict: Verdict, now: datetime) -> None:
    run = store.get(id)
    assert run is not None
    assert run.token is not None
    settlement = Settlement(n=run.n, token=run.token, verdict=verdict, outcome=Exited(0), ended_at=now)
    assert store.exchange([settlement], None, now=now).stale == ()


def states(store: Store) -> list[str]:
    return [run.state.value for run in reversed(store.runs(RunFilter(), limit=None))]


def test_a_slot_makes_one_run_with_its_event(scheduled: Store) -> None:
    slot = START + MINUTE
    fired = fire(scheduled, slot)
    assert fired.outcome == "fired"
    assert fired.run is not None
    run = scheduled.get(fired.run)
    assert run is not None
    assert (run.schedule, run.scheduled_at, run.trigger, run.state) == ("s", slot, "schedule", RunState.QUEUED)
    (event,) = scheduled.events(EventFilter(run=fired.run), after=0, limit=10)
    assert (event.type, event.schedule, event.slot, event.by) == ("enqueued", "s", slot, "schedule s")
    assert event.data == {"queue": "default", "priority": 0, "trigger": "schedule"}


def test_the_first_event_of_a_schedule_s_run_says_what_made_it(scheduled: Store) -> None:
    runs = [
        NewRun(id=str(uuid.uuid4()), job="tick", message=Message(), trigger=trigger, schedule=schedule, due_at=due)
        for trigger, schedule in (("manual", "s"), ("catch_up", "s"), ("backfill", "s"), ("manual", None))
        for due in (None, START + MINUTE)
    ]
    scheduled.accept(runs, by="me", now=START)
    events = scheduled.events(EventFilter(types=("enqueued", "scheduled")), after=0, limit=10)
    assert [event.data.get("trigger") for event in events] == [
        "manual", "manual", "catch_up", "catch_up", "backfill", "backfill", None, None
    ]  # fmt: skip
    assert [event.data.get("due_at") for event in events] == [None, "2026-03-01T12:01:00Z"] * 4


def test_a_slot_is_decided_once_whoever_asks(scheduled: Store) -> None:
    slot = START + MINUTE
    assert fire(scheduled, slot).outcome == "fired"
    assert fire(scheduled, slot).outcome == "past"
    assert fire(scheduled, slot - timedelta(seconds=1)).outcome == "past"
    assert len(states(scheduled)) == 1


def test_a_slot_does_not_come_back_when_its_run_was_pruned(scheduled: Store) -> None:
    slot = START + MINUTE
    fired = fire(scheduled, slot)
    assert fired.run is not None
    scheduled.exchange([], WANT, now=slot)
    settle(scheduled, fired.run, Done(), slot)
    later = slot + timedelta(days=100)
    keep = Retention(succeeded=timedelta(0), failed=timedelta(0), events=timedelta(0))
    scheduled.prune(keep, now=later)
    assert scheduled.get(fired.run) is None
    assert fire(scheduled, slot).outcome == "past"


def test_a_new_schedule_starts_from_now_and_a_changed_one_too(scheduled: Store) -> None:
    assert fire(scheduled, START).outcome == "past"
    scheduled.define_schedules({"s": ScheduleDefinition("r2", "d2")}, file="f", now=START + 10 * MINUTE)
    assert fire(scheduled, START + 9 * MINUTE, definition="d2").outcome == "past"
    assert fire(scheduled, START + 11 * MINUTE, definition="d2").outcome == "fired"


def test_defining_it_again_unchanged_changes_nothing(scheduled: Store) -> None:
    (state,) = scheduled.define_schedules({"s": ScheduleDefinition("r1", "d1")}, file="f", now=START + 10 * MINUTE)
    assert state.last_slot == START
    assert fire(scheduled, START + MINUTE).outcome == "fired"


def test_a_changed_policy_leaves_the_slots_where_they_are(scheduled: Store) -> None:
    (state,) = scheduled.define_schedules({"s": ScheduleDefinition("r1", "d2")}, file="f", now=START + 10 * MINUTE)
    assert (state.definition, state.last_slot) == ("d2", START)
    assert fire(scheduled, START + MINUTE, definition="d2").outcome == "fired"


def test_a_schedule_that_was_removed_from_its_file_starts_from_when_it_comes_back(scheduled: Store) -> None:
    scheduled.define_schedules({}, file="f", now=START + 5 * MINUTE)
    assert fire(scheduled, START + 6 * MINUTE).outcome == "foreign"
    (state,) = scheduled.define_schedules({"s": ScheduleDefinition("r1", "d1")}, file="f", now=START + 10 * MINUTE)
    assert state.last_slot == START + 10 * MINUTE
    assert fire(scheduled, START + 11 * MINUTE).outcome == "fired"


def test_a_file_removes_only_what_was_its_own(scheduled: Store) -> None:
    scheduled.define_schedules({"t": ScheduleDefinition("r1", "d1")}, file="g", now=START + 5 * MINUTE)
    scheduled.define_schedules({}, file="g", now=START + 5 * MINUTE)
    assert fire(scheduled, START + MINUTE).outcome == "fired"
    (state, _) = scheduled.define_schedules({"s": ScheduleDefinition("r1", "d1")}, file="g", now=START + 9 * MINUTE)
    assert state.last_slot == START + MINUTE  # another file has it too, and that is no change


def test_who_has_another_definition_fires_nothing(scheduled: Store) -> None:
    assert fire(scheduled, START + MINUTE, definition="other").outcome == "foreign"
    assert states(scheduled) == []
    assert fire(scheduled, START + MINUTE).outcome == "fired"


def test_a_missed_slot_is_an_event_with_its_reason(scheduled: Store) -> None:
    slot = START + MINUTE
    assert fire(scheduled, slot, missed="no worker was running").outcome == "missed"
    (event,) = scheduled.events(EventFilter(types=("missed",)), after=0, limit=10)
    assert (event.schedule, event.slot, event.data["reason"]) == ("s", slot, "no worker was running")
    assert fire(scheduled, slot).outcome == "past"


def test_overlap_skip_leaves_a_slot_out_while_a_run_is_live_in_retry_too(scheduled: Store) -> None:
    first = fire(scheduled, START + MINUTE)
    assert first.run is not None
    scheduled.exchange([], WANT, now=START + MINUTE)
    assert fire(scheduled, START + 2 * MINUTE).outcome == "skipped"
    settle(scheduled, first.run, Retry(timedelta(hours=1), 0), START + 2 * MINUTE)
    skipped = fire(scheduled, START + 3 * MINUTE)
    assert skipped.outcome == "skipped"
    assert skipped.reason is not None
    assert first.run[:8] in skipped.reason
    assert [event.slot for event in scheduled.events(EventFilter(types=("skipped",)), after=0, limit=10)] == [
        START + 2 * MINUTE,
        START + 3 * MINUTE,
    ]


def test_overlap_allow_starts_one_beside_the_other(scheduled: Store) -> None:
    fire(scheduled, START + MINUTE, overlap="allow")
    fire(scheduled, START + 2 * MINUTE, overlap="allow")
    assert len(scheduled.exchange([], WANT, now=START + 2 * MINUTE).claims) == 2


def test_overlap_queue_lets_one_wait_for_the_end_of_the_first(scheduled: Store) -> None:
    first = fire(scheduled, START + MINUTE, overlap="queue")
    assert first.run is not None
    scheduled.exchange([], WANT, now=START + MINUTE)
    second = fire(scheduled, START + 2 * MINUTE, overlap="queue")
    third = fire(scheduled, START + 3 * MINUTE, overlap="queue")
    assert (second.outcome, third.outcome) == ("fired", "skipped")
    assert scheduled.exchange([], WANT, now=START + 3 * MINUTE).claims == ()
    settle(scheduled, first.run, Retry(timedelta(0), 0), START + 4 * MINUTE)  # it is not over yet
    (claim,) = scheduled.exchange([], WANT, now=START + 4 * MINUTE).claims
    assert claim.run.id == first.run
    settle(scheduled, first.run, Final(), START + 5 * MINUTE)
    (claim,) = scheduled.exchange([], WANT, now=START + 5 * MINUTE).claims
    assert claim.run.id == second.run


@pytest.mark.parametrize("end", ["revoked", "rescued"])
def test_who_waits_for_a_run_goes_on_however_that_ended(scheduled: Store, end: str) -> None:
    first = fire(scheduled, START + MINUTE, overlap="queue")
    assert first.run is not None
    want = Want(worker="w1", limit=10, jobs={"tick": JobPolicy(on_worker_lost="fail")})
    scheduled.exchange([], want, now=START + MINUTE)
    second = fire(scheduled, START + 2 * MINUTE, overlap="queue")
    if end == "revoked":
        settle(scheduled, first.run, Retry(timedelta(hours=9), 0), START + 2 * MINUTE)
        scheduled.revoke([first.run], kill=False, by="me", now=START + 3 * MINUTE)
    else:
        scheduled.rescue("w1", cause="x", now=START + 3 * MINUTE)
        scheduled.register(WORKER, now=START)
    (claim,) = scheduled.exchange([], WANT, now=START + 4 * MINUTE).claims
    assert claim.run.id == second.run


def test_overlap_replace_revokes_what_waits_and_stops_what_runs(scheduled: Store) -> None:
    first = fire(scheduled, START + MINUTE, overlap="replace")
    assert first.run is not None
    scheduled.exchange([], WANT, now=START + MINUTE)
    second = fire(scheduled, START + 2 * MINUTE, overlap="replace")
    third = fire(scheduled, START + 3 * MINUTE, overlap="replace")
    assert states(scheduled) == ["running", "revoked", "queued"]
    run = scheduled.get(first.run)
    assert run is not None
    assert run.killing
    assert (second.outcome, third.outcome) == ("fired", "fired")
    assert scheduled.exchange([], WANT, now=START + 3 * MINUTE).claims == ()
    settle(scheduled, first.run, Final(), START + 4 * MINUTE)
    (claim,) = scheduled.exchange([], WANT, now=START + 4 * MINUTE).claims
    assert claim.run.id == third.run
    assert states(scheduled) == ["revoked", "revoked", "running"]


@pytest.mark.parametrize(("kind", "name"), [("schedule", "s"), ("all", "")])
def test_the_slots_of_a_pause_neither_fire_nor_count_as_missed(scheduled: Store, kind: str, name: str) -> None:
    pause = Pause(kind=kind, name=name, note=None, by="me", at=START)
    scheduled.pause([pause])
    assert fire(scheduled, START + MINUTE).outcome == "paused"
    scheduled.resume(kind, name, by="me", now=START + 5 * MINUTE)
    assert fire(scheduled, START + 4 * MINUTE).outcome == "paused"
    assert fire(scheduled, START + 6 * MINUTE).outcome == "fired"
    assert scheduled.events(EventFilter(types=("missed", "skipped")), after=0, limit=10) == []


def test_a_backfill_goes_below_the_last_slot_but_not_twice_to_one_that_ran(scheduled: Store) -> None:
    fire(scheduled, START + MINUTE, overlap="allow")
    fire(scheduled, START + 2 * MINUTE, missed="late")
    wanted = [firing(START + n * MINUTE, overlap="allow") for n in (-1, 1, 2)]
    fired = scheduled.backfill(wanted, by="me", now=START + 3 * MINUTE)
    assert [each.outcome for each in fired] == ["fired", "past", "fired"]
    again = scheduled.backfill(wanted, by="me", now=START + 3 * MINUTE)
    assert [each.outcome for each in again] == ["past", "past", "past"]
    (state,) = scheduled.schedule_states()
    assert state.last_slot == START + 2 * MINUTE


def test_a_slot_that_was_backfilled_is_not_fired_again_by_a_worker_that_comes_late(scheduled: Store) -> None:
    slot = START + MINUTE
    (backfilled,) = scheduled.backfill([firing(slot)], by="me", now=START + 2 * MINUTE)
    again = fire(scheduled, slot, overlap="allow")
    assert (again.outcome, again.run) == ("past", backfilled.run)
    assert len(states(scheduled)) == 1


def test_in_line_any_number_wait_and_go_one_by_one(scheduled: Store) -> None:
    wanted = [firing(START - n * MINUTE, overlap="line") for n in (3, 2, 1)]
    fired = scheduled.backfill(wanted, by="me", now=START)
    assert [each.outcome for each in fired] == ["fired"] * 3
    done = []
    for n in range(3):
        now = START + n * MINUTE
        (claim,) = scheduled.exchange([], WANT, now=now).claims
        settle(scheduled, claim.run.id, Done(), now)
        done.append(claim.run.id)
    assert done == [each.run for each in fired]
    assert scheduled.exchange([], WANT, now=START + 3 * MINUTE).claims == ()


def test_who_waits_in_line_names_its_gate_until_it_may_go(scheduled: Store) -> None:
    first = fire(scheduled, START + MINUTE, overlap="queue")
    (claim,) = scheduled.exchange([], WANT, now=START + MINUTE).claims
    second = fire(scheduled, START + 2 * MINUTE, overlap="queue")
    assert [run.gate for run in scheduled.runs(RunFilter(), limit=None)] == ["schedule:s", None]
    assert claim.run.id == first.run
    settle(scheduled, claim.run.id, Done(), START + 3 * MINUTE)
    run = scheduled.get(second.run or "")
    assert run is not None
    assert run.gate is None


def test_a_retried_run_waits_for_nobody_who_is_gone(scheduled: Store) -> None:
    """It waited for its turn when it was revoked; the run that it waited for has ended since."""
    first = fire(scheduled, START + MINUTE, overlap="queue")
    scheduled.exchange([], WANT, now=START + MINUTE)
    second = fire(scheduled, START + 2 * MINUTE, overlap="queue")
    assert first.run is not None
    assert second.run is not None
    scheduled.revoke([second.run], kill=False, by="me", now=START + 3 * MINUTE)
    settle(scheduled, first.run, Done(), START + 4 * MINUTE)
    scheduled.retry([second.run], by="me", now=START + 5 * MINUTE)
    (claim,) = scheduled.exchange([], WANT, now=START + 5 * MINUTE).claims
    assert claim.run.id == second.run


def test_a_slot_of_before_the_pause_is_missed_and_not_fired_in_it(scheduled: Store) -> None:
    at = START + 2 * MINUTE
    scheduled.pause([Pause(kind="schedule", name="s", note=None, by="me", at=at)])
    before, after = scheduled.fire([firing(START + MINUTE), firing(START + 3 * MINUTE)], now=START + 4 * MINUTE)
    assert (before.outcome, before.reason) == ("missed", "it was paused before it could be fired")
    assert after.outcome == "paused"
    assert states(scheduled) == []


def paused(store: Store, kind: str, since: int, until: int | None = None) -> None:
    """Pause the schedule, or all, at a minute, and resume it at another."""
    name = "s" if kind == "schedule" else ""
    at = START + since * MINUTE
    store.pause([Pause(kind=kind, name=name, note=None, by="me", at=at)])
    if until is not None:
        assert store.resume(kind, name, by="me", now=START + until * MINUTE)


def outcomes(store: Store, slots: range, now: int) -> dict[str, list[int]]:
    """What becomes of the slots of these minutes, decided at another."""
    firings = [firing(START + n * MINUTE, overlap="allow") for n in slots]
    found: dict[str, list[int]] = {}
    for n, fired in zip(slots, store.fire(firings, now=START + now * MINUTE), strict=True):
        found.setdefault(fired.outcome, []).append(n)
    return found


def test_slots_on_both_sides_of_a_pause_that_is_over_are_as_if_it_had_not_been(scheduled: Store) -> None:
    """A slot right at its beginning is of the pause, one right at its end is not."""
    paused(scheduled, "schedule", 3, 5)
    assert outcomes(scheduled, range(1, 8), 8) == {"fired": [1, 2, 5, 6, 7], "paused": [3, 4]}


def test_every_pause_of_a_row_counts_the_own_and_that_of_all_overlapping_or_not(scheduled: Store) -> None:
    scheduled.pause([Pause(kind="schedule", name="other", note=None, by="me", at=START)])
    scheduled.pause([Pause(kind="job", name="tick", note=None, by="me", at=START)])
    scheduled.pause([Pause(kind="schedule", name="s", note=None, by="me", at=START + 2 * MINUTE)])
    paused(scheduled, "all", 3, 6)  # all of it resumed, the schedule itself stays paused
    scheduled.resume("schedule", "s", by="me", now=START + 5 * MINUTE)
    paused(scheduled, "schedule", 8, 9)
    paused(scheduled, "all", 11)
    assert outcomes(scheduled, range(1, 13), 13) == {"missed": [1, 6, 7, 9, 10], "paused": [2, 3, 4, 5, 8, 11, 12]}
    assert [(time.since - START, time.until and time.until - START) for time in scheduled.paused_times("s")] == [
        (2 * MINUTE, 5 * MINUTE), (3 * MINUTE, 6 * MINUTE), (8 * MINUTE, 9 * MINUTE), (11 * MINUTE, None)
    ]  # fmt: skip


def test_who_pauses_twice_has_paused_since_the_first_time(scheduled: Store) -> None:
    paused(scheduled, "schedule", 2)
    again = Pause(kind="schedule", name="s", note="why", by="you", at=START + 4 * MINUTE)
    scheduled.pause([again])
    assert scheduled.pauses() == [msgspec.structs.replace(again, at=START + 2 * MINUTE)]
    scheduled.resume("schedule", "s", by="me", now=START + 5 * MINUTE)
    assert outcomes(scheduled, range(1, 7), 7) == {"fired": [1, 5, 6], "paused": [2, 3, 4]}


def test_a_pause_is_known_as_long_as_events_are_and_then_its_schedules_go_on_behind_it(scheduled: Store) -> None:
    scheduled.define_schedules({"t": ScheduleDefinition("r1", "d1")}, file="g", now=START)
    paused(scheduled, "schedule", 3, 5)
    keep = Retention(events=timedelta(days=1))
    scheduled.prune(keep, now=START + timedelta(days=1) + 4 * MINUTE)
    assert len(scheduled.paused_times("s")) == 1
    scheduled.prune(keep, now=START + timedelta(days=1) + 6 * MINUTE)
    assert scheduled.paused_times("s") == []
    assert [state.last_slot - START for state in scheduled.schedule_states()] == [5 * MINUTE, timedelta(0)]
    paused(scheduled, "all", 7, 8)
    scheduled.prune(keep, now=START + timedelta(days=2))
    assert [state.last_slot - START for state in scheduled.schedule_states()] == [8 * MINUTE, 8 * MINUTE]


def test_the_last_slots_tell_what_became_of_them_the_newest_first(scheduled: Store) -> None:
    fired = fire(scheduled, START + MINUTE)
    skipped = fire(scheduled, START + 2 * MINUTE)
    fire(scheduled, START + 3 * MINUTE, missed="late")
    assert skipped.reason is not None
    assert scheduled.last_slots("s", limit=10) == [
        DecidedSlot(START + 3 * MINUTE, "missed", None, "late"),
        DecidedSlot(START + 2 * MINUTE, "skipped", None, skipped.reason),
        DecidedSlot(START + MINUTE, "fired", fired.run, None),
    ]
    assert len(scheduled.last_slots("s", limit=2)) == 2
    assert scheduled.last_slots("other", limit=10) == []
    assert scheduled.last_decided("s", "skipped") == (START + 2 * MINUTE, START + 2 * MINUTE)
    assert scheduled.last_decided("s", "skipped", among=1) is None
    assert scheduled.last_decided("other", "fired") is None


def test_a_slot_whose_run_would_not_be_unique_is_skipped(scheduled: Store) -> None:
    standing = NewRun(id=str(uuid.uuid4()), job="tick", message=Message(), unique_key=b"k")
    scheduled.accept([standing], by="me", now=START)
    wanted = firing(START + MINUTE)
    assert wanted.run is not None
    unique = msgspec.structs.replace(wanted, run=msgspec.structs.replace(wanted.run, unique_key=b"k"))
    (fired,) = scheduled.fire([unique], now=START + MINUTE)
    assert (fired.outcome, fired.run) == ("skipped", None)
    assert fired.reason == f"unique: run {standing.id[:8]} stands for it, which is queued"


def test_a_unique_run_is_replaced_where_it_waits_and_goes_on_where_it_runs(scheduled: Store) -> None:
    """What runs has its key until it has stopped: to stop it for one that can't be made beside it would leave none."""

    def fire_unique(slot: datetime) -> Fired:
        wanted = firing(slot, overlap="replace")
        assert wanted.run is not None
        unique = msgspec.structs.replace(wanted, run=msgspec.structs.replace(wanted.run, unique_key=b"k"))
        (fired,) = scheduled.fire([unique], now=slot)
        return fired

    fire_unique(START + MINUTE)
    second = fire_unique(START + 2 * MINUTE)
    assert (second.outcome, states(scheduled)) == ("fired", ["revoked", "queued"])
    (claim,) = scheduled.exchange([], WANT, now=START + 2 * MINUTE).claims
    third = fire_unique(START + 3 * MINUTE)
    assert (third.outcome, third.reason) == (
        "skipped",
        f"unique: run {claim.run.id[:8]} stands for it, which is running",
    )
    assert scheduled.asked("w1")[1] == ()
    assert fire_unique(START + 4 * MINUTE).outcome == "skipped"
    settle(scheduled, claim.run.id, Done(b"ok"), START + 5 * MINUTE)
    assert fire_unique(START + 6 * MINUTE).outcome == "fired"
