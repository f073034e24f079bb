"""Pipelines, over every store: what waits, what is released, skipped and resumed, and what it is handed."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from scene import Scene

from hueyctl.model.definition import Retention
from hueyctl.model.event import Event
from hueyctl.model.handover import Input
from hueyctl.model.outcome import Exited
from hueyctl.model.run import NewRun, NewStep, Run, RunState
from hueyctl.model.transition import Done
from hueyctl.storage.store import Claim, Firing, JobPolicy, Pause, RunFilter, ScheduleDefinition

S = RunState
Shape = dict[str, tuple[int, ...]]
LINE: Shape = {"a": (), "b": (0,), "c": (1,)}
FAN: Shape = {"a": (), "b": (0,), "c": (0,), "d": (1, 2)}
JOBS = ("a", "b", "c", "d", "e")


def pipeline_of(scene: Scene, shape: Shape, steps: dict[str, dict[str, Any]] | None = None, **given: Any) -> NewRun:
    """A pipeline whose steps are the jobs of `shape`, each after those of these positions."""
    parts = tuple(NewStep(scene.new(job, **(steps or {}).get(job, {})), after) for job, after in shape.items())
    return scene.new("etl", steps=parts, **given)


def accept(scene: Scene, shape: Shape, steps: dict[str, dict[str, Any]] | None = None, **given: Any) -> Run:
    """Enqueue it."""
    [accepted] = scene.store.accept([pipeline_of(scene, shape, steps, **given)], by="alice@host", now=scene.now)
    return accepted.run


def states(scene: Scene, pipeline: Run) -> str:
    """The states of all steps in their order, and that of the pipeline."""
    return " ".join(run.state for run in [*(step.run for step in scene.store.steps(pipeline.id)), scene.get(pipeline)])


def claim(scene: Scene, limit: int = 10) -> dict[str, Claim]:
    return {claim.run.job: claim for claim in scene.claim(limit, jobs=JOBS)}


def take(scene: Scene, job: str) -> Claim:
    [(claimed, taken)] = claim(scene).items()
    assert claimed == job
    return taken


def step(scene: Scene, pipeline: Run, job: str) -> Run:
    [found] = [each.run for each in scene.store.steps(pipeline.id) if each.run.job == job]
    return found


def own_types(scene: Scene, pipeline: Run) -> list[str]:
    """The events of the pipeline's run itself."""
    return [event.type for event in scene.events() if event.run == pipeline.id]


def last(scene: Scene, run: Run) -> Event:
    return [event for event in scene.events() if event.run == run.id][-1]


def retry(scene: Scene, *runs: Run) -> list[str | None]:
    done = scene.store.retry([run.id for run in runs], by="alice@host", now=scene.now)
    assert [each.run for each in done] == [scene.get(run) for run in runs]
    return [each.refusal for each in done]


def revoke(scene: Scene, run: Run, *, kill: bool = False) -> str:
    [done] = scene.store.revoke([run.id], kill=kill, by="alice@host", now=scene.now)
    return done.effect


# -- acceptance -----------------------------------------------------------------------------------------------------


def test_all_runs_of_a_pipeline_are_there_from_the_start(scene: Scene) -> None:
    pipeline = accept(scene, FAN, trigger="backfill")
    assert (pipeline.job, pipeline.state, pipeline.pipeline, pipeline.position) == ("etl", S.WAITING, pipeline.id, None)
    assert pipeline.is_pipeline
    assert scene.get(pipeline) == pipeline
    steps = scene.store.steps(pipeline.id)
    assert [(step.run.job, step.run.position, step.run.state, step.after) for step in steps] == [
        ("a", 0, S.QUEUED, ()),
        ("b", 1, S.WAITING, (0,)),
        ("c", 2, S.WAITING, (0,)),
        ("d", 3, S.WAITING, (1, 2)),
    ]
    assert all(step.run.pipeline == pipeline.id and not step.run.is_pipeline for step in steps)
    assert all(step.run.trigger == "backfill" for step in steps)
    assert [scene.types(step.run) for step in steps] == [["enqueued"]] * 4
    assert [event.pipeline for event in scene.events()[1:]] == [pipeline.id] * 5
    assert scene.store.steps(steps[0].run.id) == []


