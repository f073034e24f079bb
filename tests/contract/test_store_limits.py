"""Limits: max_concurrent, the concurrency of queues, rate limits."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import pytest
from scene import Scene

from hueyctl.model.definition import RateLimit
from hueyctl.model.run import RunState
from hueyctl.storage.store import Claim, JobPolicy

MINUTE = timedelta(minutes=1)
TWO = {"a": JobPolicy(max_concurrent=2), "b": JobPolicy()}
THREE_A_MINUTE = {"a": JobPolicy(rate_limit=RateLimit(count=3, per=MINUTE)), "b": JobPolicy()}


def test_no_more_runs_of_a_job_run_than_max_concurrent_over_queues_and_workers(scene: Scene) -> None:
    scene.register("w2")
    runs = [scene.accept("a", queue=queue, priority=9) for queue in ("q", "r", "q", "r")]
    other = scene.accept("b", queue="q")
    first = scene.claim(1, jobs=TWO)
    rest = scene.claim(jobs=TWO, worker="w2")
    assert [claim.run.id for claim in first + rest] == [runs[0].id, runs[1].id, other.id]
    assert scene.claim(jobs=TWO) == []
    scene.succeed(rest[0])
    assert [claim.run.id for claim in scene.claim(jobs=TWO)] == [runs[2].id]


def test_what_is_full_waits_in_its_place_and_in_nobodys_way(scene: Scene) -> None:
    waiting = [scene.accept("a", priority=p) for p in (0, 5, 9)]
    scene.accept("b", priority=-1)
    full = {"a": JobPolicy(max_concurrent=1), "b": JobPolicy()}
    claim, other = scene.claim(jobs=full)
    assert (claim.run.id, other.run.job) == (waiting[2].id, "b")
    events = len(scene.events())
    assert scene.claim(jobs=full) == []
    assert len(scene.events()) == events
    assert [scene.get(run).state for run in waiting] == [RunState.QUEUED, RunState.QUEUED, RunState.RUNNING]
    scene.fail_for_now(claim, MINUTE)
    assert [claim.run.id for claim in scene.claim(jobs=full)] == [waiting[1].id]


def test_a_run_in_retry_and_one_that_was_lost_take_no_place(scene: Scene) -> None:
    one = {"a": JobPolicy(max_concurrent=1)}
    scene.accept()
    scene.accept()
    scene.fail_for_now(scene.claim(jobs=one)[0], MINUTE)
    assert len(scene.claim(jobs=one)) == 1
    scene.store.rescue("w1", cause="silent", now=scene.now)
    scene.register("w2")
    assert len(scene.claim(jobs=one, worker="w2")) == 1


def test_no_more_runs_of_a_queue_run_than_its_concurrency_over_jobs_and_workers(scene: Scene) -> None:
    scene.register("w2")
    limits = {"narrow": 2}
    for job in ("a", "b", "c"):
        scene.accept(job, queue="narrow", priority=9)
    scene.accept("a", queue="wide")
    first = scene.claim(1, queue_limits=limits)
    rest = scene.claim(queue_limits=limits, worker="w2")
    assert [(claim.run.job, claim.run.queue) for claim in first + rest] == [
        ("a", "narrow"),
        ("b", "narrow"),
        ("a", "wide"),
    ]
    scene.succeed(first[0])
    assert [claim.run.job for claim in scene.claim(queue_limits=limits)] == ["c"]


def test_a_full_job_leaves_the_queues_places_to_others(scene: Scene) -> None:
    for job in ("a", "a", "b"):
        scene.accept(job, queue="q")
    policies = {"a": JobPolicy(max_concurrent=1), "b": JobPolicy()}
    assert [claim.run.job for claim in scene.claim(jobs=policies, queue_limits={"q": 2})] == ["a", "b"]


def test_a_rate_limit_lets_so_many_start_in_any_window_and_says_when_the_next_may(scene: Scene) -> None:
    for _ in range(6):
        scene.accept(priority=9)
    scene.accept("b")
    assert len(scene.claim(1, jobs=THREE_A_MINUTE)) == 1
    scene.pass_time(seconds=20)
    exchange = scene.store.exchange([], scene.want(jobs=THREE_A_MINUTE), now=scene.now)
    assert [claim.run.job for claim in exchange.claims] == ["a", "a", "b"]
    assert exchange.next_due == scene.now + timedelta(seconds=40)
    scene.pass_time(seconds=39.999)
    assert scene.claim(jobs=THREE_A_MINUTE) == []
    scene.pass_time(seconds=0.001)
    exchange = scene.store.exchange([], scene.want(jobs=THREE_A_MINUTE), now=scene.now)
    assert len(exchange.claims) == 1
    assert exchange.next_due == scene.now + timedelta(seconds=20)


def test_where_nothing_waits_behind_a_rate_limit_it_wakes_nobody(scene: Scene) -> None:
    for _ in range(3):
        scene.accept()
    exchange = scene.store.exchange([], scene.want(jobs=THREE_A_MINUTE), now=scene.now)
    assert (len(exchange.claims), exchange.next_due) == (3, None)


def test_what_is_due_before_a_rate_limit_opens_comes_first(scene: Scene) -> None:
    for _ in range(4):
        scene.accept()
    scene.accept("b", due_at=scene.now + timedelta(seconds=5))
    exchange = scene.store.exchange([], scene.want(jobs=THREE_A_MINUTE), now=scene.now)
    assert exchange.next_due == scene.now + timedelta(seconds=5)


def test_attempts_count_and_not_runs(scene: Scene) -> None:
    """A retry is a start like any other: the limit protects what the job calls."""
    scene.accept()
    for _ in range(3):
        [claim] = scene.claim(jobs=THREE_A_MINUTE)
        scene.fail_for_now(claim)
        scene.pass_time(milliseconds=1)
    assert scene.claim(jobs=THREE_A_MINUTE) == []


def test_the_run_whose_turn_a_rate_limit_puts_off_is_told_once(scene: Scene) -> None:
    runs = [scene.accept("a") for _ in range(5)]
    other = scene.accept("b", priority=-1)
    assert len(scene.claim(jobs=THREE_A_MINUTE)) == 4
    told = [event for event in scene.events() if event.type == "rate-limited"]
    assert [(event.run, event.state, event.data) for event in told] == [
        (runs[3].id, "queued", {"limit": "3/1m", "opens_at": "2026-03-01T12:01:00Z"})
    ]
    scene.pass_time(seconds=1)
    assert scene.claim(jobs=THREE_A_MINUTE) == []
    assert sum(event.type == "rate-limited" for event in scene.events()) == 1, "once in each wait"
    assert scene.get(other).state is RunState.RUNNING, "it keeps no other line waiting"
    scene.pass_time(minutes=1)
    assert [claim.run.id for claim in scene.claim(jobs=THREE_A_MINUTE)] == [runs[3].id, runs[4].id]
    assert sum(event.type == "rate-limited" for event in scene.events()) == 1


def test_a_clock_that_was_set_back_stops_a_rate_limited_job_for_one_window_at_most(scene: Scene) -> None:
    for _ in range(6):
        scene.accept()
    assert len(scene.claim(jobs=THREE_A_MINUTE)) == 3
    scene.pass_time(hours=-1)
    assert scene.claim(jobs=THREE_A_MINUTE) == []
    scene.pass_time(minutes=1)
    assert len(scene.claim(jobs=THREE_A_MINUTE)) == 3


def test_a_worker_that_waited_for_the_store_with_an_earlier_clock_finds_what_is_in_its_window(scene: Scene) -> None:
    for _ in range(6):
        scene.accept()
    scene.claim(jobs=THREE_A_MINUTE)
    scene.pass_time(minutes=1)
    assert len(scene.claim(1, jobs=THREE_A_MINUTE)) == 1
    scene.pass_time(milliseconds=-1)
    assert scene.claim(jobs=THREE_A_MINUTE) == []


def test_a_lowered_rate_limit_counts_from_the_next_claim_on(scene: Scene) -> None:
    for _ in range(6):
        scene.accept()
    scene.claim(jobs=THREE_A_MINUTE)
    lowered = {"a": JobPolicy(rate_limit=RateLimit(count=2, per=MINUTE))}
    scene.pass_time(seconds=10)
    exchange = scene.store.exchange([], scene.want(jobs=lowered), now=scene.now)
    assert (exchange.claims, exchange.next_due) == ((), scene.now + timedelta(seconds=50))


@pytest.mark.parametrize("seed", range(3))
def test_all_limits_hold_at_every_moment_whatever_ends_when(scene: Scene, seed: int) -> None:
    """Random runs of jobs with every limit, over two workers: counted after each step; in the end all have run."""
    random = Random(seed)
    scene.register("w2")
    jobs = {
        "a": JobPolicy(max_concurrent=2),
        "b": JobPolicy(rate_limit=RateLimit(count=4, per=MINUTE)),
        "c": JobPolicy(max_concurrent=3, rate_limit=RateLimit(count=9, per=MINUTE)),
    }
    started: list[Claim] = []
    under_way: list[Claim] = []
    to_come, ended = 120, 0
    for _ in range(2_000):
        scene.pass_time(seconds=random.uniform(0, 4))
        while to_come and random.random() < 0.7:
            to_come -= 1
            key = random.choice([None, "k", "l"])
            queue = random.choice(["q", "r"])
            scene.accept(random.choice("abc"), queue=queue, lock_key=key, priority=random.choice([0, 1]))
        worker = random.choice(["w1", "w2"])
        claims = scene.claim(random.randint(1, 4), worker=worker, jobs=jobs, queue_limits={"q": 3})
        started += claims
        under_way += claims
        for name, most in (("a", 2), ("c", 3)):
            assert sum(claim.run.job == name for claim in under_way) <= most
        assert sum(claim.run.queue == "q" for claim in under_way) <= 3
        held = [claim.run.lock_key for claim in under_way if claim.run.lock_key]
        assert len(held) == len(set(held))
        for name, most in (("b", 4), ("c", 9)):
            window = [c for c in started if c.run.job == name and _at(c) > scene.now - MINUTE]
            assert len(window) <= most
        random.shuffle(under_way)
        while under_way and random.random() < 0.6:
            scene.succeed(under_way.pop())
            ended += 1
        if ended == 120:
            break
    assert ended == 120


def _at(claim: Claim) -> datetime:
    assert claim.run.started_at is not None
    return claim.run.started_at
