"""The scheduler over a real store, with the time passed in: what fires, what is missed, what is caught up with."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.log import WorkerLog
from hueyctl.engine.scheduler import CHUNK, Scheduler
from hueyctl.model.definition import CommandBody, Job, Project, Schedule
from hueyctl.model.run import Run
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import EventFilter, Pause, RunFilter

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Play:
    """One store, workers that come and go, and a clock that only moves when told to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.db"
        self.store: SqliteStore = open_store(self.path, create=True)
        self.log = io.StringIO()
        self.now = START

    def definitions(self, *schedules: Schedule) -> Definitions:
        job = Job(name="tick", body=CommandBody(argv=("true",)), dir=Path("/"))
        named = {schedule.name: schedule for schedule in schedules}
        return Definitions(Project(path=Path("/jobs.toml"), store="", jobs={"tick": job}, schedules=named), {})

    def worker(self, *schedules: Schedule) -> Scheduler:
        """A worker that starts (or reloads) now, with these schedules in its file."""
        scheduler = Scheduler(self.definitions(*schedules), WorkerLog(stream=self.log))
        scheduler.define(self.store, self.now)
        return scheduler

    def goes_on(self, scheduler: Scheduler, until: datetime) -> None:
        """The worker runs until then: it wakes at each slot, and a millisecond late."""
        while scheduler.next_at is not None and scheduler.next_at <= until:
            self.now = max(self.now, scheduler.next_at + timedelta(milliseconds=1))
            scheduler.turn(self.store, self.now)
        self.now = until

    def wakes(self, scheduler: Scheduler, at: datetime) -> None:
        """The worker, or another one, finds the clock at `at`, and does all that there is to do."""
        self.now = at
        while scheduler.next_at is not None and scheduler.next_at <= at:
            scheduler.turn(self.store, at)

    def runs(self) -> list[Run]:
        return list(reversed(self.store.runs(RunFilter(), limit=None)))

    def fired(self) -> list[tuple[str, str]]:
        return [(f"{run.scheduled_at:%H:%M:%S}", run.trigger) for run in self.runs()]

    def events(self, type: str) -> list[tuple[str, str]]:
        found = self.store.events(EventFilter(types=(type,)), after=0, limit=10_000)
        return [(f"{event.slot:%H:%M:%S}", event.data["reason"]) for event in found]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    play = Play(tmp_path)
    yield play
    play.store.close()


def every(length: timedelta, **more: Any) -> Schedule:
    """A schedule of the grid of `length`, whose runs go side by side."""
    given = {"name": "s", "target": "tick", "target_kind": "job", "timezone": "UTC", "overlap": "allow", **more}
    return Schedule(every=length, **given)


def test_slots_fire_as_they_come_with_the_slot_and_not_the_time_of_waking(play: Play) -> None:
    play.goes_on(play.worker(every(20 * SECOND)), START + MINUTE)
    assert play.fired() == [("12:00:20", "schedule"), ("12:00:40", "schedule"), ("12:01:00", "schedule")]
    assert {run.schedule for run in play.runs()} == {"s"}
    assert all(run.enqueued_at - run.scheduled_at == timedelta(milliseconds=1) for run in play.runs())


def test_four_workers_fire_each_slot_once(play: Play) -> None:
    workers = [play.worker(every(20 * SECOND)) for _ in range(4)]
    for n in range(1, 4):
        for worker in workers:
            play.wakes(worker, START + n * 20 * SECOND)
    assert [slot for slot, _ in play.fired()] == ["12:00:20", "12:00:40", "12:01:00"]


def test_a_restart_fires_nothing_again_and_goes_on(play: Play) -> None:
    for n in range(1, 4):
        worker = play.worker(every(20 * SECOND))
        play.wakes(worker, START + n * 20 * SECOND)
        play.wakes(worker, START + n * 20 * SECOND)
    assert [slot for slot, _ in play.fired()] == ["12:00:20", "12:00:40", "12:01:00"]
    assert play.events("missed") == []


def test_none_is_caught_up_with_and_each_missed_slot_is_an_event(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE, catch_up="none"))
    play.wakes(worker, START + 35 * MINUTE)
    assert play.fired() == []
    assert play.events("missed") == [
        ("12:10:00", "it was 25m late, and catch_up is none"),
        ("12:20:00", "it was 15m late, and catch_up is none"),
        ("12:30:00", "it was 5m late, and catch_up is none"),
    ]


