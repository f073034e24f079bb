"""Statistics: what they count is what happened, whatever became of the runs since."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scene import Opener, Scene

from hueyctl.model.definition import Retention
from hueyctl.model.outcome import Exited, Stopped
from hueyctl.model.run import NewStep, RunState
from hueyctl.model.transition import Done, Final, Settlement
from hueyctl.storage.store import EventFilter, JobStats, Spread

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DAY = timedelta(days=1)


def stats(scene: Scene, job: str | None = None, last: timedelta = DAY) -> dict[str | None, JobStats]:
    """By job, of what ended up to now, now included."""
    found = scene.store.stats(since=scene.now - last, until=scene.now + timedelta(microseconds=1), job=job)
    assert found[-1].job is None
    assert [each.job for each in found[:-1]] == sorted(str(each.job) for each in found[:-1])
    return {each.job: each for each in found}


def of(scene: Scene, job: str | None = None) -> JobStats:
    return stats(scene)[job]


def run_one(scene: Scene, job: str = "a", *, waits_s: float = 0, takes_s: float = 0, fails: bool = False) -> None:
    scene.accept(job)
    scene.pass_time(seconds=waits_s)
    claim = scene.claim_one()
    scene.pass_time(seconds=takes_s)
    scene.fail(claim) if fails else scene.succeed(claim)


def test_where_nothing_happened_there_is_nothing_to_count(scene: Scene) -> None:
    scene.accept()
    scene.claim_one()
    assert stats(scene) == {None: JobStats(job=None)}


def test_runs_are_counted_by_job_and_by_how_they_ended(scene: Scene) -> None:
    run_one(scene, "b", waits_s=1, takes_s=2)
    run_one(scene, "b", waits_s=3, takes_s=4, fails=True)
    scene.store.revoke([scene.accept("a").id], kill=False, by="bob", now=scene.now)
    scene.accept("a", expires_s=1)
    scene.pass_time(seconds=2)
    scene.store.sweep(served=None, now=scene.now)
    found = stats(scene)
    assert found == {
        "a": JobStats(job="a", other=2),
        "b": JobStats(job="b", succeeded=1, failed=1, waited=Spread(1, 3, 3), took=Spread(2, 4, 4)),
        None: JobStats(job=None, succeeded=1, failed=1, other=2, waited=Spread(1, 3, 3), took=Spread(2, 4, 4)),
    }
    assert (found["b"].ended, found["b"].failure_rate) == (2, 0.5)
    assert (found["a"].ended, found["a"].failure_rate) == (2, None)
    assert stats(scene, "a") == {"a": found["a"], None: JobStats(job=None, other=2)}
    assert stats(scene, "zzz") == {None: JobStats(job=None)}


def test_attempts_that_were_followed_by_another_are_counted_when_they_end(scene: Scene) -> None:
    scene.accept()
    scene.fail_for_now(scene.claim_one(), timedelta(seconds=5), retries_left=1)
    assert of(scene, "a") == JobStats(job="a", retried=1)
    scene.pass_time(seconds=7)
    claim = scene.claim_one()
    scene.store.rescue("w1", cause="it died", now=scene.now)
    scene.register("w1")
    assert of(scene, "a") == JobStats(job="a", retried=1, lost=1)
    claim = scene.claim_one()
    scene.pass_time(seconds=1)
    scene.succeed(claim)
    # It waited from when its retry was due.
    assert of(scene, "a") == JobStats(
        job="a", succeeded=1, retried=1, lost=1, waited=Spread(2, 2, 2), took=Spread(1, 1, 1)
    )


def test_an_attempt_that_was_stopped_took_the_time_until_then_and_its_run_is_no_failure(scene: Scene) -> None:
    run = scene.accept()
    claim = scene.claim_one()
    scene.store.revoke([run.id], kill=True, by="bob", now=scene.now)
    scene.pass_time(seconds=4)
    scene.settle(claim, Final(), Stopped("revoked"))
    assert of(scene, "a") == JobStats(job="a", other=1, waited=Spread(0, 0, 0), took=Spread(4, 4, 4))


def test_each_end_of_a_run_that_was_brought_back_counts_and_its_wait_is_that_of_the_last(scene: Scene) -> None:
    run_one(scene, waits_s=1, takes_s=1, fails=True)
    [run] = scene.store.find("", limit=2)
    scene.store.retry([run.id], by="bob", now=scene.now)
    assert of(scene, "a") == JobStats(job="a", failed=1, took=Spread(1, 1, 1))
    scene.pass_time(seconds=9)
    claim = scene.claim_one()
    scene.pass_time(seconds=3)
    scene.succeed(claim)
    run_one(scene, waits_s=5, takes_s=2)
    # Of two waits the shorter one is the half's.
    assert of(scene, "a") == JobStats(job="a", succeeded=2, failed=1, waited=Spread(5, 9, 9), took=Spread(2, 3, 3))


def test_what_ended_outlives_its_run_but_not_how_long_it_waited(scene: Scene) -> None:
    run_one(scene, waits_s=1, takes_s=2)
    scene.pass_time(hours=1)
    scene.store.prune(Retention(succeeded=timedelta(0), events=timedelta(days=30)), now=scene.now)
    assert of(scene, "a") == JobStats(job="a", succeeded=1, took=Spread(2, 2, 2))


def test_a_window_has_its_beginning_and_not_its_end(scene: Scene) -> None:
    begin = scene.now
    for _ in range(3):
        run_one(scene)
        scene.pass_time(hours=1)
    hour = timedelta(hours=1)
    assert scene.store.stats(since=begin, until=begin + 2 * hour)[-1].succeeded == 2
    assert scene.store.stats(since=begin + 2 * hour, until=begin + 2 * hour)[-1].succeeded == 0
    assert scene.store.stats(since=begin + 2 * hour, until=scene.now)[-1].succeeded == 1
    assert scene.store.stats(since=scene.now, until=scene.now + hour)[-1].succeeded == 0
    assert scene.store.stats(since=begin - 9 * hour, until=begin)[-1].succeeded == 0


def test_a_clock_that_is_set_back_a_little_hides_nothing(scene: Scene) -> None:
    begin = scene.now
    for seconds in (50, -45, 30, -30, 40, -35, 55):
        run_one(scene)
        scene.pass_time(seconds=seconds)
    ends = [event.time for event in scene.store.events(EventFilter(types=("complete",)), after=0, limit=100)]
    for since in range(0, 60, 5):
        for until in range(since, 60, 5):
            window = begin + timedelta(seconds=since), begin + timedelta(seconds=until)
            expected = sum(window[0] <= at < window[1] for at in ends)
            assert scene.store.stats(since=window[0], until=window[1])[-1].succeeded == expected


def test_steps_are_counted_with_their_jobs_and_a_pipeline_by_its_name_alone(scene: Scene) -> None:
    steps = (NewStep(scene.new("a"), ()), NewStep(scene.new("b"), (0,)))
    scene.store.accept([scene.new("etl", steps=steps)], by="alice@host", now=scene.now)
    scene.pass_time(seconds=5)
    for _ in steps:
        claim = scene.claim_one()
        scene.pass_time(seconds=2)
        scene.succeed(claim)
    found = stats(scene)
    assert {job: each.succeeded for job, each in found.items()} == {"a": 1, "b": 1, None: 2}
    whole = JobStats(job="etl", succeeded=1, waited=Spread(5, 5, 5), took=Spread(4, 4, 4))
    assert stats(scene, "etl")["etl"] == whole


def test_ends_are_counted_by_the_second_and_those_that_are_known_not_again(scene: Scene) -> None:
    begin = scene.now
    run_one(scene)
    scene.pass_time(seconds=1.5)
    run_one(scene)
    run_one(scene, fails=True)
    first = scene.store.ends(since=begin, after=None)
    second = begin + timedelta(seconds=1)
    assert first.counts == {
        (begin, RunState.SUCCEEDED): 1,
        (second, RunState.SUCCEEDED): 1,
        (second, RunState.FAILED): 1,
    }
    assert first.seq == scene.store.last_seq()
    assert scene.store.ends(since=begin, after=first.seq).counts == {}
    scene.store.revoke([scene.accept().id], kill=False, by="bob", now=scene.now)
    later = scene.store.ends(since=begin, after=first.seq)
    assert later.counts == {(second, RunState.REVOKED): 1}
    assert later.seq == scene.store.last_seq()
    assert scene.store.ends(since=scene.now, after=None).counts == {
        (second, RunState.SUCCEEDED): 1,
        (second, RunState.FAILED): 1,
        (second, RunState.REVOKED): 1,
    }


def test_a_pipelines_own_end_is_no_end_of_a_run_more(scene: Scene) -> None:
    begin = scene.now
    steps = (NewStep(scene.new("a"), ()), NewStep(scene.new("b"), (0,)))
    scene.store.accept([scene.new("etl", steps=steps)], by="alice@host", now=scene.now)
    for _ in steps:
        scene.succeed(scene.claim_one())
    assert scene.store.ends(since=begin, after=None).counts == {(begin, RunState.SUCCEEDED): 2}


def nearest(values: Sequence[float], percent: int) -> float:
    """The shortest that so many per cent of them don't exceed."""
    return min(value for value in values if 100 * sum(each <= value for each in values) >= percent * len(values))


