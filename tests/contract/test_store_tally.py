"""What monitoring reads: counts of what is new, the heads of lines, when a job last ended so."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.outcome import Exited
from hueyctl.model.run import NewStep, RunState
from hueyctl.model.transition import Retry
from hueyctl.storage import stats
from hueyctl.storage.store import TOOK_AT_MOST_S, Tally


def test_each_event_is_counted_once_however_often_somebody_asks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "PAGE", 3)
    before = scene.store.last_seq()
    assert scene.store.tally(after=before) == Tally(before, {}, {})
    found: Counter[tuple[str, str | None, str | None]] = Counter()
    seq = before
    for job, schedule in (("a", None), ("b", "nightly"), ("a", "hourly")):
        scene.accept(job, schedule=schedule, slot=scene.now if schedule else None)
        scene.succeed(scene.claim_one())
        tally = scene.store.tally(after=seq)
        found.update(tally.events)
        seq = tally.seq
    assert seq == scene.store.last_seq()
    events = [event for event in scene.events() if event.seq > before]
    assert found == Counter((event.type, event.job, event.schedule) for event in events)
    assert found["complete", "b", "nightly"] == 1
    assert dict(scene.store.tally(after=before).events) == found


def test_an_event_of_no_job_is_counted_too(scene: Scene) -> None:
    before = scene.store.last_seq()
    scene.register("w2")
    assert dict(scene.store.tally(after=before).events) == {("worker-online", None, None): 1}


@pytest.mark.parametrize(
    ("seconds", "took_class"), [(0, 0), (0.01, 0), (0.010001, 1), (1, 4), (14400, 12), (20000, len(TOOK_AT_MOST_S))]
)
def test_attempts_are_sorted_by_how_long_they_took(scene: Scene, seconds: float, took_class: int) -> None:
    scene.accept()
    claim = scene.claim_one()
    scene.pass_time(seconds=seconds)
    scene.settle(claim, Retry(timedelta(0), 0), Exited(1))
    claim = scene.claim_one()
    scene.pass_time(seconds=seconds)
    scene.succeed(claim)
    ((of, (count, together)),) = scene.store.tally(after=0).took.items()
    assert (of, count) == (("a", took_class), 2), "of each attempt, whatever came after it"
    assert together == pytest.approx(2 * seconds)


def test_the_head_of_a_line_is_what_would_be_claimed_first(scene: Scene) -> None:
    assert scene.store.heads() == []
    for job, queue, priority in (("a", "x", 0), ("a", "x", 5), ("a", "x", 5), ("b", "x", 1), ("a", "y", 0)):
        scene.accept(job, queue=queue, priority=priority)
    scene.accept("c", due_at=scene.now + timedelta(hours=1))
    heads = scene.store.heads()
    assert sorted((run.queue, run.job, run.priority) for run in heads) == [("x", "a", 5), ("x", "b", 1), ("y", "a", 0)]
    first = scene.claim_one()
    assert first.run.n == next(run.n for run in heads if run.priority == 5)


def test_when_jobs_last_ended_so_is_known(scene: Scene) -> None:
    store, jobs = scene.store, ["a", "b", "c"]
    assert store.last_ended(jobs, RunState.SUCCEEDED) == {}
    scene.accept()
    scene.succeed(scene.claim_one())
    succeeded_at = scene.now
    scene.pass_time(hours=1)
    scene.accept()
    scene.fail(scene.claim_one())
    scene.accept("b")
    scene.succeed(scene.claim_one())
    scene.accept()
    assert store.last_ended(jobs, RunState.SUCCEEDED) == {"a": succeeded_at, "b": scene.now}
    assert store.last_ended(jobs, RunState.FAILED) == {"a": scene.now}
    assert store.last_ended(["b"], RunState.FAILED) == {}


def test_what_ended_so_is_looked_for_among_some_runs_of_all_and_then_of_each_job(scene: Scene) -> None:
    store = scene.store
    scene.accept()
    scene.succeed(scene.claim_one())
    ended_at = scene.now
    for _ in range(10):
        scene.pass_time(minutes=1)
        scene.accept("b")
        scene.succeed(scene.claim_one())
    assert store.last_ended(["a"], RunState.SUCCEEDED, among=1) == {"a": ended_at}, "the newest of its own"
    scene.accept()
    assert store.last_ended(["a"], RunState.SUCCEEDED, among=1) == {}, "which now waits in line"
    assert store.last_ended(["a"], RunState.SUCCEEDED, among=2) == {"a": ended_at}
    for _ in range(20):
        scene.accept("b")
    assert store.last_ended(["b"], RunState.SUCCEEDED, among=1) == {"b": scene.now}, "however many wait"


def test_steps_of_pipelines_end_too(scene: Scene) -> None:
    step = NewStep(scene.new("b"))
    scene.accept("etl", steps=(step,))
    scene.fail(scene.claim_one())
    assert scene.store.last_ended(["b", "etl"], RunState.FAILED) == {"b": scene.now, "etl": scene.now}
    scene.accept("etl", steps=(NewStep(scene.new("c")),))
    scene.succeed(scene.claim_one())
    assert scene.store.last_ended(["c", "etl"], RunState.SUCCEEDED) == {"c": scene.now, "etl": scene.now}
