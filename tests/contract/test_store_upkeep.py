"""Upkeep: sweeping, holding and readmitting, pruning."""

from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.definition import Retention
from hueyctl.model.run import Run, RunState
from hueyctl.storage.store import EventFilter, Pause, Pruned, RunFilter

WEEK = Retention(succeeded=timedelta(days=7), failed=timedelta(days=30), events=timedelta(days=30))


def test_the_sweep_expires_what_is_paused_held_or_scheduled_too(scene: Scene) -> None:
    held = scene.accept("b", expires_s=5)
    scene.claim(jobs=("b",), admit=lambda run: "no")
    runs = [held, scene.accept(expires_s=5), scene.accept(expires_s=5, due_at=scene.now + timedelta(seconds=1))]
    fine = scene.accept(expires_s=60)
    scene.store.pause([Pause(kind="all", name="", note=None, by="bob", at=scene.now)])
    scene.pass_time(seconds=6)
    assert scene.store.sweep(served=None, now=scene.now) == 3
    assert {scene.get(run).state for run in runs} == {RunState.EXPIRED}
    assert scene.get(fine).state is RunState.QUEUED


def test_a_running_run_does_not_expire(scene: Scene) -> None:
    scene.accept(expires_s=5)
    claim = scene.claim_one()
    scene.pass_time(seconds=60)
    assert scene.store.sweep(served={"*": ["a"]}, now=scene.now) == 0
    assert scene.get(claim).state is RunState.RUNNING


@pytest.mark.parametrize("served", [{"*": ["b"]}, {"default": ["b"]}, {"default": ["b"], "other": ["a"]}])
def test_a_run_whose_queue_is_served_while_nobody_defines_its_job_is_held(
    scene: Scene, served: dict[str, list[str]]
) -> None:
    run, fine = scene.accept("a"), scene.accept("b")
    assert scene.store.sweep(served=served, now=scene.now) == 1
    assert (scene.get(run).state, scene.get(fine).state) == (RunState.HELD, RunState.QUEUED)
    assert "defines" in (scene.get(run).reason or "")
    assert scene.types(run)[-1] == "held"
    assert scene.store.sweep(served=served, now=scene.now) == 0


@pytest.mark.parametrize("served", [None, {}, {"other": ["b"]}, {"*": ["b"], "default": ["a"]}, {"*": ["a", "b"]}])
def test_nothing_is_held_for_a_queue_that_nobody_serves_or_a_job_that_one_defines(
    scene: Scene, served: dict[str, list[str]] | None
) -> None:
    run = scene.accept("a")
    assert scene.store.sweep(served=served, now=scene.now) == 0
    assert scene.get(run).state is RunState.QUEUED


def test_a_held_run_comes_back_when_a_worker_defines_its_job_again(scene: Scene) -> None:
    run = scene.accept("a", priority=3)
    scene.store.sweep(served={"*": []}, now=scene.now)
    assert scene.claim() == []
    assert scene.store.sweep(served={"*": ["a"]}, now=scene.now) == 1
    assert (scene.get(run).state, scene.get(run).reason) == (RunState.QUEUED, None)
    assert scene.types(run)[-2:] == ["held", "released"]
    assert scene.claim_one().run.id == run.id


def test_what_did_not_fit_stays_held_until_its_job_is_defined_anew(scene: Scene) -> None:
    misfit, other = scene.accept("a"), scene.accept("b")
    scene.claim(admit=lambda run: "no")
    assert scene.store.sweep(served={"*": ["a", "b"]}, now=scene.now) == 0
    assert scene.store.readmit(["a", "zzz"], now=scene.now) == 1
    assert (scene.get(misfit).state, scene.get(other).state) == (RunState.QUEUED, RunState.HELD)
    assert scene.store.readmit(["a"], now=scene.now) == 0


def test_readmission_is_not_for_what_nobody_defines(scene: Scene) -> None:
    run = scene.accept("a")
    scene.store.sweep(served={"*": []}, now=scene.now)
    assert scene.store.readmit(["a"], now=scene.now) == 0
    assert scene.get(run).state is RunState.HELD


def test_of_one_line_only_those_come_back_whose_reason_is_gone(scene: Scene) -> None:
    misfit = scene.accept("a")
    scene.claim(admit=lambda run: "no")
    undefined = scene.accept("a")
    scene.store.sweep(served={"*": []}, now=scene.now)
    assert scene.store.readmit(["a"], now=scene.now) == 1
    assert (scene.get(misfit).state, scene.get(undefined).state) == (RunState.QUEUED, RunState.HELD)
    scene.claim(admit=lambda run: "no")
    assert scene.store.sweep(served={"*": ["a"]}, now=scene.now) == 1
    assert (scene.get(misfit).state, scene.get(undefined).state) == (RunState.HELD, RunState.QUEUED)


def ended(scene: Scene) -> dict[str, Run]:
    """A run in each state that comes without a pipeline, those that ended have ended now."""
    runs = {"succeeded": scene.accept()}
    scene.succeed(scene.claim_one())
    runs["failed"] = scene.accept()
    scene.fail(scene.claim_one())
    runs["revoked"] = scene.accept()
    scene.store.revoke([runs["revoked"].id], kill=False, by="b", now=scene.now)
    runs["expired"] = scene.accept(expires_s=0)
    scene.store.sweep(served=None, now=scene.now)
    runs["running"] = scene.accept()
    scene.claim_one()
    runs["scheduled"] = scene.accept(due_at=scene.now + timedelta(days=1000))
    runs["queued"] = scene.accept()
    return runs