def test_the_latest_is_caught_up_with_and_those_before_are_missed(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE, catch_up="latest"))
    play.wakes(worker, START + 35 * MINUTE)
    assert play.fired() == [("12:30:00", "catch_up")]
    assert [slot for slot, _ in play.events("missed")] == ["12:10:00", "12:20:00"]


def test_the_latest_in_time_is_no_catching_up(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE, catch_up="latest", grace=MINUTE))
    play.wakes(worker, START + 30 * MINUTE + MINUTE)
    assert play.fired() == [("12:30:00", "schedule")]
    assert [slot for slot, _ in play.events("missed")] == ["12:10:00", "12:20:00"]


def test_within_grace_every_slot_is_in_time(play: Play) -> None:
    worker = play.worker(every(15 * SECOND, catch_up="none", grace=MINUTE))
    play.wakes(worker, START + MINUTE + 15 * SECOND)
    assert [slot for slot, _ in play.fired()] == ["12:00:15", "12:00:30", "12:00:45", "12:01:00", "12:01:15"]


def test_a_grace_of_nothing_still_fires_what_is_on_time(play: Play) -> None:
    """A process is woken some microseconds late at best."""
    play.goes_on(play.worker(every(MINUTE, catch_up="none", grace=timedelta(0))), START + 2 * MINUTE)
    assert play.fired() == [("12:01:00", "schedule"), ("12:02:00", "schedule")]


def test_beyond_the_window_nothing_is_caught_up_with(play: Play) -> None:
    worker = play.worker(every(HOUR, catch_up="latest", catch_up_window=30 * MINUTE))
    play.wakes(worker, START + HOUR + 31 * MINUTE)
    assert play.fired() == []
    assert play.events("missed") == [("13:00:00", "it was 31m late, more than catch_up_window (30m)")]


def test_all_within_the_window_are_caught_up_with_in_their_order(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE, catch_up="all", catch_up_window=25 * MINUTE))
    play.wakes(worker, START + 45 * MINUTE)
    assert play.fired() == [("12:20:00", "catch_up"), ("12:30:00", "catch_up"), ("12:40:00", "catch_up")]
    assert [slot for slot, _ in play.events("missed")] == ["12:10:00"]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_where_all_are_caught_up_with_none_is_in_the_way_of_another(play: Play, overlap: str) -> None:
    """They stand in line, the one that is in time behind them; what comes later meets them as `overlap` says."""
    worker = play.worker(every(10 * MINUTE, catch_up="all", overlap=overlap))
    play.wakes(worker, START + 30 * MINUTE + SECOND)
    assert play.fired() == [("12:10:00", "catch_up"), ("12:20:00", "catch_up"), ("12:30:00", "schedule")]
    assert [run.gate for run in play.runs()] == [None, "schedule:s", "schedule:s"]
    assert play.events("skipped") == []
    play.wakes(worker, START + 40 * MINUTE)
    later = [] if overlap == "replace" else ["12:40:00"]
    assert [slot for slot, _ in play.events("skipped")] == later
    play.wakes(worker, START + 55 * MINUTE)
    assert play.fired()[-1] == ("12:50:00", "catch_up")  # alone, and late
    assert [slot for slot, _ in play.events("skipped")] == later


def test_nor_within_the_grace_where_a_worker_was_away_for_some_slots(play: Play) -> None:
    worker = play.worker(every(10 * SECOND, catch_up="all", overlap="skip"))
    play.wakes(worker, START + 30 * SECOND)
    assert [slot for slot, _ in play.fired()] == ["12:00:10", "12:00:20", "12:00:30"]
    play.wakes(worker, START + 40 * SECOND)
    assert [slot for slot, _ in play.events("skipped")] == ["12:00:40"]


def test_no_more_than_the_newest_catch_up_max_are_caught_up_with(play: Play) -> None:
    worker = play.worker(every(MINUTE, catch_up="all", catch_up_max=3, catch_up_window=DAY))
    play.wakes(worker, START + 10 * MINUTE + 30 * SECOND)
    # 12:10 is within the grace, so it is one of the three and is in time.
    assert play.fired() == [("12:08:00", "catch_up"), ("12:09:00", "catch_up"), ("12:10:00", "schedule")]
    assert play.events("missed")[-1] == ("12:07:00", "it was 3m30s late, with more than catch_up_max slots after it")


def test_what_is_caught_up_with_is_due_at_once_and_expires_from_there(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE, jitter=5 * MINUTE))
    play.wakes(worker, START + 15 * MINUTE)
    (run,) = play.runs()
    assert (run.trigger, run.due_at) == ("catch_up", play.now)


