"""Claiming: which runs, in which order, and what a claim is."""

from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.event import EventType
from hueyctl.model.outcome import Exited, Stopped
from hueyctl.model.run import Message, Run, RunState
from hueyctl.model.transition import Done
from hueyctl.storage.store import JobPolicy, Pause


def test_a_claim_counts_as_an_attempt_the_moment_it_is_made(scene: Scene) -> None:
    run = scene.accept()
    scene.pass_time(seconds=1)
    claim = scene.claim_one(jobs={"a": JobPolicy(retries=2, crash_limit=5, on_worker_lost="fail")})
    assert scene.get(run) == claim.run
    assert (claim.run.state, claim.run.attempt, claim.run.worker) == (RunState.RUNNING, 1, "w1")
    assert (claim.run.token, claim.run.started_at) == (claim.token, scene.now)
    assert (claim.run.retries_left, claim.run.crash_limit, claim.run.on_worker_lost) == (2, 5, "fail")
    event = scene.events(run)[-1]
    assert (event.type, event.state, event.attempt, event.worker, event.by) == ("executing", "running", 1, "w1", "w1")


def test_a_claimed_run_is_not_claimed_again(scene: Scene) -> None:
    scene.accept()
    assert len(scene.claim()) == 1
    assert scene.claim() == []


def test_each_claim_has_a_token_of_its_own(scene: Scene) -> None:
    for _ in range(20):
        scene.accept()
    tokens = {claim.token for claim in [*scene.claim(11), *scene.claim(9)]}
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {len("1-0123456789abcdef")}


def test_the_enqueuers_retries_come_before_the_definitions(scene: Scene) -> None:
    scene.accept(retries=0)
    assert scene.claim_one(jobs={"a": JobPolicy(retries=5)}).run.retries_left == 0


def test_the_highest_priority_is_claimed_first_and_the_oldest_within_it(scene: Scene) -> None:
    """Over jobs and queues alike: lines are merged, not taken in turn."""
    given = [
        ("a", "q1", 0),
        ("b", "q1", 5),
        ("a", "q2", 5),
        ("c", "q1", -1),
        ("a", "q1", 5),
        ("b", "q2", 0),
        ("a", "q1", 9),
    ]
    runs = [scene.accept(job, queue=queue, priority=priority) for job, queue, priority in given]
    expected = sorted(runs, key=lambda run: (-run.priority, run.n))
    claimed = [claim.run.id for claim in scene.claim(3)] + [claim.run.id for claim in scene.claim(10)]
    assert claimed == [run.id for run in expected]


def test_no_more_is_claimed_than_was_asked_for(scene: Scene) -> None:
    for _ in range(5):
        scene.accept()
    assert len(scene.claim(0)) == 0
    assert len(scene.claim(2)) == 2
    assert len(scene.claim(9)) == 3


def test_a_worker_gets_only_its_jobs_and_queues(scene: Scene) -> None:
    scene.accept("a", queue="q1")
    scene.accept("b", queue="q1")
    scene.accept("a", queue="q2")
    assert [(c.run.job, c.run.queue) for c in scene.claim(jobs=("a",), queues=("q1", "q9"))] == [("a", "q1")]
    assert [(c.run.job, c.run.queue) for c in scene.claim(jobs=("b",))] == [("b", "q1")]
    assert scene.claim(jobs=("zzz",)) == []


def test_a_worker_that_is_not_registered_gets_nothing(scene: Scene) -> None:
    """It may have been taken for dead and rescued: nobody would rescue what it claims now."""
    scene.accept()
    assert scene.claim(worker="w2") == []
    scene.store.rescue("w1", cause="silent", now=scene.now)
    assert scene.claim(worker="w1") == []
    scene.register("w1")
    assert len(scene.claim(worker="w1")) == 1


