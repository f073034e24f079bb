"""Schedules with real workers: each slot fires once, at its time, and what can't fire is accounted for."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from harness import Project, WorkerProcess, eventually

# What a machine that is busy with other tests may take to wake a process; on an idle one it is some milliseconds.
LATE = timedelta(seconds=5)


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def fired(project: Project, schedule: str = "beat") -> list[dict[str, Any]]:
    """The runs of a schedule, the oldest first."""
    return sorted(project.runs("--schedule", schedule), key=lambda run: run["scheduled_at"] or "")


def slots(project: Project, schedule: str = "beat") -> list[datetime]:
    return [time_of(run["scheduled_at"]) for run in fired(project, schedule)]


def decided(project: Project, *types: str, schedule: str = "beat") -> list[dict[str, Any]]:
    """The events of slots that have no run, of these types."""
    return [event for event in project.events("--type", ",".join(types)) if event["schedule"] == schedule]


def beat(project: Project, every: str = "1s", job: str = 'script = "true"', **more: str) -> None:
    keys = "".join(f"{key} = {value}\n" for key, value in more.items())
    project.file("jobs.toml", f'[jobs.beat]\n{job}\n[schedules.beat]\nevery = "{every}"\n{keys}')


def seen(project: Project, count: int, schedule: str = "beat") -> list[dict[str, Any]]:
    """Wait until so many slots of it have fired."""
    eventually(lambda: len(fired(project, schedule)) >= count, timeout=40, what=f"{count} slots of {schedule}")
    return fired(project, schedule)


def no_hole(found: list[datetime], step: timedelta) -> bool:
    return all(later - earlier == step for earlier, later in pairwise(found))


def stopped(worker: WorkerProcess) -> None:
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0, worker.log


def test_a_schedule_below_a_minute_fires_on_its_grid_and_does_not_drift(project: Project) -> None:
    beat(project, "500ms", overlap='"allow"')
    with project.worker():
        seen(project, 8)
    found = slots(project)
    assert all(slot.microsecond in (0, 500_000) for slot in found)
    missed = [time_of(event["slot"]) for event in decided(project, "missed")]
    assert no_hole(sorted(found + missed), timedelta(milliseconds=500))
    made = [event for event in project.events("--type", "enqueued") if event["schedule"] == "beat"]
    late = [time_of(event["time"]) - time_of(event["slot"]) for event in made]
    assert all(timedelta(0) <= each < LATE for each in late)
    # Most come when the clock does (`make bench` says how soon), and the last ones no later than the first: a scheduler
    # that looked now and then would be late by half of its pause.
    assert median(late) < timedelta(seconds=0.15), late
    assert median(late[-3:]) < timedelta(seconds=0.5), late


def test_runs_know_their_slot_and_what_made_them(project: Project) -> None:
    told = 'script = "echo $HUEYCTL_SCHEDULE $HUEYCTL_SCHEDULED_AT $HUEYCTL_TRIGGER"'
    beat(project, job=told)
    project.file("asks.py", "import hueyctl\n\n\ndef asked():\n    run = hueyctl.current_run()\n"
                 "    return [run.schedule, run.scheduled_at.isoformat(), run.trigger]\n")  # fmt: skip
    with (project.dir / "jobs.toml").open("a") as file:
        file.write('[jobs.asked]\npython = "asks:asked"\n[schedules.asked]\nevery = "1s"\n')
    with project.worker():
        by_hand = project.cli("schedule", "trigger", "beat").out.strip()
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        window = ["--from", at.isoformat(), "--to", at.isoformat()]
        backfilled = project.cli("schedule", "backfill", "beat", *window).out.strip()
        of_slot = next(run["id"] for run in seen(project, 3) if run["trigger"] == "schedule")
        in_python = seen(project, 1, "asked")[0]["id"]
        runs = {run: project.reaches(run, "succeeded") for run in (by_hand, backfilled, of_slot, in_python)}
    assert runs[by_hand]["result"] == "beat manual"
    assert runs[backfilled]["result"] == f"beat {at:%Y-%m-%dT%H:%M:%SZ} backfill"
    assert runs[of_slot]["result"] == f"beat {runs[of_slot]['scheduled_at']} schedule"
    schedule, scheduled_at, trigger = runs[in_python]["result"]
    assert (schedule, trigger) == ("asked", "schedule")
    assert time_of(scheduled_at) == time_of(runs[in_python]["scheduled_at"])


def test_four_workers_fire_each_slot_once(project: Project) -> None:
    beat(project, overlap='"allow"')
    with project.worker(), project.worker(), project.worker(), project.worker():
        seen(project, 5)
    found = slots(project)
    assert len(found) == len(set(found))
    missed = [time_of(event["slot"]) for event in decided(project, "missed")]
    assert no_hole(sorted(found + missed), timedelta(seconds=1))


def test_restarts_and_kills_fire_no_slot_again_and_leave_none_out(project: Project) -> None:
    beat(project, overlap='"allow"', catch_up='"all"')
    for kill in (True, False, True):
        before = len(fired(project)) if project.store.exists() else 0
        with project.worker() as worker:
            seen(project, before + 2)
            if kill:
                worker.kill()
            else:
                stopped(worker)
    found = slots(project)
    assert len(found) == len(set(found))
    missed = [time_of(event["slot"]) for event in decided(project, "missed")]
    assert no_hole(sorted(found + missed), timedelta(seconds=1))


def downtime(project: Project, at_least: int) -> None:
    """Work for a slot, and then let so many slots pass without a worker."""
    with project.worker() as worker:
        seen(project, 1)
        stopped(worker)
    last = slots(project)[-1]
    eventually(lambda: datetime.now(UTC) > last + timedelta(seconds=at_least), what="time passes")


def test_what_was_missed_is_recorded_and_the_latest_caught_up_with(project: Project) -> None:
    beat(project, overlap='"allow"', catch_up='"latest"', grace='"0s"')
    downtime(project, 5)
    before = slots(project)
    project.burst()
    caught_up = [run for run in fired(project) if time_of(run["scheduled_at"]) not in before]
    missed = [time_of(event["slot"]) for event in decided(project, "missed")]
    assert len(missed) >= 3
    assert all(
        "catch_up is for the latest slot alone" in event["data"]["reason"] for event in decided(project, "missed")
    )
    assert 1 <= len(caught_up) <= 2  # one more where its time came during the burst
    assert caught_up[0]["trigger"] in ("catch_up", "schedule")  # in time, if it was less than a second ago
    assert caught_up[0]["state"] == "succeeded"
    assert no_hole(sorted(before + missed + [time_of(run["scheduled_at"]) for run in caught_up]), timedelta(seconds=1))


def test_all_that_was_missed_is_caught_up_with_in_its_order(project: Project) -> None:
    beat(project, overlap='"allow"', catch_up='"all"', grace='"0s"')
    downtime(project, 5)
    project.burst("-c", "1")
    assert decided(project, "missed") == []
    assert no_hole(slots(project), timedelta(seconds=1))
    assert [run["trigger"] for run in fired(project)].count("catch_up") >= 3
    starts = [run["started_at"] for run in fired(project)]
    assert starts == sorted(starts)


def test_slots_are_skipped_while_a_long_run_goes_on(project: Project) -> None:
    beat(project, job='script = "while [ ! -e go ]; do sleep 0.1; done"')
    with project.worker():
        eventually(lambda: len(decided(project, "skipped")) >= 2, what="two slots are skipped")
        assert len(fired(project)) == 1
        project.file("go", "")
        seen(project, 2)
    first = fired(project)[0]["id"]
    reasons = {event["data"]["reason"] for event in decided(project, "skipped")}
    assert f"overlap: run {first[:8]} of this schedule is running" in reasons


def test_a_pause_survives_a_restart_and_its_slots_are_not_missed(project: Project) -> None:
    beat(project, overlap='"allow"', catch_up='"all"')
    with project.worker() as worker:
        seen(project, 1)
        project.cli("pause", "--schedule", "beat", "--note", "disk swap")
        stopped(worker)
    before = slots(project)
    with project.worker():
        paused_until = datetime.now(UTC) + timedelta(seconds=3)
        eventually(lambda: datetime.now(UTC) > paused_until, what="time passes")
        assert "paused by" in project.cli("schedule", "list").out
        assert "disk swap" in project.cli("schedule", "list").out
        assert slots(project) == before
        project.cli("resume", "--schedule", "beat")
        seen(project, len(before) + 1)
    assert slots(project)[len(before)] > paused_until - timedelta(seconds=1)
    assert decided(project, "missed", "skipped") == []
    types = [event["type"] for event in project.events("--type", "paused,resumed")]
    assert types == ["paused", "resumed"]


def test_what_was_missed_before_a_pause_is_told_by_the_next_worker_and_its_own_slots_are_not(project: Project) -> None:
    """Paused and resumed, twice, while no worker was there."""
    beat(project, "250ms", overlap='"allow"', catch_up='"none"', grace='"0s"')
    downtime(project, 1)
    for scope in (["--schedule", "beat"], []):
        project.cli("pause", *scope)
        paused = datetime.now(UTC)
        eventually(lambda since=paused: datetime.now(UTC) > since + timedelta(seconds=0.6), what="slots of the pause")
        project.cli("resume", *scope)
    resumed = datetime.now(UTC)
    last = slots(project)[-1]
    eventually(lambda: datetime.now(UTC) > resumed + timedelta(seconds=1.5), what="slots after the pause")
    project.burst()
    switches = [time_of(event["time"]) for event in project.events("--type", "paused,resumed")]
    assert len(switches) == 4
    told = [time_of(event["slot"]) for event in decided(project, "missed")] + slots(project)
    step = timedelta(milliseconds=250)
    grid = [last + n * step for n in range(1, 200) if last + n * step <= max(told)]
    in_pause = [slot for slot in grid if switches[0] <= slot < switches[1] or switches[2] <= slot < switches[3]]
    assert in_pause
    assert sorted(slot for slot in told if slot > last) == [slot for slot in grid if slot not in in_pause]
    assert [event for event in decided(project, "missed") if time_of(event["slot"]) < switches[0]]
    assert [event for event in decided(project, "missed") if time_of(event["slot"]) > switches[3]]


def test_a_changed_expression_starts_from_now_after_a_reload(project: Project) -> None:
    beat(project, overlap='"allow"', catch_up='"all"')
    with project.worker() as worker:
        seen(project, 1)
        beat(project, "1h")
        project.cli("worker", "reload")
        eventually(lambda: "reloaded" in worker.log, what="the reload")
        hourly = slots(project)
        beat(project, "2s", overlap='"allow"', catch_up='"all"')
        reloaded_at = datetime.now(UTC)
        project.cli("worker", "reload")
        seen(project, len(hourly) + 2)
    new = slots(project)[len(hourly) :]
    assert all(slot.second % 2 == 0 and slot > reloaded_at - timedelta(seconds=1) for slot in new)
    assert decided(project, "missed") == []


def test_of_two_workers_with_different_files_one_fires_and_the_other_says_so(project: Project) -> None:
    beat(project, overlap='"allow"')
    text = (project.dir / "jobs.toml").read_text()
    project.file("other.toml", text + 'priority = 7\n[hueyctl]\nstore = ".hueyctl/queue.db"\n')
    with project.worker() as old:
        seen(project, 1)
        with project.worker("--file", "other.toml") as new:
            eventually(lambda: "is not fired here" in old.log, what="the other says so")
            count = len(fired(project))
            seen(project, count + 2)
            assert "is not fired here" not in new.log
    assert {run["priority"] for run in fired(project)[count:]} == {7}
    assert len(slots(project)) == len(set(slots(project)))
    assert old.log.count("another worker's file defines it differently") == 1


def test_a_single_time_fires_once(project: Project) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=4)).replace(microsecond=0)
    project.write(f"""
        [jobs.once]
        script = "true"

        [schedules.once]
        at = {at:%Y-%m-%dT%H:%M:%SZ}
        """)
    for _ in range(2):
        with project.worker() as worker:
            (run,) = seen(project, 1, "once")
            project.reaches(run["id"], "succeeded")
            stopped(worker)
    assert slots(project, "once") == [at]
    assert len(fired(project, "once")) == 1
    assert re.search(r"once +once +at .* over$", project.cli("schedule", "list").out, re.MULTILINE)


def test_what_a_slot_replaces_is_stopped_at_once(project: Project) -> None:
    """Not only when something else wakes the worker: here, the next slot."""
    project.write(
        """
        [jobs.long]
        script = "sleep 300"

        [schedules.long]
        every = "4s"
        overlap = "replace"
        """
    )
    with project.worker() as worker:
        canceled = eventually(lambda: project.events("--type", "canceled"), timeout=30)[0]
    requested = next(event for event in project.events("--type", "revoke-requested") if event["run"] == canceled["run"])
    took = datetime.fromisoformat(canceled["time"]) - datetime.fromisoformat(requested["time"])
    assert took < timedelta(seconds=3.5)  # milliseconds, on a machine that is not busy
    assert f"info    long {canceled['run'][:8]} attempt 1 stopped by a revoke" in worker.log