def test_jitter_delays_the_run_and_not_the_slot_and_is_the_same_everywhere(play: Play, tmp_path: Path) -> None:
    play.goes_on(play.worker(every(10 * MINUTE, jitter=5 * MINUTE)), START + 30 * MINUTE)
    delays = [run.due_at - run.scheduled_at for run in play.runs()]
    assert len(set(delays)) == 3
    assert all(timedelta(0) <= delay < 5 * MINUTE for delay in delays)
    assert [slot for slot, _ in play.fired()] == ["12:10:00", "12:20:00", "12:30:00"]
    other = Play(tmp_path / "other")
    other.goes_on(other.worker(every(10 * MINUTE, jitter=5 * MINUTE)), START + 30 * MINUTE)
    assert [run.due_at for run in other.runs()] == [run.due_at for run in play.runs()]
    other.store.close()


def test_many_missed_slots_are_all_recorded_and_the_worker_says_so_in_a_few_lines(play: Play) -> None:
    worker = play.worker(every(MINUTE))
    play.wakes(worker, START + 2 * DAY)
    assert len(play.events("missed")) == 2 * 24 * 60 - 2  # the last two are within the grace
    assert [slot for slot, _ in play.fired()] == ["11:59:00", "12:00:00"]
    assert len(play.log.getvalue().splitlines()) <= 2 * 24 * 60 / CHUNK + 1
    assert "missed 200 slots from 2026-03-01T12:01:00Z to 2026-03-01T15:20:00Z; the last:" in play.log.getvalue()


def test_the_scheduler_takes_its_time_in_chunks_so_that_runs_are_served_between(play: Play) -> None:
    worker = play.worker(every(MINUTE))
    play.now = START + 2 * DAY
    worker.turn(play.store, play.now)
    assert len(play.events("missed")) == CHUNK
    assert worker.next_at is not None
    assert worker.next_at < play.now


def test_many_schedules_of_one_instant_are_a_few_transactions(play: Play) -> None:
    worker = play.worker(*(every(HOUR, name=f"s{n}") for n in range(2 * CHUNK + 50)))
    commits: list[str] = []
    play.store.database.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    play.wakes(worker, START + HOUR)
    play.store.database.connection.set_trace_callback(None)
    assert len(commits) == 3
    assert sorted(run.schedule or "" for run in play.runs()) == sorted(f"s{n}" for n in range(2 * CHUNK + 50))


def test_who_has_much_to_catch_up_with_keeps_nobody_else_waiting(play: Play) -> None:
    play.worker(every(MINUTE, name="behind", catch_up="none"))
    play.now = START + 2 * DAY
    worker = play.worker(every(MINUTE, name="behind", catch_up="none"), every(HOUR, name="on-time"))
    play.now += HOUR
    assert worker.turn(play.store, play.now)
    assert [run.schedule for run in play.runs()] == ["on-time"]
    assert len(play.events("missed")) == CHUNK


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_an_overlap_is_recorded_with_its_reason(play: Play, overlap: str) -> None:
    play.goes_on(play.worker(every(MINUTE, overlap=overlap)), START + 3 * MINUTE)
    first = play.runs()[0]
    skipped = play.events("skipped")
    assert skipped == [
        (slot, f"overlap: run {first.id[:8]} of this schedule is queued") for slot in ("12:02:00", "12:03:00")
    ]


def test_the_slots_of_a_pause_are_not_missed_and_it_survives_a_restart(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE))
    play.goes_on(worker, START + 10 * MINUTE)
    play.store.pause([Pause(kind="schedule", name="s", note="disk", by="me", at=play.now)])
    play.goes_on(worker, START + 30 * MINUTE)
    worker = play.worker(every(10 * MINUTE))
    play.goes_on(worker, START + 55 * MINUTE)
    play.store.resume("schedule", "s", by="me", now=play.now)
    play.goes_on(worker, START + 70 * MINUTE)
    assert play.fired() == [("12:10:00", "schedule"), ("13:00:00", "schedule"), ("13:10:00", "schedule")]
    assert play.events("missed") == []


def test_slots_of_a_pause_that_no_worker_saw_are_not_missed_either(play: Play) -> None:
    play.worker(every(10 * MINUTE))
    play.store.pause([Pause(kind="all", name="", note=None, by="me", at=play.now)])
    play.store.resume("all", "", by="me", now=START + 55 * MINUTE)
    play.now = START + 56 * MINUTE
    play.goes_on(play.worker(every(10 * MINUTE)), START + 60 * MINUTE)
    assert play.fired() == [("13:00:00", "schedule")]
    assert play.events("missed") == []


