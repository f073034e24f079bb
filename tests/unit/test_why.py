"""Why a run isn't running yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest

from hueyctl.app.why import Surroundings, brief, why_not_running
from hueyctl.model.run import TERMINAL, Message, Run, RunState
from hueyctl.storage.store import Pause, Worker

NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
QUEUED = Run(
    n=1,
    id="7c1e2f6a-90d4-4c5b-8f3e-2a1b0c9d8e7f",
    job="fetch",
    state=RunState.QUEUED,
    queue="default",
    priority=0,
    message=Message(),
    enqueued_at=NOW,
    due_at=NOW,
)
WORKER = Worker(
    id="w1",
    host="host",
    pid=1,
    version="1",
    file="jobs.toml",
    concurrency=2,
    jobs=("fetch",),
    queues=None,
    lease_s=30,
    started_at=NOW,
    beat_at=NOW,
)


def why(run: Run = QUEUED, *workers: Worker, ahead: int = 0, pauses: tuple[Pause, ...] = ()) -> list[str]:
    return why_not_running(run, Surroundings(workers=workers, pauses=pauses, ahead=ahead, now=NOW))


def but(thing: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(thing, **changes)


def test_without_a_worker_it_says_how_to_start_one() -> None:
    assert why() == ["no worker is running: `hueyctl worker start` starts one"]


def test_a_queue_that_no_worker_serves_is_named() -> None:
    (line,) = why(QUEUED, but(WORKER, queues=("heavy",)))
    assert line.startswith('no live worker serves the queue "default"')


def test_a_job_that_no_worker_of_its_queue_defines_is_named() -> None:
    (line,) = why(QUEUED, but(WORKER, jobs=("other",)))
    assert 'defines the job "fetch"' in line
    assert "worker reload" in line


def test_busy_workers_and_the_runs_ahead_are_counted() -> None:
    busy = but(WORKER, running=2)
    assert why(QUEUED, busy, ahead=3) == [
        "all workers of its queue are busy: 2 of 2 runs are under way",
        "3 of its queue are ahead of it",
    ]
    assert why(QUEUED, busy, WORKER) == ["it is about to start"]


def test_a_time_to_come_is_said_and_a_retry_is_called_one() -> None:
    later = but(QUEUED, state=RunState.SCHEDULED, due_at=NOW + timedelta(minutes=4))
    assert why(later, WORKER) == ["it is due in 4m, at 2026-03-29T12:04:00Z"]
    assert why(but(later, attempt=1), WORKER)[0].startswith("its retry (attempt 2) is due in 4m")


@pytest.mark.parametrize(
    ("kind", "name", "applies"),
    [("all", "", True), ("job", "fetch", True), ("job", "other", False), ("queue", "default", True)],
)
def test_a_pause_is_a_reason_where_it_applies(kind: Literal["all", "job", "queue"], name: str, applies: bool) -> None:
    pause = Pause(kind=kind, name=name, note="disk is full", by="alice@host", at=NOW)
    (line,) = why(QUEUED, WORKER, pauses=(pause,))
    assert ("paused by alice@host (disk is full)" in line) == applies


def test_a_held_run_says_for_what() -> None:
    assert why(but(QUEUED, state=RunState.HELD, reason="its job is not defined"), WORKER) == [
        "it is held: its job is not defined"
    ]


def test_a_running_run_has_no_reason_unless_its_worker_died() -> None:
    running = but(QUEUED, state=RunState.RUNNING, worker="w1")
    assert why(running, WORKER) == []
    assert "its worker died" in why(running)[0]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_run_has_no_reason(state: RunState) -> None:
    assert why(but(QUEUED, state=state)) == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.0042, "4ms"),
        (1.26, "1.3s"),
        (59.9, "59s"),
        (200, "3m20s"),
        (7500, "2h5m"),
        (273_600, "3d4h"),
        (-5, "-5s"),
    ],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert brief(seconds) == shown


def test_a_waiting_step_names_ten_of_those_before_it_and_counts_the_rest() -> None:
    waiting = but(QUEUED, state=RunState.WAITING, pipeline="x", position=13)
    before = [but(QUEUED, id=f"{n:08}-0000", job=f"j{n}", state=RunState.RUNNING) for n in range(13)]
    before[1] = but(before[1], state=RunState.FAILED)
    around = Surroundings(workers=(), pauses=(), ahead=0, now=NOW, before=before)
    lines = why_not_running(waiting, around)
    assert lines[:2] == [
        "waiting for step j0, 00000000, which is running",
        "waiting for step j1, 00000001, which failed",
    ]
    assert lines[10:] == ["and for 3 more"]


def test_a_step_that_waits_for_no_other_waits_for_the_turn_of_its_pipeline() -> None:
    (line,) = why(but(QUEUED, state=RunState.WAITING, pipeline="x", position=0))
    assert line == "it waits for its turn: another run of its schedule is under way"