milliseconds = st.integers(0, 50).map(lambda tenths: tenths * 100)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), milliseconds, milliseconds), min_size=1, max_size=30))
@example([("a", 0, 100 * n) for n in range(1, 21)])
def test_percentiles_are_those_of_all_that_was_measured(
    store_at: Callable[[Path], Opener], runs: list[tuple[str, int, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        scene = Scene(store_at(Path(folder)))
        scene.register("w1")
        # All due at once and claimed one after the other, since a run waits while those before it do.
        for job, waits, takes in runs:
            scene.accept(job, due_at=scene.now)
            scene.pass_time(milliseconds=waits)
            claim = scene.claim_one()
            ended_at = scene.now + timedelta(milliseconds=takes)
            done = Settlement(n=claim.run.n, token=claim.token, verdict=Done(), outcome=Exited(0), ended_at=ended_at)
            scene.store.exchange([done], None, now=ended_at)
        scene.pass_time(minutes=1)
        for job, found in stats(scene).items():
            mine = [run for run in runs if job in (None, run[0])]
            for spread, times in ((found.waited, [run[1] for run in mine]), (found.took, [run[2] for run in mine])):
                assert spread is not None
                expected = [nearest(times, percent) / 1000 for percent in (50, 95, 100)]
                assert [spread.p50, spread.p95, spread.max] == expected
        scene.close()