def test_pruning_deletes_what_is_past_its_retention_and_nothing_else(scene: Scene) -> None:
    runs = ended(scene)
    assert {scene.get(run).state.value for run in runs.values()} == set(runs)
    scene.pass_time(days=7)
    assert scene.store.prune(WEEK, now=scene.now).runs == ()
    scene.pass_time(seconds=1)
    assert scene.store.prune(WEEK, now=scene.now) == Pruned((runs["succeeded"].id,), more=False)
    scene.pass_time(days=23)
    assert set(scene.store.prune(WEEK, now=scene.now).runs) == {
        runs[end].id for end in ("failed", "revoked", "expired")
    }
    assert {run.state.value for run in scene.store.runs(RunFilter(), limit=None)} == {"running", "scheduled", "queued"}


def test_events_outlive_their_run_until_their_own_time(scene: Scene) -> None:
    run = scene.accept()
    scene.succeed(scene.claim_one())
    scene.pass_time(days=8)
    scene.store.prune(WEEK, now=scene.now)
    assert scene.store.get(run.id) is None
    assert scene.types(run) == ["enqueued", "executing", "complete"]
    later = scene.accept()
    scene.pass_time(days=30)
    scene.store.prune(WEEK, now=scene.now)
    assert [event.run for event in scene.events()] == [later.id]  # the newest of all stays


def test_the_newest_event_stays_so_that_seq_only_grows(scene: Scene) -> None:
    for _ in range(3):
        scene.accept()
    last = scene.store.last_seq()
    scene.store.prune(WEEK, now=scene.pass_time(days=365))
    assert [event.seq for event in scene.events()] == [last]
    assert scene.store.last_seq() == last
    scene.accept()
    assert [event.seq for event in scene.events()] == [last, last + 1]


def test_a_run_is_not_taken_for_one_that_is_gone_and_left_its_events(scene: Scene) -> None:
    gone = scene.accept()
    scene.succeed(scene.claim_one())
    scene.store.prune(WEEK, now=scene.pass_time(days=8))
    assert scene.store.get(gone.id) is None
    assert scene.types(scene.accept()) == ["enqueued"]


def test_pruning_goes_in_steps(scene: Scene) -> None:
    runs = [scene.accept() for _ in range(7)]
    scene.store.revoke([run.id for run in runs], kill=False, by="b", now=scene.now)
    scene.pass_time(days=365)
    steps = [scene.store.prune(WEEK, now=scene.now, limit=3)]
    while steps[-1].more:
        steps.append(scene.store.prune(WEEK, now=scene.now, limit=3))
    assert [len(step.runs) for step in steps][:4] == [3, 3, 1, 0]
    assert scene.store.runs(RunFilter(), limit=None) == []
    assert len(scene.store.last_events(EventFilter(), limit=10)) == 1


def test_what_would_be_pruned_is_what_is_pruned(scene: Scene) -> None:
    ended(scene)
    scene.pass_time(days=8)
    assert scene.store.prunable(WEEK, now=scene.now) == (1, 0)
    scene.pass_time(days=30)
    expected = scene.store.prunable(WEEK, now=scene.now)
    assert expected[0] == 4
    pruned = scene.store.prune(WEEK, now=scene.now)
    assert (len(pruned.runs), pruned.events) == expected
    assert scene.store.prunable(WEEK, now=scene.now) == (0, 0)


@pytest.mark.parametrize("future", [2, 9])
def test_events_of_a_clock_that_was_wrong_go_with_those_around_them(scene: Scene, future: int) -> None:
    """As long as they waited for their time, nothing behind them could go either, and the log would grow for years."""
    first = scene.accept()
    right = scene.now
    scene.pass_time(days=4000)
    wrong = [scene.accept() for _ in range(future)]
    scene.now = right
    scene.pass_time(days=1)
    later = [scene.accept() for _ in range(5)]
    scene.pass_time(days=29, seconds=1)
    kept = [scene.accept() for _ in range(2)]

    def pruned() -> int:
        steps = [scene.store.prune(WEEK, now=scene.now, limit=4)]
        while steps[-1].more:
            steps.append(scene.store.prune(WEEK, now=scene.now, limit=4))
        return sum(step.events for step in steps)

    assert pruned() == 2, "the worker's and the first run's: of those behind them nothing says that they are old"
    assert scene.types(first) == []
    scene.pass_time(days=1)
    assert pruned() == future + 5
    assert [scene.types(run) for run in (*wrong, *later)] == [[]] * (future + 5)
    assert [scene.types(run) for run in kept] == [["enqueued"]] * 2


def test_a_retention_longer_than_the_calendar_keeps_everything(scene: Scene) -> None:
    for_ever = Retention(succeeded=timedelta(days=10**6), failed=timedelta(days=10**6), events=timedelta(days=10**6))
    ended(scene)
    assert scene.store.prune(for_ever, now=scene.now) == Pruned((), more=False)