def test_a_repeated_id_of_a_pipeline_is_the_one_that_is_there(scene: Scene) -> None:
    id = str(uuid.uuid4())
    first, second = (
        scene.store.accept([pipeline_of(scene, LINE, id=id, given_id=True)], by="alice@host", now=scene.now)[0]
        for _ in range(2)
    )
    assert (first.existing, second.existing, second.run) == (False, True, first.run)
    assert len(scene.store.steps(id)) == 3


def test_pipelines_and_runs_are_accepted_in_one_batch_in_their_order(scene: Scene) -> None:
    given = [scene.new("a"), pipeline_of(scene, FAN), scene.new("b"), pipeline_of(scene, LINE)]
    accepted = [each.run for each in scene.store.accept(given, by="alice@host", now=scene.now)]
    assert [run.id for run in accepted] == [new.id for new in given]
    assert [run.n for run in accepted] == [1, 2, 7, 8]
    assert [len(scene.store.steps(run.id)) for run in accepted] == [0, 4, 0, 3]


def test_a_pipelines_own_run_is_never_claimed_and_is_no_run_under_way(scene: Scene) -> None:
    pipeline = accept(scene, {"a": ()}, {"a": {"queue": "q"}}, queue="q")
    jobs = {"a": JobPolicy(), "etl": JobPolicy()}
    taken = scene.claim(jobs=jobs, queue_limits={"q": 2})
    assert [claim.run.job for claim in taken] == ["a"]
    scene.accept("a", queue="q")
    # One of two places is taken: by the step, and not by the pipeline too, though it is running.
    assert scene.get(pipeline).state is S.RUNNING
    assert len(scene.claim(jobs=jobs, queue_limits={"q": 2})) == 1
    assert {run.job for run in scene.store.running()} == {"a"}
    assert {line.job for line in scene.store.lines()} == {"a"}
    assert [run.id for run in scene.store.runs(RunFilter(states=(S.RUNNING,), job="etl"), limit=None)] == [pipeline.id]