def test_what_was_missed_before_a_pause_is_recorded_after_it_whoever_was_there(play: Play) -> None:
    play.worker(every(10 * MINUTE))
    play.store.pause([Pause(kind="schedule", name="s", note=None, by="me", at=START + 25 * MINUTE)])
    play.store.resume("schedule", "s", by="me", now=START + 45 * MINUTE)
    play.wakes(play.worker(every(10 * MINUTE)), START + 55 * MINUTE)
    assert play.fired() == [("12:50:00", "catch_up")]
    late = ", and catch_up is for the latest slot alone"
    assert play.events("missed") == [("12:10:00", f"it was 45m late{late}"), ("12:20:00", f"it was 35m late{late}")]


def test_the_latest_of_what_was_missed_is_not_one_of_a_pause(play: Play) -> None:
    """Longer than a chunk of slots, too: what comes behind doesn't make those before it any older."""
    play.worker(every(MINUTE, catch_up_window=DAY))
    play.store.pause([Pause(kind="all", name="", note=None, by="me", at=START + 3 * MINUTE)])
    until = START + (3 * CHUNK) * MINUTE
    play.store.resume("all", "", by="me", now=until)
    play.wakes(play.worker(every(MINUTE, catch_up_window=DAY)), until - SECOND)
    assert play.fired() == [("12:02:00", "catch_up")]
    assert [slot for slot, _ in play.events("missed")] == ["12:01:00"]


def test_no_more_than_catch_up_max_of_all_but_the_slots_of_a_pause(play: Play) -> None:
    schedule = every(10 * MINUTE, catch_up="all", catch_up_max=3, catch_up_window=DAY)
    play.worker(schedule)
    play.store.pause([Pause(kind="schedule", name="s", note=None, by="me", at=START + 35 * MINUTE)])
    play.store.resume("schedule", "s", by="me", now=START + 55 * MINUTE)
    play.wakes(play.worker(schedule), START + 65 * MINUTE)
    assert [slot for slot, _ in play.fired()] == ["12:20:00", "12:30:00", "13:00:00"]
    assert [slot for slot, _ in play.events("missed")] == ["12:10:00"]


def test_in_a_pause_what_was_missed_before_it_is_recorded_and_not_caught_up_with(play: Play) -> None:
    play.worker(every(10 * MINUTE))
    play.store.pause([Pause(kind="schedule", name="s", note=None, by="me", at=START + 25 * MINUTE)])
    worker = play.worker(every(10 * MINUTE))
    play.wakes(worker, START + 35 * MINUTE)
    assert play.fired() == []
    assert [slot for slot, _ in play.events("missed")] == ["12:10:00", "12:20:00"]
    assert play.events("missed")[-1][1] == "it was paused before it could be fired"
    assert worker.next_at == START + 40 * MINUTE


def test_a_changed_rule_starts_from_now_and_a_changed_policy_where_it_was(play: Play) -> None:
    play.worker(every(10 * MINUTE))
    play.now = START + 25 * MINUTE
    play.wakes(play.worker(every(5 * MINUTE)), play.now)
    assert play.fired() == play.events("missed") == []
    play.now = START + 45 * MINUTE
    play.wakes(play.worker(every(5 * MINUTE, catch_up="all")), play.now)
    assert [slot for slot, _ in play.fired()] == ["12:30:00", "12:35:00", "12:40:00", "12:45:00"]


def test_a_schedule_that_is_enabled_again_starts_from_then(play: Play) -> None:
    play.worker(every(10 * MINUTE))
    play.now = START + 5 * MINUTE
    assert play.worker(every(10 * MINUTE, enabled=False)).next_at is None
    play.now = START + 3 * DAY
    play.goes_on(play.worker(every(10 * MINUTE)), play.now + 10 * MINUTE)
    assert play.fired() == [("12:10:00", "schedule")]
    assert play.events("missed") == []


def test_a_schedule_that_was_gone_from_the_file_starts_from_when_it_is_back(play: Play) -> None:
    """Commented out and back: what lay between is neither missed nor caught up with."""
    play.worker(every(10 * MINUTE))
    play.now = START + 5 * MINUTE
    assert play.worker().next_at is None
    play.now = START + 35 * MINUTE
    play.goes_on(play.worker(every(10 * MINUTE)), START + 40 * MINUTE)
    assert play.fired() == [("12:40:00", "schedule")]
    assert play.events("missed") == []


