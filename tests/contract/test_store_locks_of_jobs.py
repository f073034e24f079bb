"""Locks of jobs: at most one live attempt per key, in order, and never in the way of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from scene import Scene

from hueyctl.model.outcome import Stopped
from hueyctl.model.run import Run, RunState
from hueyctl.storage.store import Claim, Firing, Pause, ScheduleDefinition


def test_one_run_of_a_key_at_a_time_over_jobs_queues_and_workers(scene: Scene) -> None:
    scene.register("w2")
    runs = [scene.accept(job, queue=queue, lock_key="k") for job, queue in (("a", "q"), ("b", "q"), ("a", "r"))]
    for run in runs:
        claim = scene.claim_one()
        assert claim.run.id == run.id
        assert scene.claim() == []
        assert scene.claim(worker="w2") == []
        scene.succeed(claim)


def test_those_of_other_keys_and_of_none_go_on_behind_it(scene: Scene) -> None:
    scene.accept(lock_key="k", priority=9)
    scene.accept(lock_key="k", priority=9)
    others = [scene.accept(lock_key="other"), scene.accept(), scene.accept("b")]
    assert [claim.run.id for claim in scene.claim()][1:] == [run.id for run in others]


def test_keys_take_turns_as_their_runs_have_come_however_many_wait_for_one(scene: Scene) -> None:
    """Two threads and a key with a long line: it has one of them, and no more than its turn of the other."""
    crowd = [scene.accept(lock_key="crowd") for _ in range(9)]
    others = [scene.accept(job, lock_key=key) for key in ("k", "l") for job in ("a", "b")]
    claims = scene.claim(2)
    assert [claim.run.id for claim in claims] == [crowd[0].id, others[0].id]
    order = []
    while claims:
        claim = claims.pop()  # the crowd's ends last
        order.append(claim.run.id)
        scene.succeed(claim)
        claims += scene.claim(1)
    assert order == [*(run.id for run in others), *(run.id for run in crowd)]


def test_the_next_is_the_highest_in_priority_and_the_oldest_within_it(scene: Scene) -> None:
    """Also over lines, and whether it came before the holder was claimed, after it, or while it was let out."""
    holder = scene.accept(lock_key="k", priority=99)
    waiting = [scene.accept(job, lock_key="k", priority=p) for job, p in (("a", 0), ("b", 5), ("a", 5), ("b", 0))]
    claim = scene.claim_one()
    assert claim.run.id == holder.id
    waiting += [scene.accept(job, lock_key="k", priority=p) for job, p in (("c", 9), ("a", 0), ("b", -1))]
    scene.succeed(claim)
    waiting += [scene.accept("c", lock_key="k", priority=5)]
    order = []
    for _ in waiting:
        claim = scene.claim_one()
        assert scene.claim() == []
        order.append(claim.run.id)
        scene.succeed(claim)
    assert order == [run.id for run in sorted(waiting, key=lambda run: (-run.priority, run.n))]


Ending = Callable[[Scene, Claim], object]
ENDINGS: dict[str, Ending] = {
    "succeeded": lambda scene, claim: scene.succeed(claim),
    "failed": lambda scene, claim: scene.fail(claim),
    "retry now": lambda scene, claim: scene.fail_for_now(claim),
    "retry later": lambda scene, claim: scene.fail_for_now(claim, timedelta(minutes=1)),
    "released": lambda scene, claim: scene.release(claim, Stopped("interrupted"), started=True),
    "not taken": lambda scene, claim: scene.release(claim, Stopped("interrupted"), started=False),
    "rescued": lambda scene, claim: scene.store.rescue("w1", cause="silent", now=scene.now),
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_however_an_attempt_ends_its_lock_is_free_with_it(scene: Scene, ending: str) -> None:
    """In the same transaction: the next exchange claims the one that waits (after the run itself, where that is
    queued again, and older)."""
    scene.register("w2")
    holder, waiter = scene.accept(lock_key="k"), scene.accept(lock_key="k")
    [claim] = scene.claim()
    assert scene.get(waiter).gate == "lock:k"
    ENDINGS[ending](scene, claim)
    [again] = scene.claim(worker="w2")
    expected = holder if scene.get(holder).state is RunState.RUNNING else waiter
    assert again.run.id == expected.id
    assert scene.claim(worker="w2") == []
    scene.succeed(again)
    if expected is holder:
        assert [claim.run.id for claim in scene.claim(worker="w2")] == [waiter.id]


def test_a_late_end_of_a_lost_attempt_frees_nothing(scene: Scene) -> None:
    scene.register("w2")
    for _ in range(3):
        scene.accept(lock_key="k")
    old = scene.claim_one()
    scene.store.rescue("w1", cause="silent", now=scene.now)
    [new] = scene.claim(worker="w2")
    assert scene.succeed(old).stale
    assert scene.claim(worker="w2") == []
    scene.succeed(new)


def test_that_a_run_waits_is_recorded_once_in_each_wait(scene: Scene) -> None:
    holder = scene.accept(lock_key="k")
    before, [claim] = scene.accept("b", lock_key="k"), scene.claim()
    after = scene.accept("c", lock_key="k")
    for _ in range(3):
        assert scene.claim() == []
    for run in (before, after):
        [locked] = [event for event in scene.events(run) if event.type == "locked"]
        assert (locked.state, locked.data) == ("queued", {"key": "k", "holder": holder.id})
    scene.succeed(claim)
    second = scene.claim_one()
    assert scene.claim() == []  # the one of job c was let out too, and waits on
    assert [scene.types(run).count("locked") for run in (before, after)] == [1, 1]
    scene.fail_for_now(second, timedelta(minutes=1))
    third = scene.claim_one()
    scene.pass_time(minutes=1)
    assert scene.claim() == []
    assert third.run.id == after.id
    assert scene.types(before) == ["enqueued", "locked", "executing", "error", "retrying", "enqueued", "locked"]


def test_an_exchange_says_that_somebody_was_let_out(scene: Scene) -> None:
    """Its worker may not serve them: the others must be woken."""
    scene.accept(lock_key="k")
    claim = scene.claim_one()
    assert scene.fail_for_now(claim).opened is False
    claim = scene.claim_one()
    scene.accept("b", lock_key="k")
    assert scene.succeed(claim).opened is True


def revoke(scene: Scene, run: Run) -> None:
    scene.store.revoke([run.id], kill=False, by="me", now=scene.now)


def expire(scene: Scene, run: Run) -> None:
    scene.pass_time(minutes=2)


def expire_by_sweep(scene: Scene, run: Run) -> None:
    scene.store.sweep(served=None, now=scene.pass_time(minutes=2))


def hold(scene: Scene, run: Run) -> None:
    scene.store.sweep(served={"*": ("b", "c")}, now=scene.now)


def misfit(scene: Scene, run: Run) -> None:
    [claim] = scene.claim(1, jobs=("a",), admit=lambda each: "it doesn't fit" if each.id == run.id else None)
    scene.release(claim, Stopped("interrupted"), started=False)


@pytest.mark.parametrize("leave", [revoke, expire, expire_by_sweep, hold, misfit])
def test_one_that_was_let_out_and_leaves_unclaimed_lets_the_next_out(
    scene: Scene, leave: Callable[[Scene, Run], None]
) -> None:
    scene.accept("b", lock_key="k")
    first = scene.accept(lock_key="k", expires_s=60)
    second = scene.accept(lock_key="k")
    claim = scene.claim_one(jobs=("b",))
    assert scene.claim(jobs=("a",)) == []
    scene.succeed(claim)
    assert [scene.get(run).gate for run in (first, second)] == [None, "lock:k"]
    leave(scene, first)
    assert scene.claim_one().run.id == second.id
    assert scene.get(first).state in (RunState.REVOKED, RunState.EXPIRED, RunState.HELD)


def test_one_that_is_held_in_a_claim_doesn_t_let_a_younger_one_take_its_place_in_front_of_the_next(
    scene: Scene,
) -> None:
    """Nobody held the lock when the youngest came, so that it stands in its line, and the next one only then comes."""
    scene.accept("b", lock_key="k")
    holder = scene.claim_one()
    misfit, second = scene.accept(lock_key="k"), scene.accept(lock_key="k")
    scene.succeed(holder)
    youngest = scene.accept(lock_key="k")
    [claim] = scene.claim(admit=lambda run: "it doesn't fit" if run.id == misfit.id else None)
    assert claim.run.id == second.id
    scene.succeed(claim)
    assert scene.claim_one().run.id == youngest.id


def test_a_waiting_run_can_be_revoked_and_expires_and_is_retried(scene: Scene) -> None:
    scene.accept(lock_key="k")
    revoked, expired = scene.accept(lock_key="k"), scene.accept(lock_key="k", expires_s=60)
    claim = scene.claim_one()
    assert scene.claim() == []
    scene.store.revoke([revoked.id], kill=False, by="me", now=scene.now)
    scene.store.sweep(served=None, now=scene.pass_time(minutes=2))
    assert [scene.get(run).state for run in (revoked, expired)] == [RunState.REVOKED, RunState.EXPIRED]
    scene.store.retry([revoked.id], by="me", now=scene.now)
    assert scene.claim() == []
    scene.succeed(claim)
    assert scene.claim_one().run.id == revoked.id


def test_a_waiter_whose_job_is_paused_or_unknown_here_keeps_no_other_job_waiting(scene: Scene) -> None:
    claims = []
    scene.accept("b", lock_key="k")
    claims += scene.claim()
    for job in ("a", "c", "b"):
        scene.accept(job, lock_key="k", priority={"a": 9, "c": 8, "b": 0}[job])
    assert scene.claim() == []
    scene.store.pause([Pause(kind="job", name="a", note=None, by="me", at=scene.now)])
    scene.succeed(claims[0])
    [claim] = scene.claim(jobs=("a", "b"))
    assert claim.run.job == "b"
    scene.store.resume("job", "a", by="me", now=scene.now)
    assert scene.claim() == []
    scene.succeed(claim)
    assert [claim.run.job for claim in scene.claim()] == ["a"]


def test_a_thousand_behind_one_lock_keep_those_behind_them_waiting_for_two_transactions(scene: Scene) -> None:
    scene.store.accept([scene.new(lock_key="k") for _ in range(1_500)], by="me", now=scene.now)
    other = scene.accept(lock_key="other")
    exchange = scene.store.exchange([], scene.want(2), now=scene.now)
    assert len(exchange.claims) == 1
    assert exchange.next_due == scene.now
    assert [claim.run.id for claim in scene.claim(1)] == [other.id]


def test_a_run_that_waited_for_its_schedule_waits_for_its_lock_then(scene: Scene) -> None:
    store = scene.store
    store.define_schedules({"s": ScheduleDefinition("r", "w")}, file="f", now=scene.now)

    def fire() -> str:
        slot = scene.pass_time(minutes=1)
        new = scene.new(lock_key="k", schedule="s", slot=slot, trigger="schedule")
        [fired] = store.fire([Firing(schedule="s", definition="w", slot=slot, run=new, overlap="line")], now=slot)
        assert fired.run is not None
        return fired.run

    first = fire()
    claim = scene.claim_one()
    stranger = scene.accept("b", lock_key="k")
    second, third = fire(), fire()
    gates = {run.id: run.gate for run in (store.get(id) for id in (second, third)) if run is not None}
    assert gates == {second: "schedule:s", third: "schedule:s"}
    scene.succeed(claim)
    claim = scene.claim_one()
    assert claim.run.id == stranger.id
    assert scene.claim() == []
    found = store.get(second)
    assert found is not None
    assert found.gate == "lock:k"
    # What waits for a lock is under way for its schedule: the third isn't let out beside it.
    revoked = scene.accept("c", schedule="s")
    scene.store.revoke([revoked.id], kill=False, by="me", now=scene.now)
    found = store.get(third)
    assert found is not None
    assert found.gate == "schedule:s"
    scene.succeed(claim)
    for id in (second, third):
        claim = scene.claim_one()
        assert claim.run.id == id
        assert scene.claim() == []
        scene.succeed(claim)
    assert first != second