def test_the_last_run_is_the_pipeline_and_never_one_of_its_steps(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    assert scene.store.newest() == pipeline


def test_a_pipeline_is_not_held_where_no_worker_defines_a_job_of_its_name(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    assert scene.store.sweep(served={"*": ["a", "b", "c"]}, now=scene.now) == 0
    assert states(scene, pipeline) == "queued waiting waiting waiting"


# -- on its way -----------------------------------------------------------------------------------------------------


def test_a_step_is_released_by_the_settlement_of_the_last_that_it_waits_for(scene: Scene) -> None:
    pipeline = accept(scene, FAN)
    first = take(scene, "a")
    assert states(scene, pipeline) == "running waiting waiting waiting running"
    assert scene.succeed(first).opened
    assert states(scene, pipeline) == "succeeded queued queued waiting running"
    both = claim(scene)
    assert not scene.succeed(both["c"]).opened
    assert states(scene, pipeline) == "succeeded running succeeded waiting running"
    scene.succeed(both["b"])
    scene.succeed(take(scene, "d"))
    assert states(scene, pipeline) == "succeeded succeeded succeeded succeeded succeeded"
    assert scene.types(step(scene, pipeline, "d")) == ["enqueued", "released", "executing", "complete"]
    assert own_types(scene, pipeline) == ["enqueued", "executing", "complete"]


def test_the_settlement_that_releases_a_step_claims_it_in_the_same_transaction(scene: Scene) -> None:
    accept(scene, LINE)
    done = scene.settlement(take(scene, "a"), Done(b"1"), Exited(0))
    [claimed] = scene.store.exchange([done], scene.want(jobs=JOBS), now=scene.now).claims
    assert (claimed.run.job, [each.result for each in claimed.inputs]) == ("b", [b"1"])


def test_a_released_step_is_due_and_expires_from_its_release_on(scene: Scene) -> None:
    pipeline = accept(scene, LINE, {"b": {"expires_s": 60}}, expires_s=1)
    scene.pass_time(hours=1)
    first = take(scene, "a")
    assert states(scene, pipeline) == "running waiting waiting running"
    scene.pass_time(hours=1)
    scene.succeed(first)
    released = step(scene, pipeline, "b")
    assert (released.due_at, released.expires_at) == (scene.now, scene.now + timedelta(seconds=60))
    scene.pass_time(seconds=60)
    assert claim(scene) == {}
    assert states(scene, pipeline) == "succeeded expired skipped expired"
    assert step(scene, pipeline, "c").reason == "step 2 (b) expired"


def test_first_steps_wait_for_their_time(scene: Scene) -> None:
    due = scene.now + timedelta(minutes=5)
    pipeline = accept(scene, LINE, {"a": {"due_at": due}}, due_at=due)
    assert states(scene, pipeline) == "scheduled waiting waiting waiting"
    assert claim(scene) == {}
    scene.pass_time(minutes=5)
    take(scene, "a")


def test_a_paused_job_s_step_waits_in_its_place(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    scene.store.pause([Pause(kind="job", name="b", note=None, by="alice@host", at=scene.now)])
    scene.succeed(take(scene, "a"))
    assert claim(scene) == {}
    assert states(scene, pipeline) == "succeeded queued waiting running"


def test_retries_and_rescues_of_a_step_go_on_before_anything_behind_it(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    scene.fail_for_now(take(scene, "a"), retries_left=1)
    assert states(scene, pipeline) == "queued waiting waiting running"
    lost = take(scene, "a")
    assert [run.job for run in scene.store.rescue("w1", cause="gone", now=scene.now)] == ["a"]
    assert states(scene, pipeline) == "queued waiting waiting running"
    scene.register("w1")
    again = take(scene, "a")
    assert scene.succeed(lost).stale
    assert states(scene, pipeline) == "running waiting waiting running"
    scene.succeed(again)
    assert states(scene, pipeline) == "succeeded queued waiting running"
    assert own_types(scene, pipeline) == ["enqueued", "executing"]


# -- bad ends -------------------------------------------------------------------------------------------------------


def test_a_failed_step_skips_all_that_depends_on_it_and_the_rest_goes_on(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": (), "c": (0,), "d": (2, 1), "e": (1,)})
    both = claim(scene)
    scene.fail(both["a"])
    assert states(scene, pipeline) == "failed running skipped skipped waiting running"
    for job in "cd":
        skipped = step(scene, pipeline, job)
        assert skipped.reason == "step 1 (a) failed: exited with 3"
        assert (last(scene, skipped).type, last(scene, skipped).data) == ("skipped", {"reason": skipped.reason})
    scene.succeed(both["b"])
    scene.succeed(take(scene, "e"))
    assert states(scene, pipeline) == "failed succeeded skipped skipped succeeded failed"
    over = scene.get(pipeline)
    assert (over.reason, over.finished_at) == ("step 1 (a) failed: exited with 3", scene.now)
    assert own_types(scene, pipeline) == ["enqueued", "executing", "failed"]


def test_a_step_that_a_dead_worker_ran_for_the_last_time_skips_what_depends_on_it(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    scene.claim(jobs={"a": JobPolicy(on_worker_lost="fail")})
    scene.store.rescue("w1", cause="gone", now=scene.now)
    assert states(scene, pipeline) == "failed skipped skipped failed"


def test_a_pipeline_ends_as_its_steps_did_at_worst(scene: Scene) -> None:
    shape: Shape = {"a": (), "b": (), "c": (), "d": ()}
    pipeline = accept(scene, shape, {"c": {"expires_s": 60, "queue": "other"}})
    taken = {each.run.job: each for each in scene.claim(jobs=JOBS, queues=("default",))}
    revoke(scene, taken["b"].run, kill=True)
    scene.fail(taken["b"])
    scene.succeed(taken["d"])
    scene.pass_time(minutes=2)
    scene.store.sweep(served=None, now=scene.now)
    assert states(scene, pipeline) == "running revoked expired succeeded running"
    scene.succeed(taken["a"])
    assert states(scene, pipeline) == "succeeded revoked expired succeeded expired"
    assert last(scene, pipeline).type == "expired"


def test_steps_that_expire_at_once_end_their_pipeline_once_and_last(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": ()}, {"a": {"expires_s": 60}, "b": {"expires_s": 60}})
    scene.pass_time(minutes=2)
    scene.store.sweep(served=None, now=scene.now)
    assert states(scene, pipeline) == "expired expired expired"
    assert [event.run for event in scene.events() if event.type == "expired"][-1] == pipeline.id
    assert own_types(scene, pipeline) == ["enqueued", "expired"]


# -- revoke ---------------------------------------------------------------------------------------------------------


def test_a_revoked_step_skips_what_depends_on_it(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    assert revoke(scene, step(scene, pipeline, "b")) == "revoked"
    assert states(scene, pipeline) == "queued revoked skipped waiting"
    assert step(scene, pipeline, "c").reason == "step 2 (b) was revoked"
    scene.succeed(take(scene, "a"))
    assert states(scene, pipeline) == "succeeded revoked skipped revoked"
    assert scene.get(pipeline).reason == "step 2 (b) was revoked"


def test_revoking_a_pipeline_takes_all_of_it(scene: Scene) -> None:
    pipeline = accept(scene, FAN)
    scene.succeed(take(scene, "a"))
    assert revoke(scene, pipeline) == "revoked"
    assert states(scene, pipeline) == "succeeded revoked revoked revoked revoked"
    assert claim(scene) == {}
    assert revoke(scene, pipeline) == "ended"


def test_revoking_a_pipeline_leaves_what_runs_unless_it_is_to_be_stopped(scene: Scene) -> None:
    pipeline = accept(scene, FAN)
    scene.succeed(take(scene, "a"))
    both = claim(scene)
    scene.succeed(both["c"])
    assert revoke(scene, pipeline) == "running"
    assert states(scene, pipeline) == "succeeded running succeeded revoked running"
    assert not scene.get(both["b"]).revoking
    assert revoke(scene, pipeline, kill=True) == "requested"
    assert scene.store.asked("w1")[1] == ((both["b"].run.n, both["b"].token),)
    scene.fail(both["b"])
    assert states(scene, pipeline) == "succeeded revoked succeeded revoked revoked"


def test_a_step_that_succeeds_although_its_pipeline_was_revoked_starts_nothing(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    first = take(scene, "a")
    revoke(scene, pipeline, kill=True)
    scene.succeed(first)
    assert states(scene, pipeline) == "succeeded revoked revoked revoked"
    assert claim(scene) == {}


# -- retry ----------------------------------------------------------------------------------------------------------


def test_retrying_a_failed_step_resumes_its_pipeline_from_there(scene: Scene) -> None:
    pipeline = accept(scene, FAN, {"d": {"expires_s": 60}})
    scene.succeed(take(scene, "a"), b"A")
    both = claim(scene)
    scene.succeed(both["b"], b"B")
    scene.fail(both["c"])
    assert states(scene, pipeline) == "succeeded succeeded failed skipped failed"
    assert retry(scene, step(scene, pipeline, "c")) == [None]
    assert states(scene, pipeline) == "succeeded succeeded queued waiting waiting"
    assert step(scene, pipeline, "d").expires_at is None
    again = take(scene, "c")
    assert (again.run.attempt, [each.result for each in again.inputs]) == (2, [b"A"])
    scene.pass_time(hours=1)
    scene.succeed(again, b"C")
    scene.succeed(take(scene, "d"))
    assert states(scene, pipeline) == "succeeded succeeded succeeded succeeded succeeded"
    assert own_types(scene, pipeline) == ["enqueued", "executing", "failed", "retried", "executing", "complete"]
    assert scene.get(pipeline).reason is None


def test_retrying_a_pipeline_takes_up_all_that_ended_badly(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": (), "c": (0, 1), "d": (2,)})
    both = claim(scene)
    scene.fail(both["a"])
    revoke(scene, both["b"].run, kill=True)
    scene.fail(both["b"])
    assert states(scene, pipeline) == "failed revoked skipped skipped failed"
    assert retry(scene, pipeline) == [None]
    assert states(scene, pipeline) == "queued queued waiting waiting waiting"


def test_a_skipped_step_is_retried_with_what_it_needs(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    scene.fail(take(scene, "a"))
    assert retry(scene, step(scene, pipeline, "c")) == [None]
    assert states(scene, pipeline) == "queued waiting waiting waiting"


def test_what_depends_on_another_bad_step_too_stays_skipped_for_that_one(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": (), "c": (0, 1), "d": (2,), "e": (0,)})
    both = claim(scene)
    scene.fail(both["a"])
    scene.fail(both["b"])
    assert step(scene, pipeline, "d").reason == "step 1 (a) failed: exited with 3"
    retry(scene, step(scene, pipeline, "a"))
    assert states(scene, pipeline) == "queued failed skipped skipped waiting waiting"
    assert {step(scene, pipeline, job).reason for job in "cd"} == {"step 2 (b) failed: exited with 3"}
    scene.succeed(take(scene, "a"))
    scene.succeed(take(scene, "e"))
    assert states(scene, pipeline) == "succeeded failed skipped skipped succeeded failed"
    retry(scene, step(scene, pipeline, "b"))
    scene.succeed(take(scene, "b"))
    scene.succeed(take(scene, "c"))
    scene.succeed(take(scene, "d"))
    assert scene.get(pipeline).state is S.SUCCEEDED


def test_what_was_revoked_by_itself_stays_so_when_what_is_before_it_is_retried(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    revoke(scene, step(scene, pipeline, "b"))
    scene.fail(take(scene, "a"))
    retry(scene, step(scene, pipeline, "a"))
    assert states(scene, pipeline) == "queued revoked skipped waiting"


def test_a_step_can_be_retried_while_the_others_go_on(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": (), "c": (0, 1)})
    both = claim(scene)
    scene.fail(both["a"])
    assert retry(scene, pipeline) == ["has not ended: it is running"]
    assert retry(scene, step(scene, pipeline, "a")) == [None]
    assert states(scene, pipeline) == "queued running waiting running"
    assert own_types(scene, pipeline) == ["enqueued", "executing"]


def test_steps_named_together_are_retried_once(scene: Scene) -> None:
    pipeline = accept(scene, LINE)
    scene.fail(take(scene, "a"))
    runs = [each.run for each in scene.store.steps(pipeline.id)]
    assert retry(scene, *runs, pipeline) == [None] * 4
    assert states(scene, pipeline) == "queued waiting waiting waiting"
    assert scene.types(runs[0])[-2:] == ["retried", "released"]
    assert scene.types(runs[1])[-2:] == ["skipped", "retried"]


# -- what is handed on ----------------------------------------------------------------------------------------------


def test_a_claimed_step_has_the_results_of_those_that_it_waited_for_in_their_order(scene: Scene) -> None:
    pipeline = accept(scene, FAN, {"d": {"lock_key": "disk", "retries": 3}})
    first = take(scene, "a")
    assert (first.inputs, first.pipeline) == ((), scene.get(pipeline))
    scene.succeed(first, b"A")
    both = claim(scene)
    assert [each.inputs for each in both.values()] == [(Input(position=0, job="a", result=b"A"),)] * 2
    scene.succeed(both["c"], None)
    scene.succeed(both["b"], b"")
    for _ in range(2):  # a retry gets the same again
        last_step = take(scene, "d")
        assert last_step.inputs == (
            Input(position=1, job="b", result=b""),
            Input(position=2, job="c", result=None),
        )
        scene.fail_for_now(last_step, retries_left=1)
    assert (last_step.run.retries_left, last_step.run.lock_key) == (1, "disk")


def test_a_run_of_no_pipeline_is_handed_nothing(scene: Scene) -> None:
    scene.accept("a")
    claimed = take(scene, "a")
    assert (claimed.inputs, claimed.pipeline) == ((), None)


def test_a_pipeline_s_result_is_that_of_its_last_steps(scene: Scene) -> None:
    one, two = accept(scene, LINE), accept(scene, {"a": (), "b": (0,), "c": (0,)})
    for _ in range(3):
        for each in scene.claim(jobs=JOBS):
            scene.succeed(each, each.run.job.encode())
    assert [each.result for each in scene.store.inputs(scene.get(one))] == [b"c"]
    assert [(each.position, each.result) for each in scene.store.inputs(scene.get(two))] == [(1, b"b"), (2, b"c")]


def test_what_can_t_be_handed_on_fails_who_needs_it(scene: Scene) -> None:
    pipeline = accept(scene, {"a": (), "b": (0,), "c": (1,), "d": (0,)})
    scene.settle(take(scene, "a"), Done(None, "the result has 9 bytes, more than result_max (8)"), Exited(0))
    reason = "the result of step 1 (a) can't be handed on: the result has 9 bytes, more than result_max (8)"
    assert states(scene, pipeline) == "succeeded failed skipped failed failed"
    failed = step(scene, pipeline, "b")
    assert (failed.reason, failed.attempt, last(scene, failed).data) == (reason, 0, {"reason": reason})
    assert step(scene, pipeline, "c").reason == f"step 2 (b) failed: {reason}"
    # Nothing makes it smaller: it fails again, and the pipeline with it.
    retry(scene, pipeline)
    assert states(scene, pipeline) == "succeeded failed skipped failed failed"
    assert own_types(scene, pipeline) == ["enqueued", "executing", "failed", "retried", "failed"]


# -- schedules ------------------------------------------------------------------------------------------------------


def fire(scene: Scene, overlap: Any = "queue") -> Run | None:
    """Let the schedule `nightly` fire now."""
    before = scene.now
    slot = scene.pass_time(minutes=1)
    scene.store.define_schedules({"nightly": ScheduleDefinition("r", "d")}, file="/jobs.toml", now=before)
    new = pipeline_of(scene, {"a": (), "b": (), "c": (0, 1)}, trigger="schedule", schedule="nightly", slot=slot)
    firing = Firing(schedule="nightly", definition="d", slot=scene.now, run=new, overlap=overlap)
    [fired] = scene.store.fire([firing], now=scene.now)
    return scene.store.get(fired.run) if fired.run else None


def test_the_steps_of_a_schedule_s_pipeline_know_it_and_do_not_overlap_with_it(scene: Scene) -> None:
    pipeline = fire(scene, "skip")
    assert pipeline is not None
    assert (pipeline.schedule, pipeline.scheduled_at) == ("nightly", scene.now)
    taken = claim(scene)["a"]
    assert (taken.run.schedule, taken.run.trigger) == (None, "schedule")
    assert taken.pipeline is not None
    assert (taken.pipeline.schedule, taken.pipeline.scheduled_at) == ("nightly", scene.now)
    assert [run.id for run in scene.store.runs(RunFilter(schedule="nightly"), limit=None)] == [pipeline.id]
    assert fire(scene, "skip") is None
    assert scene.store.newest() is None


def test_a_pipeline_waits_as_a_whole_for_the_one_before_it(scene: Scene) -> None:
    before = fire(scene)
    both = claim(scene)
    assert len(both) == 2
    after = fire(scene)
    assert before is not None
    assert after is not None
    assert (after.gate, states(scene, after)) == ("schedule:nightly", "waiting waiting waiting waiting")
    # One waits already: that it is waiting, and not the one that runs, is what counts.
    assert fire(scene) is None
    scene.fail(both["a"])
    assert claim(scene) == {}
    scene.succeed(both["b"])
    assert states(scene, before) == "failed succeeded skipped failed"
    assert states(scene, after) == "queued queued waiting waiting"
    assert scene.types(step(scene, after, "a")) == ["enqueued", "released"]
    assert len(claim(scene)) == 2


def test_a_step_that_is_retried_before_its_pipeline_s_turn_waits_with_it(scene: Scene) -> None:
    before, after = fire(scene, "line"), fire(scene, "line")
    assert before is not None
    assert after is not None
    revoke(scene, step(scene, after, "a"))
    assert states(scene, after) == "revoked waiting skipped waiting"
    retry(scene, step(scene, after, "a"))
    assert states(scene, after) == "waiting waiting waiting waiting"
    revoke(scene, before)
    assert states(scene, after) == "queued queued waiting waiting"


def test_a_replaced_pipeline_gives_way_when_its_last_step_has_stopped(scene: Scene) -> None:
    before = fire(scene, "replace")
    assert before is not None
    both = claim(scene)
    scene.succeed(both["a"])
    after = fire(scene, "replace")
    assert after is not None
    assert states(scene, before) == "succeeded running revoked running"
    assert states(scene, after) == "waiting waiting waiting waiting"
    scene.fail(both["b"])
    assert states(scene, before) == "succeeded revoked revoked revoked"
    assert states(scene, after) == "queued queued waiting waiting"
    scene.succeed(claim(scene, 1)["a"])
    # Between two steps nothing of it has to be stopped: the next one starts at once.
    then = fire(scene, "replace")
    assert then is not None
    assert states(scene, after) == "succeeded revoked revoked revoked"
    assert states(scene, then) == "queued queued waiting waiting"


# -- pruning --------------------------------------------------------------------------------------------------------


def test_a_pipeline_is_pruned_as_a_whole_by_the_longest_retention(scene: Scene) -> None:
    retention = Retention(succeeded=timedelta(days=1), failed=timedelta(days=3), events=timedelta(days=99))
    good, bad = accept(scene, LINE), accept(scene, LINE)
    for _ in range(3):
        for each in scene.claim(jobs=JOBS):
            scene.succeed(each) if each.run.pipeline == good.id or each.run.job == "a" else scene.fail(each)
    assert states(scene, bad) == "succeeded failed skipped failed"
    live = accept(scene, LINE)
    scene.succeed(take(scene, "a"))
    scene.pass_time(days=2)
    assert scene.store.prunable(retention, now=scene.now) == (4, 0)
    pruned = scene.store.prune(retention, now=scene.now, limit=2)
    assert (len(pruned.runs), pruned.more) == (4, True)
    assert not scene.store.prune(retention, now=scene.now).runs
    assert scene.store.steps(good.id) == []
    assert scene.store.get(good.id) is None
    scene.pass_time(days=2)
    of_bad = {bad.id, *(each.run.id for each in scene.store.steps(bad.id))}
    assert set(scene.store.prune(retention, now=scene.now).runs) == of_bad
    assert states(scene, live) == "succeeded queued waiting running"
    scene.succeed(take(scene, "b"))
    assert [each.result for each in take(scene, "c").inputs] == [b"ok"]
