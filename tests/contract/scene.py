"""A scene to play on: a store, a clock, workers."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hueyctl.model.event import Event
from hueyctl.model.outcome import AnyOutcome, Exited
from hueyctl.model.run import LIVE, Message, NewRun, Run, RunState
from hueyctl.model.transition import Done, Final, Release, Retry, Settlement, Verdict
from hueyctl.storage.store import Claim, EventFilter, Exchange, JobPolicy, RunFilter, Store, Want, Worker

Opener = Callable[[], Store]


class Scene:
    """A store and its clock. `now` only moves by `pass_time`."""

    def __init__(self, opener: Opener) -> None:
        self.opener = opener
        self.store = opener()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self._opened = [self.store]

    def another(self) -> Store:
        """A second connection to the same store."""
        self._opened.append(self.opener())
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            store.close()

    def pass_time(self, **units: float) -> datetime:
        self.now += timedelta(**units)
        return self.now

    # -- runs -------------------------------------------------------------------------------------------------------
    def new(self, job: str = "a", **given: Any) -> NewRun:
        message = Message(**{key: given.pop(key) for key in ("params", "retries", "secrets") if key in given})
        return NewRun(**{"id": str(uuid.uuid4()), "job": job, "message": message, **given})

    def accept(self, job: str = "a", **given: Any) -> Run:
        [accepted] = self.store.accept([self.new(job, **given)], by="alice@host", now=self.now)
        return accepted.run

    def get(self, run: Run | Claim) -> Run:
        found = self.store.get(run.run.id if isinstance(run, Claim) else run.id)
        assert found is not None
        return found

    # -- workers ----------------------------------------------------------------------------------------------------
    def worker(self, id: str = "w1", **given: Any) -> Worker:
        facts: dict[str, Any] = {
            "id": id,
            "host": "host",
            "pid": 1,
            "version": "1",
            "file": "/jobs.toml",
            "concurrency": 4,
            "jobs": ("a",),
            "queues": None,
            "lease_s": 30.0,
            "started_at": self.now,
            "beat_at": self.now,
        }
        return Worker(**{**facts, **given})

    def register(self, id: str = "w1", **given: Any) -> None:
        self.store.register(self.worker(id, **given), now=self.now)

    def want(self, limit: int = 10, worker: str = "w1", **given: Any) -> Want:
        jobs = given.pop("jobs", ("a", "b", "c"))
        policies = jobs if isinstance(jobs, dict) else {job: JobPolicy() for job in jobs}
        return Want(worker=worker, limit=limit, jobs=policies, **given)

    def claim(self, limit: int = 10, **given: Any) -> list[Claim]:
        return list(self.store.exchange([], self.want(limit, **given), now=self.now).claims)

    def claim_one(self, **given: Any) -> Claim:
        [claim] = self.claim(1, **given)
        return claim

    def settlement(self, claim: Claim, verdict: Verdict, outcome: AnyOutcome) -> Settlement:
        """As a worker gives it."""
        return Settlement(
            n=claim.run.n, token=claim.token, verdict=verdict, outcome=outcome, ended_at=self.now, claimed=claim.run
        )

    def settle(self, claim: Claim, verdict: Verdict, outcome: AnyOutcome) -> Exchange:
        return self.store.exchange([self.settlement(claim, verdict, outcome)], None, now=self.now)

    def succeed(self, claim: Claim, result: bytes | None = b"ok") -> Exchange:
        return self.settle(claim, Done(result), Exited(0))

    def fail(self, claim: Claim, code: int = 3) -> Exchange:
        return self.settle(claim, Final(), Exited(code))

    def fail_for_now(self, claim: Claim, delay: timedelta = timedelta(0), retries_left: int = 0) -> Exchange:
        return self.settle(claim, Retry(delay, retries_left), Exited(3))

    def release(self, claim: Claim, outcome: AnyOutcome, *, started: bool) -> Exchange:
        return self.settle(claim, Release(started), outcome)

    # -- history ----------------------------------------------------------------------------------------------------
    def events(self, run: Run | Claim | None = None) -> list[Event]:
        id = None if run is None else run.run.id if isinstance(run, Claim) else run.id
        return self.store.events(EventFilter(run=id), after=0, limit=100_000)

    def types(self, run: Run | Claim) -> list[str]:
        return [event.type for event in self.events(run)]

    def check_history(self) -> None:
        """The events are numbered in order, each run's last one tells its state, and the lines count what is there."""
        events = self.events()
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        last = {event.run: event.state for event in events if event.run is not None}
        runs = self.store.runs(RunFilter(), limit=None)
        for run in runs:
            assert last.get(run.id, run.state) == run.state
            assert (run.finished_at is None) == (run.state in LIVE)
        # The run of a pipeline is never claimed, and stands in no line.
        jobs = [run for run in runs if not run.is_pipeline]
        assert all((run.token is not None) == (run.state is RunState.RUNNING) for run in jobs)
        counted = {(line.queue, line.job, line.state): line.count for line in self.store.lines()}
        assert counted == Counter((run.queue, run.job, run.state) for run in jobs if run.state in LIVE)
