"""Pipelines of any shape under anything that users, workers, clocks and crashes do: the laws of the graph hold after
each step, and in the end everything has succeeded once.

There is no model to agree with here (test_store_machine.py has one for what a single run does), but what must be true
of any pipeline in any state.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
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
from hueyctl.model.outcome import Exited, Lost, Stopped
from hueyctl.model.run import LIVE, TERMINAL, NewRun, NewStep, Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry
from hueyctl.storage.store import Claim, Firing, JobPolicy, ScheduleDefinition, StepRun

S = RunState
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
POLICIES = {"a": JobPolicy(retries=1, crash_limit=2), "b": JobPolicy(on_worker_lost="fail"), "c": JobPolicy(retries=3)}
WORKERS = ("w1", "w2")
BAD = TERMINAL - {S.SUCCEEDED}
WORST_FIRST = (S.FAILED, S.EXPIRED, S.REVOKED, S.SKIPPED, S.SUCCEEDED)
TOO_LARGE = "the result has 9 bytes, more than result_max (8)"

which = st.integers(0, 1_000)
workers = st.sampled_from(WORKERS)
# A step is after those of which its bits say so: any graph can be put into an order.
Shape = list[tuple[str, int, int | None, str | None]]
shapes: st.SearchStrategy[Shape] = st.lists(
    st.tuples(
        st.sampled_from(sorted(POLICIES)),
        st.integers(0, 255),
        st.sampled_from([None, None, None, 5]),
        st.sampled_from([None, None, "disk"]),
    ),
    min_size=1,
    max_size=7,
)


class Machine(RuleBasedStateMachine):
    """What can be done to pipelines, and what must be so after each of it."""

    def __init__(self, store_at: Callable[[Path], Opener]) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="hueyctl-graphs-", dir=IN_MEMORY)
        self.scene = Scene(store_at(Path(self.folder.name)))
        # In the order of their making: ids and tokens are random, and an example must mean the same each time.
        self.given: dict[str, NewRun] = {}  # the pipelines that are there, as they were handed in
        self.claims: dict[str, Claim] = {}  # of attempts under way, by token
        self.gone: list[Claim] = []
        self.results: dict[str, bytes] = {}  # of the runs that succeeded
        self.slots = 0

    def teardown(self) -> None:
        try:
            self.everything_ends_and_then_succeeds()
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

    @initialize(shape=shapes)
    def begin(self, shape: Shape) -> None:
        for worker in WORKERS:
            self.scene.register(worker)
        self.scene.store.define_schedules(
            {"nightly": ScheduleDefinition("r", "d")}, file="/jobs.toml", now=self.scene.now - timedelta(days=1)
        )
        self.accept(shape)

    @rule(shape=shapes)
    def accept(self, shape: Shape) -> None:
        new = self.new(shape)
        [accepted] = self.scene.store.accept([new], by="alice@host", now=self.scene.now)
        assert not accepted.existing
        self.given[new.id] = new

    @rule(shape=shapes, overlap=st.sampled_from(["skip", "queue", "line", "allow", "replace"]))
    def fire(self, shape: Shape, overlap: Any) -> None:
        self.slots += 1
        slot = self.scene.now.replace(year=2030) + timedelta(days=self.slots)
        new = self.new(shape, trigger="schedule", schedule="nightly", slot=slot)
        firing = Firing(schedule="nightly", definition="d", slot=slot, run=new, overlap=overlap)
        [fired] = self.scene.store.fire([firing], now=self.scene.now)
        if fired.run is not None:
            self.given[fired.run] = new

    @rule(worker=workers, limit=st.integers(1, 4))
    def claim(self, worker: str, limit: int) -> None:
        want = self.scene.want(limit, worker, jobs=POLICIES)
        for claim in self.scene.store.exchange([], want, now=self.scene.now).claims:
            self.take(claim)

    def take(self, claim: Claim) -> None:
        """A claim is of a step whose time has come, with the results of all that it is after."""
        assert claim.pipeline is not None
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
        how=st.sampled_from(["too large", "retry", "final", "final", "release", "give back", "lost"]),
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
        assert self.scene.store.exchange([settlement], None, now=self.scene.now).stale == ()
        if how == "done":
            self.results[claim.run.id] = result

    @precondition(lambda self: self.gone)
    @rule(number=which)
    def settle_late(self, number: int) -> None:
        late = self.scene.settlement(self.gone[number % len(self.gone)], Done(b"late"), Exited(0))
        assert self.scene.store.exchange([late], None, now=self.scene.now).stale == (late,)

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        lost = [token for token, claim in self.claims.items() if claim.run.worker == worker]
        given_back = self.scene.store.rescue(worker, cause="its processes are gone", now=self.scene.now)
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
        assert run.pipeline is not None
        succeeded = self.succeeded(run.pipeline)
        [done] = self.scene.store.retry([run.id], by="alice@host", now=self.scene.now)
        assert (done.refusal is not None) == (run.state not in BAD)
        assert self.succeeded(run.pipeline) == succeeded

    @rule(served=st.none() | st.sets(st.sampled_from(sorted(POLICIES))))
    def sweep(self, served: set[str] | None) -> None:
        self.scene.store.sweep(served=None if served is None else {"*": served}, now=self.scene.now)

    @rule(succeeded=st.sampled_from([0, 60]), failed=st.sampled_from([0, 60]))
    def prune(self, succeeded: int, failed: int) -> None:
        before = {id: [id, *(step.run.id for step in self.scene.store.steps(id))] for id in self.given}
        retention = Retention(
            succeeded=timedelta(seconds=succeeded), failed=timedelta(seconds=failed), events=timedelta(days=9999)
        )
        ended = {id for id in self.given if self.scene.get(self.run(id)).state in TERMINAL}
        pruned = set(self.scene.store.prune(retention, now=self.scene.now).runs)
        for id, runs in before.items():
            assert pruned.issuperset(runs) or pruned.isdisjoint(runs)
            if not pruned.isdisjoint(runs):
                assert id in ended
                del self.given[id]

    @rule(seconds=st.sampled_from([1, 5, 60, -5]))
    def pass_time(self, seconds: int) -> None:
        self.scene.pass_time(seconds=seconds)

    def pick(self, number: int, whole: bool) -> Run:
        pipeline = self.run(list(self.given)[number % len(self.given)])
        steps = self.scene.store.steps(pipeline.id)
        return pipeline if whole else steps[number % len(steps)].run

    def run(self, id: str) -> Run:
        found = self.scene.store.get(id)
        assert found is not None
        return found

    def succeeded(self, pipeline: str) -> set[str]:
        return {step.run.id for step in self.scene.store.steps(pipeline) if step.run.state is S.SUCCEEDED}

    # -- what must be true ------------------------------------------------------------------------------------------

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
    def a_schedule_s_pipeline_waits_only_while_another_is_under_way(self) -> None:
        live = [run for run in map(self.run, self.given) if run.schedule and run.state in LIVE]
        assert not live or any(run.gate is None for run in live)

    @invariant()
    def every_step_has_succeeded_at_most_once(self) -> None:
        ended: dict[str, list[str]] = defaultdict(list)
        for event in self.scene.events():
            if event.run is not None and event.type != "stale" and event.run not in self.given:
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
            for id in self.given:
                assert self.run(id).state in TERMINAL
            self.scene.store.retry(sorted(self.given), by="alice@host", now=self.scene.now)
        self.work()
        for id in self.given:
            steps = [step.run for step in self.scene.store.steps(id)]
            lacking = [run for run in steps if run.state is not S.SUCCEEDED]
            assert not lacking or any(run.result_error for run in steps)
        self.scene.check_history()

    def work(self) -> None:
        self.scene.store.sweep(served={"*": list(POLICIES)}, now=self.scene.now)
        self.scene.store.readmit(list(POLICIES), now=self.scene.now)
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


@pytest.mark.timeout(900)  # of which a failure takes most, to find its shortest form
def test_the_laws_of_the_graph_hold_whatever_happens(store_at: Callable[[Path], Opener]) -> None:
    run_state_machine_as_test(
        lambda: Machine(store_at),
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