def test_what_one_file_disables_another_does_not_fire(play: Play) -> None:
    enabled = play.worker(every(MINUTE))
    play.worker(every(MINUTE, enabled=False))
    play.goes_on(enabled, START + 2 * MINUTE)
    assert play.fired() == []
    assert "is not fired here" in play.log.getvalue()


def test_a_clock_set_back_fires_nothing_twice(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE))
    play.goes_on(worker, START + 30 * MINUTE)
    play.wakes(worker, START + 5 * MINUTE)
    play.goes_on(worker, START + 40 * MINUTE)
    assert [slot for slot, _ in play.fired()] == ["12:10:00", "12:20:00", "12:30:00", "12:40:00"]


def test_a_worker_that_starts_with_its_clock_set_back_says_what_it_waits_for(play: Play) -> None:
    play.goes_on(play.worker(every(10 * MINUTE)), START + 30 * MINUTE)
    play.now = START + 5 * MINUTE
    worker = play.worker(every(10 * MINUTE))
    assert "schedule s was decided up to 2026-03-01T12:30:00Z, which is ahead of this clock" in play.log.getvalue()
    assert worker.next_at == START + 40 * MINUTE
    again = play.worker(every(5 * MINUTE))  # a changed rule doesn't open the way to what was decided either
    assert again.next_at == START + 35 * MINUTE


def test_a_clock_set_forward_makes_slots_missed(play: Play) -> None:
    worker = play.worker(every(10 * MINUTE))
    play.goes_on(worker, START + 10 * MINUTE)
    play.wakes(worker, START + 3 * HOUR + 5 * MINUTE)
    assert play.fired() == [("12:10:00", "schedule"), ("15:00:00", "catch_up")]
    assert len(play.events("missed")) == 16


def test_of_two_files_the_one_that_was_read_last_fires_and_the_other_says_so_once(play: Play) -> None:
    old = play.worker(every(MINUTE, priority=1))
    new = play.worker(every(MINUTE, priority=2))
    for n in (1, 2, 3):
        play.wakes(old, START + n * MINUTE)
        play.wakes(new, START + n * MINUTE)
    assert [(slot, run.priority) for (slot, _), run in zip(play.fired(), play.runs(), strict=True)] == [
        ("12:01:00", 2), ("12:02:00", 2), ("12:03:00", 2)
    ]  # fmt: skip
    assert play.log.getvalue().count("is not fired here: another worker's file defines it differently") == 1


def test_a_single_time_fires_once_for_ever(play: Play) -> None:
    at = Schedule(name="s", target="tick", target_kind="job", timezone="UTC", at=START + MINUTE)
    for _ in range(2):
        worker = play.worker(at)
        play.goes_on(worker, play.now + 5 * MINUTE)
        assert worker.next_at is None
    assert play.fired() == [("12:01:00", "schedule")]


def test_a_single_time_that_passed_without_a_worker_is_caught_up_with_or_missed(play: Play) -> None:
    def at(name: str, **more: Any) -> Schedule:
        return Schedule(
            name=name, target="tick", target_kind="job", timezone="UTC", at=START + MINUTE, overlap="allow", **more
        )

    schedules = [at("s"), at("t", catch_up="none")]
    play.worker(*schedules)
    play.now = START + 10 * MINUTE
    play.wakes(play.worker(*schedules), play.now)
    assert play.fired() == [("12:01:00", "catch_up")]
    assert play.events("missed") == [("12:01:00", "it was 9m late, and catch_up is none")]


def test_what_no_worker_ever_defined_before_its_time_is_not_missed(play: Play) -> None:
    at = Schedule(name="s", target="tick", target_kind="job", timezone="UTC", at=START - MINUTE)
    assert play.worker(at).next_at is None
    assert play.events("missed") == []


def test_parameters_that_no_longer_fit_make_the_slot_missed_and_say_why(play: Play) -> None:
    """`check` and `reload` refuse such a file; a scheduler must not die of one."""
    play.goes_on(play.worker(every(MINUTE, params={"nope": 1})), START + MINUTE)
    ((_, reason),) = play.events("missed")
    assert "nope" in reason


def test_huey_knows_each_schedule_as_a_periodic_task_with_its_minutes(play: Play) -> None:
    registry = play.definitions(every(5 * MINUTE)).registry
    (task_class,) = registry.periodic_tasks
    task = task_class if not isinstance(task_class, type) else task_class()
    naive = START.replace(tzinfo=None)
    assert task.validate_datetime(naive)
    assert not task.validate_datetime(naive + MINUTE)