@pytest.mark.parametrize(("kind", "name"), [("all", ""), ("job", "a"), ("queue", "default")])
def test_a_paused_job_queue_or_store_is_passed_over_until_it_is_resumed(scene: Scene, kind: str, name: str) -> None:
    scene.accept("a")
    other = scene.accept("b", queue="other", priority=-5)
    scene.store.pause([Pause(kind=kind, name=name, note="why", by="bob", at=scene.now)])
    assert [claim.run.id for claim in scene.claim()] == ([] if kind == "all" else [other.id])
    assert scene.store.resume(kind, name, by="bob", now=scene.now)
    assert "a" in {claim.run.job for claim in scene.claim()}


def test_a_job_of_the_name_of_a_paused_queue_goes_on(scene: Scene) -> None:
    scene.accept("a", queue="b")
    scene.store.pause([Pause(kind="queue", name="a", note=None, by="bob", at=scene.now)])
    scene.store.pause([Pause(kind="schedule", name="a", note=None, by="bob", at=scene.now)])
    assert len(scene.claim()) == 1


def test_a_run_that_does_not_fit_is_held_and_the_next_ones_are_claimed_in_its_place(scene: Scene) -> None:
    runs = [scene.accept(params={"x": i}) for i in range(6)]
    claims = scene.claim(2, admit=lambda run: "x is odd" if run.message.params["x"] in {0, 1, 3} else None)
    assert [claim.run.id for claim in claims] == [runs[2].id, runs[4].id]
    held = scene.get(runs[0])
    assert (held.state, held.reason, held.attempt) == (RunState.HELD, "x is odd", 0)
    assert [scene.get(run).state.value for run in runs] == ["held", "held", "running", "held", "running", "queued"]
    event = scene.events(runs[0])[-1]
    assert (event.type, event.state, event.data) == ("held", "held", {"reason": "x is odd"})


def test_held_runs_of_one_line_do_not_change_the_order_over_lines(scene: Scene) -> None:
    bad = scene.accept("a", priority=9)
    low = scene.accept("a", priority=1)
    high = scene.accept("b", priority=5)
    claims = scene.claim(2, admit=lambda run: "no" if run.id == bad.id else None)
    assert [claim.run.id for claim in claims] == [high.id, low.id]


def test_a_run_that_cannot_even_be_judged_is_held_and_stops_no_other(scene: Scene) -> None:
    def admit(run: Run) -> None:
        if run.message.params:
            raise KeyError("surprise")

    bad, good = scene.accept(params={"x": 1}), scene.accept()
    assert [claim.run.id for claim in scene.claim(admit=admit)] == [good.id]
    assert "KeyError: 'surprise'" in scene.get(bad).reason


def test_a_message_of_another_version_is_held(scene: Scene) -> None:
    new = scene.new()
    [accepted] = scene.store.accept([type(new)(id=new.id, job="a", message=Message(v=2))], by="newer", now=scene.now)
    assert scene.claim() == []
    assert "message version 2" in scene.get(accepted.run).reason


def test_a_due_run_becomes_queued_and_is_claimed_in_its_place(scene: Scene) -> None:
    early = scene.accept(due_at=scene.now + timedelta(seconds=10))
    exchange = scene.store.exchange([], scene.want(), now=scene.now)
    assert (exchange.claims, exchange.next_due) == ((), scene.now + timedelta(seconds=10))
    scene.accept()
    scene.pass_time(seconds=10)
    assert [claim.run.id for claim in scene.claim(1)] == [early.id]
    assert scene.types(early) == ["scheduled", "enqueued", "executing"]


def test_due_runs_become_queued_though_nobody_claims(scene: Scene) -> None:
    run = scene.accept(due_at=scene.now + timedelta(seconds=10))
    scene.store.exchange([], None, now=scene.pass_time(seconds=10))
    assert scene.get(run).state is RunState.QUEUED


