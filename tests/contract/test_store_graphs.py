"""Pipelines of any shape, and single runs beside them, with locks, limits, unique keys, schedules and hooks, under
anything that users, workers, clocks and crashes do: the laws hold after each step, and in the end everything has
succeeded once.

There is no model to agree with here (test_store_machine.py has one for what a single run does), but what must be true
in any state. Hypothesis finds the shortest way to where it isn't; walks by chance come to more places in the same time.

Long form of the walks: GRAPH_WALKS=5000 pytest tests/contract/test_store_graphs.py -k walk
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from scene import Opener, Scene

from hueyctl.model.definition import Retention
from hueyctl.model.hook import Occasion
from hueyctl.model.outcome import Exited, Lost, Stopped
from hueyctl.model.run import LIVE, TERMINAL, Message, NewRun, NewStep, Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry
from hueyctl.storage.store import Claim, Firing, JobPolicy, Pause, RunFilter, ScheduleDefinition, StepRun

S = RunState
WALKS = int(os.environ.get("GRAPH_WALKS", "50"))
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
POLICIES = {
    "a": JobPolicy(retries=1, crash_limit=2),
    "b": JobPolicy(on_worker_lost="fail"),
    "c": JobPolicy(retries=3, max_concurrent=1),
    "alert": JobPolicy(),
}
JOBS = ("a", "b", "c")
WORKERS = ("w1", "w2")
OVERLAPS = ("skip", "queue", "line", "allow", "replace")
ENDS = ("too large", "retry", "final", "final", "release", "give back", "lost")
BAD = TERMINAL - {S.SUCCEEDED}
WORST_FIRST = (S.FAILED, S.EXPIRED, S.REVOKED, S.SKIPPED, S.SUCCEEDED)
TOO_LARGE = "the result has 9 bytes, more than result_max (8)"

which = st.integers(0, 1_000)
workers = st.sampled_from(WORKERS)
# A step is after those of which its bits say so: any graph can be put into an order.
Shape = list[tuple[str, int, int | None, str | None]]
shapes: st.SearchStrategy[Shape] = st.lists(
    st.tuples(
        st.sampled_from(JOBS),
        st.integers(0, 255),
        st.sampled_from([None, None, None, 5]),
        st.sampled_from([None, None, "disk"]),
    ),
    min_size=1,
    max_size=7,
)
# Of a single run: its job, its priority, whether it has the lock of steps, and whether it is unique.
Single = tuple[str, int, bool, bool]
singles: st.SearchStrategy[Single] = st.tuples(
    st.sampled_from(JOBS),
    st.integers(0, 1),
    st.sampled_from([True, True, False]),
    st.sampled_from([False, False, True]),
)


def alert(occasion: Occasion) -> NewRun:
    return NewRun(id=str(uuid.uuid4()), job="alert", message=Message(), trigger="hook")


HOOKS = {"a": alert, "b": alert}
# What they follow.
FOLLOWED = ("complete", "failed", "expired", "held")


class Machine(RuleBasedStateMachine):
    """What can be done to pipelines, and what must be so after each of it."""

    def __init__(self, store_at: Callable[[Path], Opener]) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="hueyctl-graphs-", dir=IN_MEMORY)
        self.scene = Scene(store_at(Path(self.folder.name)))
        # In the order of their making: ids and tokens are random, and an example must mean the same each time.
        self.given: dict[str, NewRun] = {}  # the pipelines that are there, as they were handed in
        self.single: dict[str, NewRun] = {}  # and the single runs
        self.paused: list[str] = []
        self.claims: dict[str, Claim] = {}  # of attempts under way, by token
        self.gone: list[Claim] = []
        self.results: dict[str, bytes] = {}  # of the runs that succeeded
        self.slots = 0

    def teardown(self) -> None:
        try:
            self.each_end_that_has_a_hook_has_it_once()
            self.everything_ends_and_then_succeeds()
            self.each_end_that_has_a_hook_has_it_once()
            self.every_step_has_succeeded_at_most_once()
        finally:
            self.scene.close()
            self.folder.cleanup()

    # -- what is done -----------------------------------------------------------------------------------------------

    def new(self, shape: Shape, **given: Any) -> NewRun:
        steps = tuple(
            NewStep(
                self.scene.new(job, expires_s=expires_s, lock_key=lock_key),
                tuple(at for at in range(position) if after >> at & 1),
            )
            for position, (job, after, expires_s, lock_key) in enumerate(shape)
        )
        return self.scene.new("etl", steps=steps, **given)

    @initialize(shape=shapes, orders=st.lists(singles, max_size=4))
    def begin(self, shape: Shape, orders: list[Single]) -> None:
        for worker in WORKERS:
            self.scene.register(worker)
        self.scene.store.define_schedules(
            {"nightly": ScheduleDefinition("r", "d")}, file="/jobs.toml", now=self.scene.now - timedelta(days=1)
        )
        self.accept(shape)
        self.accept_alone(orders)

    @rule(shape=shapes)
    def accept(self, shape: Shape) -> None:
        new = self.new(shape)
        [accepted] = self.scene.store.accept([new], by="alice@host", now=self.scene.now)
        assert not accepted.existing
        self.given[new.id] = new

    def alone(self, single: Single, **given: Any) -> NewRun:
        job, priority, locked, unique = single
        lock_key, unique_key = "disk" if locked else None, job.encode() if unique else None
        return self.scene.new(job, priority=priority, lock_key=lock_key, unique_key=unique_key, **given)

    @rule(orders=st.lists(singles, min_size=1, max_size=4))
    def accept_alone(self, orders: list[Single]) -> None:
        new = [self.alone(single) for single in orders]
        accepted = self.scene.store.accept(new, by="alice@host", now=self.scene.now)
        self.single |= {each.id: each for each, done in zip(new, accepted, strict=True) if not done.existing}

    @rule(shape=shapes, single=st.none() | singles, overlap=st.sampled_from(OVERLAPS))
    def fire(self, shape: Shape, single: Single | None, overlap: Any) -> None:
        self.slots += 1
        slot = self.scene.now.replace(year=2030) + timedelta(days=self.slots)
        given: dict[str, Any] = {"trigger": "schedule", "schedule": "nightly", "slot": slot}
        new = self.new(shape, **given) if single is None else self.alone(single, **given)
        firing = Firing(schedule="nightly", definition="d", slot=slot, run=new, overlap=overlap)
        [fired] = self.scene.store.fire([firing], now=self.scene.now, hooks=HOOKS)
        if fired.run is not None:
            (self.given if single is None else self.single)[fired.run] = new

    @rule(job=st.sampled_from(JOBS))
    def pause(self, job: str) -> None:
        switch = Pause(kind="job", name=job, note=None, by="alice@host", at=self.scene.now)
        self.scene.store.pause([switch])
        self.paused.append(job)

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        for job in self.paused:
            self.scene.store.resume("job", job, by="alice@host", now=self.scene.now)
        self.paused.clear()

    @rule(worker=workers, limit=st.integers(1, 4), misfit=st.sampled_from([None, None, 0, 1, 2]))
    def claim(self, worker: str, limit: int, misfit: int | None = None) -> None:
        def fits(run: Run) -> bool:
            return run.n % 3 != misfit or run.job == "alert"

        want = self.scene.want(limit, worker, jobs=POLICIES, admit=lambda run: None if fits(run) else "it doesn't fit")
        claims = self.scene.store.exchange([], want, now=self.scene.now, hooks=HOOKS).claims
        for claim in claims:
            self.take(claim)
        waiting = [run for run in self.runs(S.QUEUED) if run.lock_key == "disk" and not waits_for_its_schedule(run)]
        for run in (claim.run for claim in claims if claim.run.lock_key == "disk"):
            before = [each for each in waiting if (-each.priority, each.n) < (-run.priority, run.n)]
            # Only what this worker couldn't take stays behind.
            assert all(each.job in self.paused or each.job == "c" or not fits(each) for each in before)

    @rule()
    def readmit(self) -> None:
        self.scene.store.readmit(list(POLICIES), now=self.scene.now)

    def take(self, claim: Claim) -> None:
        """A claim is of a step whose time has come, with the results of all that it is after; or of a single run."""
        assert claim.run.job not in self.paused
        if claim.pipeline is None:
            assert (claim.run.position, claim.inputs) == (None, ())
            self.claims[claim.token] = claim
            return
        assert claim.run.position is not None
        assert claim.pipeline.state is S.RUNNING
        steps = self.scene.store.steps(claim.pipeline.id)
        before = [steps[at].run for at in self.given[claim.pipeline.id].steps[claim.run.position].after]
        assert all(run.state is S.SUCCEEDED for run in before)
        assert [(each.position, each.job, each.result) for each in claim.inputs] == [
            (run.position, run.job, self.results[run.id]) for run in before
        ]
        self.claims[claim.token] = claim

    @precondition(lambda self: self.claims)
    @rule(number=which)
    def succeed(self, number: int) -> None:
        self.settle(number, "done", 0)

    @precondition(lambda self: self.claims)
    @rule(
        number=which,
        how=st.sampled_from(ENDS),
        delay=st.sampled_from([0, 5]),
    )
    def settle(self, number: int, how: str, delay: int) -> None:
        token = list(self.claims)[number % len(self.claims)]
        claim = self.claims.pop(token)
        self.gone.append(claim)
        result = claim.run.id[:8].encode()
        verdict, outcome = {
            "done": (Done(result), Exited(0)),
            "too large": (Done(None, TOO_LARGE), Exited(0)),
            "retry": (Retry(timedelta(seconds=delay), 1), Exited(3)),
            "final": (Final(), Exited(3)),
            "release": (Release(started=True), Stopped("interrupted")),
            "give back": (Release(started=False), Stopped("interrupted")),
            "lost": (Final(), Lost("the guard died")),
        }[how]
        settlement = self.scene.settlement(claim, verdict, outcome)
        assert self.scene.store.exchange([settlement], None, now=self.scene.now, hooks=HOOKS).stale == ()
        if how == "done":
            self.results[claim.run.id] = result

    @precondition(lambda self: self.gone)
    @rule(number=which)
    def settle_late(self, number: int) -> None:
        late = self.scene.settlement(self.gone[number % len(self.gone)], Done(b"late"), Exited(0))
        assert self.scene.store.exchange([late], None, now=self.scene.now, hooks=HOOKS).stale == (late,)

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        lost = [token for token, claim in self.claims.items() if claim.run.worker == worker]
        given_back = self.scene.store.rescue(worker, cause="its processes are gone", now=self.scene.now, hooks=HOOKS)
        assert {run.id for run in given_back} == {self.claims[token].run.id for token in lost}
        self.gone += [self.claims.pop(token) for token in lost]
        self.scene.register(worker)

    @precondition(lambda self: self.given)
    @rule(number=which, whole=st.booleans(), kill=st.booleans())
    def revoke(self, number: int, whole: bool, kill: bool) -> None:
        run = self.pick(number, whole)
        self.scene.store.revoke([run.id], kill=kill, by="alice@host", now=self.scene.now)
        if whole and run.state in LIVE:
            assert all(step.run.state in TERMINAL | {S.RUNNING} for step in self.scene.store.steps(run.id))

    @precondition(lambda self: self.given)
    @rule(number=which, whole=st.booleans())
    def retry(self, number: int, whole: bool) -> None:
        run = self.pick(number, whole)
        succeeded = self.succeeded(run.pipeline)
        [done] = self.scene.store.retry([run.id], by="alice@host", now=self.scene.now, hooks=HOOKS)
        assert (done.refusal is not None) == (run.state not in BAD or "unique key" in (done.refusal or ""))
        assert self.succeeded(run.pipeline) == succeeded

    @rule(served=st.none() | st.sets(st.sampled_from(sorted(POLICIES))))
    def sweep(self, served: set[str] | None) -> None:
        self.scene.store.sweep(served=None if served is None else {"*": served}, now=self.scene.now, hooks=HOOKS)

    @rule(succeeded=st.sampled_from([0, 60]), failed=st.sampled_from([0, 60]))
    def prune(self, succeeded: int, failed: int) -> None:
        before = {id: [id, *(step.run.id for step in self.scene.store.steps(id))] for id in self.given}
        retention = Retention(
            succeeded=timedelta(seconds=succeeded), failed=timedelta(seconds=failed), events=timedelta(days=9999)
        )
        ended = {run.id for run in self.runs(*TERMINAL)}
        pruned = set(self.scene.store.prune(retention, now=self.scene.now).runs)
        for id, runs in before.items():
            assert pruned.issuperset(runs) or pruned.isdisjoint(runs)
            if not pruned.isdisjoint(runs):
                assert id in ended
                del self.given[id]
        assert pruned <= ended
        for id in pruned & self.single.keys():
            del self.single[id]

    @rule(seconds=st.sampled_from([1, 5, 60, -5]))
    def pass_time(self, seconds: int) -> None:
        self.scene.pass_time(seconds=seconds)

    def pick(self, number: int, whole: bool) -> Run:
        """A pipeline, or one of the steps of one, or a single run."""
        found = [*self.given, *self.single]
        run = self.run(found[number % len(found)])
        steps = self.scene.store.steps(run.id)
        return run if whole or not steps else steps[number % len(steps)].run

    def runs(self, *states: S) -> list[Run]:
        return self.scene.store.runs(RunFilter(states=states), limit=None)

    def run(self, id: str) -> Run:
        found = self.scene.store.get(id)
        assert found is not None
        return found

    def succeeded(self, pipeline: str | None) -> set[str]:
        steps = () if pipeline is None else self.scene.store.steps(pipeline)
        return {step.run.id for step in steps if step.run.state is S.SUCCEEDED}

    # -- what must be true: after each step what may be made good later, at the end what can't be ---------------------

    @invariant()
    def each_step_is_where_those_before_it_let_it_be(self) -> None:
        for id, new in self.given.items():
            pipeline, steps = self.run(id), self.scene.store.steps(id)
            assert [step.after for step in steps] == [step.after for step in new.steps]
            for step in steps:
                before = [steps[at].run for at in step.after]
                self.check_step(step, before, gated=pipeline.gate is not None)
            self.check_whole(pipeline, [step.run for step in steps])

    def check_step(self, step: StepRun, before: list[Run], *, gated: bool) -> None:
        run, ends = step.run, {run.state for run in before}
        if run.state in {S.QUEUED, S.SCHEDULED, S.RUNNING, S.HELD, S.SUCCEEDED} or run.attempt:
            assert ends <= {S.SUCCEEDED}
        if run.state in {S.QUEUED, S.SCHEDULED, S.RUNNING}:
            assert not gated
            assert all(each.result_error is None for each in before)
        if run.state is S.WAITING:
            # It is after something that is still to come, and so on down to what doesn't wait: not for ever.
            assert not ends & BAD
            assert gated or ends & LIVE
            assert run.expires_at is None
        if run.state is S.SKIPPED:
            assert ends & BAD
            reasons = {each.reason if each.state is S.SKIPPED else self.told(each) for each in before}
            assert run.reason in reasons

    def told(self, run: Run) -> str:
        assert run.position is not None
        how = {S.FAILED: f"failed: {run.reason}", S.EXPIRED: "expired", S.REVOKED: "was revoked"}.get(run.state, "")
        return f"step {run.position + 1} ({run.job}) {how}"

    def check_whole(self, pipeline: Run, steps: list[Run]) -> None:
        states = {run.state for run in steps}
        if states & LIVE:
            assert pipeline.state in {S.WAITING, S.RUNNING}
            assert pipeline.state is S.RUNNING or S.RUNNING not in states
        else:
            assert pipeline.state is next(state for state in WORST_FIRST if state in states)
        assert (pipeline.attempt, pipeline.worker, pipeline.token) == (0, None, None)

    @invariant()
    def a_schedule_s_run_waits_only_while_another_is_under_way(self) -> None:
        live = [run for run in self.runs(*LIVE) if run.schedule]
        assert not live or not all(map(waits_for_its_schedule, live))

    @invariant()
    def a_lock_has_one_holder_and_nobody_waits_for_one_that_is_free(self) -> None:
        holders = [claim.run for claim in self.claims.values() if claim.run.lock_key == "disk"]
        assert len(holders) <= 1
        holder = self.scene.store.lock_holder("disk")
        assert (holder and holder.run) == (holders[0].id if holders else None)
        waiting, let_out = set(), set()
        for run in self.runs(S.QUEUED):
            if run.lock_key == "disk" and not waits_for_its_schedule(run):
                (let_out if run.gate is None else waiting).add((run.queue, run.job))
        assert holders or waiting <= let_out  # in each line the first of them can be claimed, and is the next to be

    @invariant()
    def no_more_run_than_may(self) -> None:
        assert sum(claim.run.job == "c" for claim in self.claims.values()) <= 1

    def each_end_that_has_a_hook_has_it_once(self) -> None:
        ends, hooks = Counter[str | None](), Counter[str | None]()
        for event in self.scene.events():
            if event.job in HOOKS:
                ends[event.run] += event.type in FOLLOWED
                hooks[event.run] += event.type == "hook"
        assert hooks == ends

    def every_step_has_succeeded_at_most_once(self) -> None:
        ended: dict[str, list[str]] = defaultdict(list)
        for event in self.scene.events():
            if event.run is not None and event.type not in ("stale", "hook") and event.run not in self.given:
                ended[event.run].append(event.type)
        assert all("complete" not in types[:-1] for types in ended.values())

    @invariant()
    def the_history_is_true(self) -> None:
        self.scene.check_history()

    def everything_ends_and_then_succeeds(self) -> None:
        """Left to workers that do their work, every pipeline ends; and a retry of those that ended badly is enough for
        all to succeed, but for what can't be handed on."""
        for _ in range(2):
            self.work()
            for id in (*self.given, *self.single):
                assert self.run(id).state in TERMINAL
            ids = sorted((*self.given, *self.single))
            self.scene.store.retry(ids, by="alice@host", now=self.scene.now, hooks=HOOKS)
        self.work()
        for id in self.single:
            assert self.run(id).state is S.SUCCEEDED or self.single[id].unique_key
        for id in self.given:
            steps = [step.run for step in self.scene.store.steps(id)]
            lacking = [run for run in steps if run.state is not S.SUCCEEDED]
            assert not lacking or any(run.result_error for run in steps)
        self.scene.check_history()

    def work(self) -> None:
        self.resume()
        self.scene.store.sweep(served={"*": list(POLICIES)}, now=self.scene.now, hooks=HOOKS)
        self.readmit()
        for _ in range(1_000):
            while self.claims:
                self.succeed(0)
            self.claim("w1", 10)
            if self.claims:
                continue
            if not self.scene.store.next_up(limit=1):
                return
            self.scene.pass_time(seconds=1)  # only now: of many behind one lock the last would expire
        raise AssertionError("it never came to an end")


