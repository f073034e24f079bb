"""A store against a small model of itself: whatever is done to it, in whatever order, it keeps to the model.

Hypothesis makes up what users, workers, clocks and crashes do; after each step the runs, their counts and their events
must be those that the model has.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

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

from hueyctl.errors import Refused
from hueyctl.model.definition import Retention
from hueyctl.model.hook import Hooks, Occasion
from hueyctl.model.outcome import AnyOutcome, Exited, Lost, Stopped
from hueyctl.model.run import LIVE, TERMINAL, NewRun, Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry, Settlement, Verdict
from hueyctl.storage.store import EventFilter, JobPolicy, Pause, RunFilter

S = RunState
# Thousands of steps, most of them synced: what a disk does with them is looked at elsewhere.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
POLICIES = {
    "a": JobPolicy(retries=1, crash_limit=2),
    "b": JobPolicy(on_worker_lost="fail"),
    "c": JobPolicy(retries=3),
}
JOBS, QUEUES, WORKERS = tuple(POLICIES), ("q1", "q2"), ("w1", "w2")
NOT_STARTED = (S.SCHEDULED, S.QUEUED, S.HELD)

# What a hook follows, once for each; jobs `a` and `c` have one.
FOLLOWED = {"complete", "failed", "expired", "held"}


def no_run(occasion: Occasion) -> NewRun | None:
    """A hook that leaves its event alone."""
    raise RuntimeError("not today")


HOOKS: Hooks = {"a": no_run, "c": no_run}

jobs = st.sampled_from(JOBS)
queues = st.sampled_from(QUEUES)
workers = st.sampled_from(WORKERS)
some_jobs = st.sets(jobs, min_size=1).map(sorted)
seconds = st.sampled_from([0, 1, 5, 60])
which = st.integers(0, 1_000)
Order = tuple[str, str, int, int, int | None, bool]
orders = st.tuples(
    jobs, queues, st.integers(-1, 1), st.sampled_from([0, 0, 1, 5]), st.sampled_from([None, None, 3, 30]), st.booleans()
)


@dataclass
class ModelRun:
    """A run as the documentation has it."""

    id: str
    n: int
    job: str
    queue: str
    priority: int
    due: datetime
    expires_s: int | None
    unique: bool
    state: S = S.QUEUED
    expires: datetime | None = None
    attempt: int = 0
    retries_left: int | None = None
    losses: int = 0
    worker: str | None = None
    token: str | None = None
    revoking: bool = False
    hold: str = ""
    finished: datetime | None = None


class Machine(RuleBasedStateMachine):
    """What can be done to a store, done to it and to the model."""

    def __init__(self, store_at: Callable[[Path], Opener]) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="hueyctl-machine-", dir=IN_MEMORY)
        self.scene = Scene(store_at(Path(self.folder.name)))
        self.model: dict[str, ModelRun] = {}
        self.known: set[str] = set()
        self.paused: set[tuple[str, str]] = set()
        self.claimed: dict[str, Run] = {}  # what each claim gave, by its token
        self.gone: list[tuple[int, str, str]] = []  # (n, token, run) of attempts that are settled or rescued
        self.n = 0
        # What the events of each run must be since they were looked at last; and those that are of no run.
        self.told: dict[str | None, list[tuple[str, str | None, int | None]]] = defaultdict(list)
        self.seq = 0

    def teardown(self) -> None:
        self.scene.close()
        self.folder.cleanup()

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.scene.now

    def runs_in(self, *states: S) -> list[ModelRun]:
        return [run for run in self.model.values() if run.state in states]

    def pick(self, number: int, *states: S) -> ModelRun:
        found = self.runs_in(*states)
        return found[number % len(found)]

    def tell(self, run: ModelRun, *events: str) -> None:
        hooked = ["hook"] if run.job in HOOKS and FOLLOWED.intersection(events) else []
        self.told[run.id] += [(event, run.state.value, run.attempt or None) for event in (*events, *hooked)]

    def end(self, run: ModelRun, state: S, *events: str) -> None:
        run.state, run.finished, run.token, run.revoking, run.hold = state, self.now, None, False, ""
        self.tell(run, *events)

    def wait_again(self, run: ModelRun, state: S, *events: str) -> None:
        run.state, run.token, run.worker = state, None, None
        self.tell(run, *events)

    def forget_token(self, run: ModelRun) -> None:
        assert run.token is not None
        self.gone.append((run.n, run.token, run.id))

    def lose(self, run: ModelRun) -> None:
        self.forget_token(run)
        run.losses, run.expires = run.losses + 1, None
        policy = POLICIES[run.job]
        if run.revoking:
            self.end(run, S.REVOKED, "lost", "revoked")
        elif policy.on_worker_lost == "fail" or run.losses >= policy.crash_limit:
            self.end(run, S.FAILED, "lost", "failed")
        else:
            self.wait_again(run, S.QUEUED, "lost")

    def expire(self) -> None:
        for run in self.runs_in(*NOT_STARTED):
            if run.expires is not None and run.expires <= self.now:
                self.end(run, S.EXPIRED, "expired")

    def let_time_pass(self) -> None:
        self.expire()
        for run in self.runs_in(S.SCHEDULED):
            if run.due <= self.now:
                run.state = S.QUEUED
                self.tell(run, "enqueued")

    def next_due(self) -> datetime | None:
        waiting = self.runs_in(S.WAITING, S.SCHEDULED, S.QUEUED, S.HELD)
        times = [run.due for run in self.runs_in(S.SCHEDULED)] + [run.expires for run in waiting if run.expires]
        return min(times, default=None)

    # -- users ------------------------------------------------------------------------------------------------------

    @initialize(orders=st.lists(orders, min_size=3, max_size=6))
    def begin(self, orders: list[Order]) -> None:
        for worker in WORKERS:
            self.register(worker)
        self.accept(orders)

    @rule(orders=st.lists(orders, min_size=1, max_size=4))
    def accept(self, orders: list[Order]) -> None:
        new, expected = [], []
        for job, queue, priority, delay, expires_s, unique in orders:
            due = self.now + timedelta(seconds=delay)
            run = ModelRun(str(uuid.uuid4()), 0, job, queue, priority, due, expires_s, unique)
            run.state = S.SCHEDULED if delay else S.QUEUED
            run.expires = None if expires_s is None else due + timedelta(seconds=expires_s)
            given = {"id": run.id, "queue": queue, "priority": priority, "due_at": due, "expires_s": expires_s}
            new.append(self.scene.new(job, **given, unique_key=job.encode() if unique else None))
            standing = [each for each in self.runs_in(*LIVE) if unique and each.unique and each.job == job]
            expected.append(standing[0].id if standing else run.id)
            if not standing:
                self.n += 1
                run.n = self.n
                self.model[run.id] = run
                self.tell(run, "scheduled" if delay else "enqueued")
        accepted = self.scene.store.accept(new, by="alice@host", now=self.now)
        assert [each.run.id for each in accepted] == expected
        assert [each.existing for each in accepted] == [each.id != id for each, id in zip(new, expected, strict=True)]

    @precondition(lambda self: self.model)
    @rule(number=which, job=jobs)
    def accept_again(self, number: int, job: str) -> None:
        run = self.pick(number, *S)
        again = self.scene.new(job, id=run.id, given_id=True)
        if job == run.job:
            [accepted] = self.scene.store.accept([again], by="alice@host", now=self.now)
            assert (accepted.run.id, accepted.existing) == (run.id, True)
        else:
            # All or nothing: what comes before it in the batch is refused with it.
            with pytest.raises(Refused):
                self.scene.store.accept([self.scene.new("a"), again], by="alice@host", now=self.now)

    @precondition(lambda self: self.model)
    @rule(numbers=st.lists(which, min_size=1, max_size=3), kill=st.booleans())
    def revoke(self, numbers: list[int], kill: bool) -> None:
        ids = [self.pick(number, *S).id for number in numbers]
        expected = []
        for id in ids:
            run = self.model[id]
            if run.state in TERMINAL:
                expected.append("ended")
            elif run.state is not S.RUNNING:
                expected.append("revoked")
                self.end(run, S.REVOKED, "revoked")
            elif kill:
                expected.append("requested")
                if not run.revoking:
                    run.revoking = True
                    self.tell(run, "revoke-requested")
            else:
                expected.append("running")
        done = self.scene.store.revoke(ids, kill=kill, by="alice@host", now=self.now)
        assert [each.effect for each in done] == expected

    @precondition(lambda self: self.model)
    @rule(number=which)
    def retry(self, number: int) -> None:
        run = self.pick(number, *S)
        live = any(each.unique and each.job == run.job for each in self.runs_in(*LIVE))
        refused = run.state not in TERMINAL or run.state is S.SUCCEEDED or (run.unique and live)
        [done] = self.scene.store.retry([run.id], by="alice@host", now=self.now)
        assert (done.refusal is not None) == refused
        if not refused:
            run.state, run.due, run.retries_left, run.losses = S.QUEUED, self.now, None, 0
            run.expires = None if run.expires_s is None else self.now + timedelta(seconds=run.expires_s)
            run.worker = run.finished = None
            self.tell(run, "retried")

    @rule(kind=st.sampled_from(["job", "queue", "queue", "all"]), job=jobs, queue=queues)
    def pause(self, kind: str, job: str, queue: str) -> None:
        name = {"all": "", "job": job, "queue": queue}[kind]
        self.scene.store.pause([Pause(kind=kind, name=name, note=None, by="alice@host", at=self.now)])
        self.paused.add((kind, name))
        self.told[None].append(("paused", None, None))

    @precondition(lambda self: self.paused)
    @rule(number=which)
    def resume(self, number: int) -> None:
        kind, name = sorted(self.paused)[number % len(self.paused)]
        assert self.scene.store.resume(kind, name, by="alice@host", now=self.now)
        assert not self.scene.store.resume(kind, name, by="alice@host", now=self.now)
        self.paused.remove((kind, name))
        self.told[None].append(("resumed", None, None))

    # -- workers ----------------------------------------------------------------------------------------------------

    def register(self, worker: str) -> None:
        self.scene.register(worker)
        self.told[None].append(("reloaded" if worker in self.known else "worker-online", None, None))
        self.known.add(worker)

    @rule(worker=workers, how=st.sampled_from(["start", "beat", "die"]))
    def live(self, worker: str, how: str) -> None:
        if how == "start":
            self.register(worker)
        elif how == "beat":
            assert self.scene.store.beat(worker, running=0, now=self.now) == (worker in self.known)
        else:
            self.rescue(worker)
            self.rescue(worker)  # twice does no harm

    @rule(worker=workers, limit=st.integers(1, 3))
    def claim_all(self, worker: str, limit: int) -> None:
        self.claim(worker, limit, list(JOBS), None, None)

    @rule(
        worker=workers,
        limit=st.integers(0, 4),
        jobs=some_jobs,
        only=st.sampled_from([None, None, *((queue,) for queue in QUEUES)]),
        misfit=st.sampled_from([None, None, None, *JOBS]),
    )
    def claim(self, worker: str, limit: int, jobs: list[str], only: tuple[str, ...] | None, misfit: str | None) -> None:
        want = self.scene.want(
            limit,
            worker,
            jobs={job: POLICIES[job] for job in jobs},
            queues=only,
            admit=lambda run: "it doesn't fit" if run.job == misfit else None,
        )
        exchange = self.scene.store.exchange([], want, now=self.now, hooks=HOOKS)
        self.let_time_pass()
        expected = self._take(worker, limit, jobs, only, misfit) if worker in self.known else []
        assert [claim.run.id for claim in exchange.claims] == [run.id for run in expected]
        for claim, run in zip(exchange.claims, expected, strict=True):
            run.token = claim.token
            self.claimed[claim.token] = claim.run
        assert exchange.next_due == self.next_due()

    def _take(
        self, worker: str, limit: int, jobs: list[str], only: tuple[str, ...] | None, misfit: str | None
    ) -> list[ModelRun]:
        taken: list[ModelRun] = []
        for run in sorted(self.runs_in(S.QUEUED), key=lambda run: (-run.priority, run.n)):
            closed = {("all", ""), ("job", run.job), ("queue", run.queue)} & self.paused
            if run.job not in jobs or closed or (only is not None and run.queue not in only):
                continue
            if len(taken) == limit:
                break
            if run.job == misfit:
                run.state, run.hold = S.HELD, "misfit"
                self.tell(run, "held")
                continue
            run.state, run.attempt, run.worker = S.RUNNING, run.attempt + 1, worker
            run.retries_left = POLICIES[run.job].retries if run.retries_left is None else run.retries_left
            self.tell(run, "executing")
            taken.append(run)
        return taken

    def settlement(self, n: int, token: str, verdict: Verdict, outcome: AnyOutcome, known: bool) -> Settlement:
        """Of someone who knows what the claim gave, as a worker does, or knows the token alone."""
        claimed = self.claimed[token] if known else None
        return Settlement(n=n, token=token, verdict=verdict, outcome=outcome, ended_at=self.now, claimed=claimed)

    @precondition(lambda self: self.runs_in(S.RUNNING))
    @rule(number=which, known=st.booleans())
    def succeed(self, number: int, known: bool) -> None:
        self.settle(number, "done", 0, known)

    @precondition(lambda self: self.runs_in(S.RUNNING))
    @rule(
        number=which,
        how=st.sampled_from(["retry", "final", "release", "give back", "lost"]),
        delay=seconds,
        known=st.booleans(),
    )
    def settle(self, number: int, how: str, delay: int, known: bool) -> None:
        run = self.pick(number, S.RUNNING)
        stopped = Stopped("interrupted")
        verdict, outcome = {
            "done": (Done(b"ok"), Exited(0)),
            "retry": (Retry(timedelta(seconds=delay), 7), Exited(3)),
            "final": (Final(), Exited(3)),
            "release": (Release(started=True), stopped),
            "give back": (Release(started=False), stopped),
            "lost": (Final(), Lost("the guard died")),
        }[how]
        assert run.token is not None
        settlement = self.settlement(run.n, run.token, verdict, outcome, known)
        exchange = self.scene.store.exchange([settlement], None, now=self.now, hooks=HOOKS)
        assert exchange.stale == ()
        if how == "lost":
            self.lose(run)
        else:
            self._settle(run, how, delay)
        self.let_time_pass()

    def _settle(self, run: ModelRun, how: str, delay: int) -> None:
        self.forget_token(run)
        first = {"retry": "error", "final": "error", "release": "interrupted", "give back": "released"}.get(how, "")
        if how != "give back" or run.revoking:
            run.expires = None
        if how == "done":
            self.end(run, S.SUCCEEDED, "complete")
        elif run.revoking:
            self.end(run, S.REVOKED, first, "revoked")
        elif how == "final" or (how == "release" and POLICIES[run.job].on_worker_lost == "fail"):
            self.end(run, S.FAILED, first, "failed")
        elif how == "retry":
            run.due, run.retries_left = self.now + timedelta(seconds=delay), 7
            self.wait_again(run, S.SCHEDULED if delay else S.QUEUED, first, "retrying")
        else:
            self.wait_again(run, S.QUEUED, first)

    @precondition(lambda self: self.gone)
    @rule(number=which, known=st.booleans())
    def settle_late(self, number: int, known: bool) -> None:
        n, token, id = self.gone[number % len(self.gone)]
        late = self.settlement(n, token, Done(b"late"), Exited(0), known)
        assert self.scene.store.exchange([late], None, now=self.now, hooks=HOOKS).stale == (late,)
        run = self.model.get(id)
        if run is None:
            self.told[None].append(("stale", None, None))
        else:
            self.tell(run, "stale")
        self.let_time_pass()

    def rescue(self, worker: str) -> None:
        lost = [run for run in self.runs_in(S.RUNNING) if run.worker == worker]
        given_back = self.scene.store.rescue(worker, cause="its processes are gone", now=self.now, hooks=HOOKS)
        assert [run.id for run in given_back] == [run.id for run in lost]
        for run in lost:
            self.lose(run)
        if worker in self.known:
            self.known.remove(worker)
            self.told[None].append(("worker-offline", None, None))

    # -- upkeep, time and crashes -----------------------------------------------------------------------------------

    @rule(served=st.none() | st.dictionaries(st.sampled_from(["*", *QUEUES]), some_jobs))
    def sweep(self, served: dict[str, list[str]] | None) -> None:
        self.scene.store.sweep(served=served, now=self.now, hooks=HOOKS)
        self.expire()
        for run in self.runs_in(S.QUEUED, S.HELD) if served is not None else []:
            defined = run.job in served.get(run.queue, ()) or run.job in served.get("*", ())
            if run.state is S.QUEUED and not defined and (run.queue in served or "*" in served):
                run.state, run.hold = S.HELD, "undefined"
                self.tell(run, "held")
            elif run.state is S.HELD and defined and run.hold == "undefined":
                run.state, run.hold = S.QUEUED, ""
                self.tell(run, "released")

    @rule(jobs=some_jobs)
    def readmit(self, jobs: list[str]) -> None:
        fitting = [run for run in self.runs_in(S.HELD) if run.hold == "misfit" and run.job in jobs]
        assert self.scene.store.readmit(jobs, now=self.now) == len(fitting)
        for run in fitting:
            run.state, run.hold = S.QUEUED, ""
            self.tell(run, "released")

    @rule(succeeded=seconds, failed=seconds)
    def prune(self, succeeded: int, failed: int) -> None:
        retention = Retention(
            succeeded=timedelta(seconds=succeeded), failed=timedelta(seconds=failed), events=timedelta(days=9999)
        )
        old = set()
        for run in self.runs_in(*TERMINAL):
            kept = succeeded if run.state is S.SUCCEEDED else failed
            if run.finished is not None and run.finished < self.now - timedelta(seconds=kept):
                old.add(run.id)
                del self.model[run.id]
        pruned = self.scene.store.prune(retention, now=self.now)
        assert set(pruned.runs) == old
        assert not pruned.more

    @rule(step=st.sampled_from([1, 1, 5, 60, 3600, -1, -60, -3600]))
    def pass_time(self, step: int) -> None:
        self.scene.pass_time(seconds=step)

    @rule(checkpoint=st.booleans())
    def crash(self, checkpoint: bool) -> None:
        """The process is gone: its connection is left as it is, and another one opened."""
        self.scene.store = self.scene.another()
        if checkpoint:
            self.scene.store.checkpoint()

    # -- what must be true ------------------------------------------------------------------------------------------

    @invariant()
    def the_runs_are_those_of_the_model(self) -> None:
        found = {
            run.id: (
                *(run.state, run.attempt, run.retries_left, run.losses, run.worker, run.token, run.revoking),
                *(run.due_at, run.expires_at, run.finished_at),
            )
            for run in self.scene.store.runs(RunFilter(), limit=None)
        }
        assert found == {
            run.id: (
                *(run.state, run.attempt, run.retries_left, run.losses, run.worker, run.token, run.revoking),
                *(run.due, run.expires, run.finished),
            )
            for run in self.model.values()
        }

    @invariant()
    def the_lines_count_them(self) -> None:
        counted = {(line.queue, line.job, line.state): line.count for line in self.scene.store.lines()}
        assert counted == Counter((run.queue, run.job, run.state) for run in self.runs_in(*LIVE))

    @invariant()
    def every_step_has_its_events_in_order(self) -> None:
        told: dict[str | None, list[tuple[str, str | None, int | None]]] = defaultdict(list)
        for event in self.scene.store.events(EventFilter(), after=self.seq, limit=10_000):
            assert event.seq > self.seq
            self.seq = event.seq
            told[event.run].append((event.type, event.state, event.attempt))
        assert told == self.told
        self.told.clear()


@pytest.mark.timeout(900)  # of which a failure takes most, to find its shortest form
def test_a_store_keeps_to_its_model(store_at: Callable[[Path], Opener], share: float) -> None:
    run_state_machine_as_test(
        lambda: Machine(store_at),
        settings=settings(
            max_examples=round(100 * share),
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