def test_next_due_is_also_when_a_run_that_nobody_may_claim_expires(scene: Scene) -> None:
    """An idle worker would find out when it is told of something else. One that was claimed expires no more."""
    scene.store.pause([Pause(kind="job", name="a", note=None, by="bob", at=scene.now)])
    paused, open = scene.accept("a", expires_s=20), scene.accept("b", expires_s=5)
    exchange = scene.store.exchange([], scene.want(), now=scene.now)
    assert [claim.run.id for claim in exchange.claims] == [open.id]
    assert exchange.next_due == scene.now + timedelta(seconds=20)
    scene.now += timedelta(seconds=20)
    assert scene.store.exchange([], scene.want(), now=scene.now).next_due is None
    assert scene.get(paused).state is RunState.EXPIRED


def test_next_due_is_that_of_the_run_that_waits_for_a_time_longest_first(scene: Scene) -> None:
    for seconds in (50, 30, 40):
        scene.accept(due_at=scene.now + timedelta(seconds=seconds))
    assert scene.store.exchange([], None, now=scene.now).next_due == scene.now + timedelta(seconds=30)
    scene.pass_time(seconds=30)
    assert scene.store.exchange([], scene.want(), now=scene.now).next_due == scene.now + timedelta(seconds=10)


def test_an_expired_run_never_starts(scene: Scene) -> None:
    run = scene.accept(expires_s=5)
    scene.pass_time(seconds=5)
    assert scene.claim() == []
    expired = scene.get(run)
    assert (expired.state, expired.finished_at, expired.attempt) == (RunState.EXPIRED, scene.now, 0)
    assert "expired" in expired.reason
    assert scene.types(run) == ["enqueued", "expired"]


def test_a_run_still_starts_just_before_it_expires(scene: Scene) -> None:
    scene.accept(expires_s=5)
    scene.pass_time(seconds=4.999)
    assert len(scene.claim()) == 1


def test_expiry_bounds_the_first_start_only(scene: Scene) -> None:
    scene.accept(expires_s=5)
    scene.fail_for_now(scene.claim_one(), retries_left=1)
    scene.pass_time(days=1)
    assert scene.claim_one().run.attempt == 2


def test_a_run_given_back_unstarted_still_expires(scene: Scene) -> None:
    run = scene.accept(expires_s=5)
    scene.release(scene.claim_one(), Stopped("interrupted"), started=False)
    scene.pass_time(seconds=5)
    assert scene.claim() == []
    assert scene.get(run).state is RunState.EXPIRED


def test_one_that_expires_before_it_is_due_to_a_late_worker_is_not_queued_first(scene: Scene) -> None:
    run = scene.accept(due_at=scene.now + timedelta(seconds=1), expires_s=5)
    scene.pass_time(seconds=60)
    assert scene.claim() == []
    assert scene.types(run) == ["scheduled", "expired"]


def test_an_exchange_that_changes_nothing_writes_nothing(scene: Scene) -> None:
    scene.accept("b")
    other = scene.another()
    other.changed()
    before = scene.store.last_seq()
    scene.store.exchange([], scene.want(jobs=("a",)), now=scene.now)
    assert not other.changed()
    assert scene.store.last_seq() == before


def test_what_was_settled_and_what_is_claimed_are_one_exchange(scene: Scene) -> None:
    for _ in range(2):
        scene.accept()
    first = scene.claim_one()
    done = scene.settlement(first, Done(), Exited(0))
    exchange = scene.store.exchange([done], scene.want(1), now=scene.now)
    assert scene.get(first).state is RunState.SUCCEEDED
    assert len(exchange.claims) == 1
    last = [event.type for event in scene.events()][-2:]
    assert last == [EventType.COMPLETE, EventType.EXECUTING]


def test_retried_runs_and_new_ones_are_claimed_in_one_order(scene: Scene) -> None:
    """Re-claims are committed apart; that must not let a later run go first."""
    old = scene.accept()
    scene.fail_for_now(scene.claim_one(), retries_left=1)
    new, urgent = scene.accept(), scene.accept(priority=1)
    assert [claim.run.id for claim in scene.claim(3)] == [urgent.id, old.id, new.id]