def waits_for_its_schedule(run: Run) -> bool:
    return run.gate is not None and run.gate.startswith("schedule:")


@pytest.mark.timeout(900)  # of which a failure takes most, to find its shortest form
def test_the_laws_of_the_graph_hold_whatever_happens(store_at: Callable[[Path], Opener], share: float) -> None:
    run_state_machine_as_test(
        lambda: Machine(store_at),
        settings=settings(
            max_examples=round(40 * share),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.parametrize("seed", range(WALKS))
def test_the_laws_hold_on_every_step_of_a_walk(store_at: Callable[[Path], Opener], seed: int) -> None:
    draw = Random(seed)
    machine = Machine(store_at)
    try:
        machine.begin(any_shape(draw), any_singles(draw))
        for _ in range(60):
            take_a_step(machine, draw)
            machine.each_step_is_where_those_before_it_let_it_be()
            machine.a_schedule_s_run_waits_only_while_another_is_under_way()
            machine.a_lock_has_one_holder_and_nobody_waits_for_one_that_is_free()
            machine.no_more_run_than_may()
            machine.the_history_is_true()
    finally:
        machine.teardown()


def take_a_step(machine: Machine, draw: Random) -> None:
    """Mostly what lets runs come and go."""
    worker, number, either = draw.choice(WORKERS), draw.randrange(1_000), draw.random() < 0.5
    steps: dict[Callable[[], object], int] = {
        lambda: machine.accept(any_shape(draw)): 2,
        lambda: machine.accept_alone(any_singles(draw)): 3,
        lambda: machine.fire(any_shape(draw), any_singles(draw)[0] if either else None, draw.choice(OVERLAPS)): 2,
        lambda: machine.claim(worker, draw.randint(1, 4), draw.choice([None, None, 0, 1, 2])): 10,
        lambda: machine.claims and machine.succeed(number): 6,
        lambda: machine.claims and machine.settle(number, draw.choice(ENDS), draw.choice([0, 5])): 6,
        lambda: machine.gone and machine.settle_late(number): 1,
        lambda: machine.die(worker): 1,
        lambda: machine.given and machine.revoke(number, draw.random() < 0.3, either): 3,
        lambda: machine.given and machine.retry(number, either): 2,
        lambda: machine.pause(draw.choice(JOBS)): 1,
        machine.resume: 2,
        lambda: machine.sweep({job for job in POLICIES if draw.random() < 0.7} if either else None): 1,
        machine.readmit: 1,
        lambda: machine.prune(draw.choice([0, 60]), draw.choice([0, 60])): 1,
        lambda: machine.pass_time(draw.choice([1, 5, 60, -5])): 2,
    }
    [step] = draw.choices(list(steps), list(steps.values()))
    step()


def any_shape(draw: Random) -> Shape:
    def one() -> tuple[str, int, int | None, str | None]:
        return (
            draw.choice(JOBS),
            draw.getrandbits(8),
            draw.choice([None, None, None, 5]),
            draw.choice([None, None, "disk"]),
        )

    return [one() for _ in range(draw.randint(1, 6))]


def any_singles(draw: Random) -> list[Single]:
    def one() -> Single:
        return draw.choice(JOBS), draw.randint(0, 1), draw.random() < 0.7, draw.random() < 0.3

    return [one() for _ in range(draw.randint(1, 4))]
