"""The dispatcher over a real store: what it claims, for whom, and that every claim is settled once."""

from __future__ import annotations

import io
import json
import math
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hueyctl.engine import dispatcher, inline
from hueyctl.engine.attempt import Attempt
from hueyctl.engine.definitions import Definitions
from hueyctl.engine.dispatcher import BACKSTOP_S, Dispatcher
from hueyctl.engine.log import WorkerLog
from hueyctl.engine.pace import BRIEF_S, LINGER_S
from hueyctl.engine.queue import RunnerHuey, task_of
from hueyctl.errors import StoreBusy, StoreDamaged, StoreFull, StoreReplaced, StoreUncertain, StoreUnreachable
from hueyctl.model.definition import CommandBody, Job, Param, Project, PythonBody, RateLimit, Schedule
from hueyctl.model.outcome import Returned, Stopped
from hueyctl.model.run import Message, NewRun, Run, RunState
from hueyctl.model.transition import Release
from hueyctl.process.spec import AttemptSpec, Ended
from hueyctl.storage.bell import Bell, ring
from hueyctl.storage.database import SyncFailed
from hueyctl.storage.exchange import BATCH
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import EventFilter, RunFilter, Worker


def eventually(what: Callable[[], Any], timeout: float = 20.0) -> Any:
    """The first true answer of `what`, asked until the deadline."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (answer := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)
    return answer


def job(name: str, target: str, **policy: Any) -> Job:
    params = (Param(name="s", type="string"),)
    return Job(name=name, body=PythonBody(target=target, isolation="thread"), dir=Path("/"), params=params, **policy)


class Rig:
    """A store, a dispatcher and as many Huey threads as a test asks for; jobs run in these threads."""

    def __init__(self, folder: Path, concurrency: int) -> None:
        self.place = Place(folder / ".hueyctl" / "queue.db")
        self.place.prepare()
        self.store_class = SqliteStore
        jobs = {
            "loads": job("loads", "json:loads"),
            "again": job("again", "json:loads", retries=2, retry_delay=timedelta(hours=1), retry_backoff=2.0),
            "at_once": job("at_once", "json:loads", retries=2),
            "program": Job(name="program", body=CommandBody(argv=("true",)), dir=Path("/")),
        }
        self.project = Project(path=folder / "jobs.toml", store=str(self.place.path), jobs=jobs)
        self.store = open_store(self.place.path, create=True, migrate=True)
        now = datetime.now(UTC)
        self.store.register(
            Worker(
                id="w1", host="h", pid=1, version="0", file="f", concurrency=concurrency, jobs=tuple(jobs), queues=None,
                lease_s=30, started_at=now, beat_at=now,
            ),
            now=now,
        )  # fmt: skip
        self.bell = Bell(self.place.bell)
        self.output = io.StringIO()
        self.idle_count = 0
        self.has_ended = threading.Event()
        self.definitions = Definitions(self.project, {})
        self.dispatcher = Dispatcher(
            worker="w1",
            place=self.place,
            bell=self.bell,
            definitions=self.definitions,
            guard=self._no_guard,
            concurrency=concurrency,
            queues=None,
            events=self,
            log=WorkerLog(stream=self.output),
        )
        self.huey = RunnerHuey(self.dispatcher.next_attempt, self.dispatcher.ended, self.definitions)
        self.threads: list[threading.Thread] = []

    def _no_guard(self) -> Any:
        raise AssertionError("nothing here runs in a process")

    def open_store(self) -> SqliteStore:
        return self.store_class(open_store(self.place.path, busy_s=0.2).database)

    def take(self) -> Attempt:
        """An attempt, as a thread takes it."""
        taken: list[Attempt | None] = []
        thread = threading.Thread(target=lambda: taken.append(self.dispatcher.next_attempt()))
        thread.start()
        thread.join(10)
        assert taken[0] is not None
        return taken[0]

    def asked(self, request: str) -> None:
        raise AssertionError("nobody asks")

    def idle(self) -> None:
        self.idle_count += 1

    def someone_died(self) -> None:
        raise AssertionError("nobody dies")

    def dispatcher_ended(self) -> None:
        self.has_ended.set()

    def enqueue(self, job: str = "loads", s: str = "1", priority: int = 0, count: int = 1) -> list[str]:
        news = [
            NewRun(id=str(uuid.uuid4()), job=job, message=Message(params={"s": s}), priority=priority)
            for _ in range(count)
        ]
        accepted = self.store.accept(news, by="test", now=datetime.now(UTC))
        ring(self.place.bell)
        return [one.run.id for one in accepted]

    def thread(self) -> None:
        def work() -> None:
            while (task := self.huey.dequeue()) is not None:
                self.huey.execute(task)

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def states(self) -> list[str]:
        return [run.state for run in self.store.runs(RunFilter(), limit=None)]

    def run(self, id: str) -> Run:
        run = self.store.get(id)
        assert run is not None
        return run

    def wait_for(self, id: str, state: RunState) -> Run:
        eventually(lambda: self.run(id).state is state)
        return self.run(id)

    def falls_asleep(self) -> None:
        """Wait until nothing but what a test does next, or the backstop, wakes the dispatcher."""

        def sound_asleep() -> bool:
            until = self.dispatcher._asleep_until
            threading.Event().wait(0.1)
            return self.dispatcher._asleep_until == until > time.monotonic() + 10

        eventually(sound_asleep)

    def close(self) -> None:
        self.dispatcher.drain()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        self.dispatcher.stop(10)
        self.store.close()
        self.bell.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, concurrency=2)
    yield rig
    rig.close()


def test_a_run_goes_from_the_store_through_huey_and_back(rig: Rig) -> None:
    (id,) = rig.enqueue(s='{"a": [1, 2]}')
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    run = rig.wait_for(id, RunState.SUCCEEDED)
    assert run.result == b'{"a": [1, 2]}'
    assert run.attempt == 1
    types = [event.type for event in rig.store.events(EventFilter(run=id), after=0, limit=10)]
    assert types == ["enqueued", "executing", "complete"]


def test_claims_never_exceed_the_threads_that_wait(rig: Rig) -> None:
    """One thread sits down and takes an attempt without ending it: nothing else is claimed meanwhile."""
    rig.enqueue(count=10)
    rig.dispatcher.start(rig.open_store())
    taken: list[Attempt | None] = []
    threads = [threading.Thread(target=lambda: taken.append(rig.dispatcher.next_attempt())) for _ in range(3)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert rig.states().count("running") == number
    for attempt in taken:
        assert attempt is not None
        rig.dispatcher.ended(attempt)


def test_what_is_drained_while_claims_are_made_is_never_left_running(tmp_path: Path) -> None:
    """Whatever the moment at which a worker drains, each run ends as done or back in its queue."""
    for number in range(20):
        rig = Rig(tmp_path / str(number), concurrency=4)
        rig.enqueue(count=30)
        rig.dispatcher.start(rig.open_store())
        for _ in range(4):
            rig.thread()
        if number % 2:
            eventually(lambda rig=rig: "succeeded" in rig.states())
        rig.dispatcher.drain()
        for thread in rig.threads:
            thread.join(10)
        assert rig.dispatcher.stop(10)
        assert set(rig.states()) <= {"queued", "succeeded"}
        attempts = [run.attempt for run in rig.store.runs(RunFilter(states=(RunState.SUCCEEDED,)), limit=None)]
        assert set(attempts) <= {1}
        rig.close()


def test_a_failure_waits_its_delay_and_the_next_one_its_back_off(rig: Rig) -> None:
    (id,) = rig.enqueue("again", s="{")
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    run = rig.wait_for(id, RunState.SCHEDULED)
    assert run.retries_left == 1
    assert timedelta(minutes=59) < run.due_at - datetime.now(UTC) <= timedelta(hours=1)
    assert run.error is not None
    assert "JSONDecodeError" in run.error


def test_a_retry_without_delay_runs_again_at_once_and_the_last_failure_stays(rig: Rig) -> None:
    (id,) = rig.enqueue("at_once", s="{")
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    run = rig.wait_for(id, RunState.FAILED)
    assert (run.attempt, run.retries_left) == (3, 0)
    types = [event.type for event in rig.store.events(EventFilter(run=id), after=0, limit=20)]
    assert types == ["enqueued", *["executing", "error", "retrying"] * 2, "executing", "error", "failed"]


def test_the_attempt_of_a_dead_thread_is_settled_as_lost(rig: Rig) -> None:
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    thread = threading.Thread(target=rig.dispatcher.next_attempt, name="Worker-7")  # takes an attempt and dies with it
    thread.start()
    thread.join(10)
    rig.dispatcher.settle_dead_threads()
    run = rig.wait_for(id, RunState.QUEUED)
    assert run.losses == 1
    (event,) = rig.store.events(EventFilter(run=id, types=("lost",)), after=0, limit=10)
    assert "Worker-7" in event.data["cause"]


def test_a_settlement_outlasts_a_locked_store(rig: Rig) -> None:
    """The attempt ends while another process holds the write lock: its end is recorded once that is free."""
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    taken: list[Attempt | None] = []
    thread = threading.Thread(target=lambda: taken.append(rig.dispatcher.next_attempt()))
    thread.start()
    thread.join(10)
    (attempt,) = taken
    assert attempt is not None
    other = sqlite3.connect(rig.place.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rig.huey.execute(task_of(attempt))
    rig.thread()
    eventually(lambda: "the store takes nothing" in rig.output.getvalue())
    assert rig.run(id).state is RunState.RUNNING
    other.execute("ROLLBACK")
    other.close()
    rig.wait_for(id, RunState.SUCCEEDED)


def test_a_replaced_store_ends_the_dispatcher_and_frees_those_who_wait(rig: Rig) -> None:
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)
    os.rename(rig.place.path, rig.place.path.with_suffix(".moved"))
    ring(rig.place.bell)
    assert rig.has_ended.wait(10)
    assert isinstance(rig.dispatcher.failure, StoreReplaced)
    rig.threads[0].join(10)
    assert not rig.threads[0].is_alive()


def test_idleness_is_told_when_every_thread_waits_and_nothing_is_left(rig: Rig) -> None:
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)
    assert rig.idle_count == 0  # one of two threads has never asked
    rig.thread()
    eventually(lambda: rig.idle_count)


def test_nothing_is_claimed_after_the_lease_until_it_is_renewed(rig: Rig) -> None:
    """And that is no idleness: a burst would end."""
    (id,) = rig.enqueue()
    rig.dispatcher.renew(time.monotonic())
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.thread()
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + BACKSTOP_S + 0.2)
    assert rig.run(id).state is RunState.QUEUED
    assert rig.idle_count == 0
    rig.dispatcher.renew(time.monotonic() + 60)
    rig.wait_for(id, RunState.SUCCEEDED)
    eventually(lambda: rig.idle_count)


@pytest.mark.usefixtures("_no_backstop")
def test_a_lease_that_is_renewed_too_late_is_no_reason_to_wait_any_longer(rig: Rig) -> None:
    rig.dispatcher.renew(time.monotonic())
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.thread()
    (id,) = rig.enqueue()
    rig.falls_asleep()
    assert rig.run(id).state is RunState.QUEUED
    rig.dispatcher.renew(math.inf)
    rig.wait_for(id, RunState.SUCCEEDED)


def test_what_waits_for_its_rate_limit_is_not_forgotten_while_nothing_may_be_claimed(rig: Rig) -> None:
    """A burst would end without it."""
    limited = msgspec.structs.replace(
        rig.project.jobs["again"], rate_limit=RateLimit(count=1, per=timedelta(seconds=2))
    )
    project = msgspec.structs.replace(rig.project, jobs={**rig.project.jobs, "again": limited})
    rig.dispatcher.swap(Definitions(project, {}))
    rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    long = rig.take()
    rig.enqueue("again", count=2)
    rig.thread()
    eventually(lambda: rig.dispatcher._throttled)
    rig.dispatcher.renew(time.monotonic())
    rig.huey.execute(task_of(long))
    rig.thread()
    eventually(lambda: rig.states().count("succeeded") == 2)
    rig.dispatcher.renew(math.inf)
    eventually(lambda: rig.idle_count)
    assert rig.states() == ["succeeded"] * 3


def test_what_was_claimed_and_had_not_begun_when_the_lease_was_over_goes_back_unstarted(rig: Rig) -> None:
    """Also for a job that must not run twice: it didn't run."""
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    late = Attempt(rig.take().claim, rig.definitions, rig.place, rig._no_guard, start_by=time.monotonic())
    RunnerHuey(lambda: None, rig.dispatcher.ended, rig.definitions).execute(task_of(late))
    assert late.settlement().verdict == Release(started=False)
    rig.wait_for(id, RunState.QUEUED)
    assert rig.run(id).result is None


def test_what_is_due_while_nothing_can_be_claimed_keeps_nobody_awake(rig: Rig) -> None:
    """All threads have work, then the worker drains: a run and a slot become due meanwhile."""
    rig.enqueue(count=2)
    due_at = datetime.now(UTC) + timedelta(seconds=0.2)
    later = NewRun(id=str(uuid.uuid4()), job="loads", message=Message(params={"s": "1"}), due_at=due_at)
    rig.store.accept([later], by="test", now=datetime.now(UTC))
    at = due_at + timedelta(seconds=0.45)
    schedule = Schedule(name="late", target="loads", target_kind="job", timezone="UTC", params={"s": "1"}, at=at)
    project = msgspec.structs.replace(rig.project, schedules={"late": schedule})
    rig.dispatcher.swap(Definitions(project, {}))
    rig.dispatcher.start(rig.open_store())
    taken = [rig.take(), rig.take()]
    eventually(lambda: datetime.now(UTC) > due_at)
    before = cpu_s(rig)
    eventually(lambda: datetime.now(UTC) > due_at + timedelta(seconds=0.4))
    assert cpu_s(rig) - before < 0.1
    rig.dispatcher.drain()
    eventually(lambda: datetime.now(UTC) > due_at + timedelta(seconds=0.5))
    before = cpu_s(rig)
    eventually(lambda: datetime.now(UTC) > due_at + timedelta(seconds=0.9))
    assert cpu_s(rig) - before < 0.1
    for attempt in taken:
        rig.dispatcher.ended(attempt)


def test_what_waits_for_a_lock_or_a_limit_keeps_nobody_awake(rig: Rig) -> None:
    """A thread is free, and all that is queued waits: for a lock, for a place of its job, for a rate limit."""
    limits = {"loads": {"max_concurrent": 1}, "again": {"rate_limit": RateLimit(count=1, per=timedelta(hours=1))}}
    jobs = {name: msgspec.structs.replace(job, **limits.get(name, {})) for name, job in rig.project.jobs.items()}
    rig.dispatcher.swap(Definitions(msgspec.structs.replace(rig.project, jobs=jobs), {}))
    rig.dispatcher.start(rig.open_store())

    def accept(job: str, lock_key: str | None = None) -> None:
        new = NewRun(id=str(uuid.uuid4()), job=job, message=Message(params={"s": "1"}), lock_key=lock_key)
        rig.store.accept([new], by="test", now=datetime.now(UTC))
        ring(rig.place.bell)

    accept("loads", "k")
    accept("again")
    holder, other = rig.take(), rig.take()
    for waiting in (("loads", None), ("again", None), ("at_once", "k")):
        accept(*waiting)
    next_one: list[Attempt | None] = []
    thread = threading.Thread(target=lambda: next_one.append(rig.dispatcher.next_attempt()))
    thread.start()
    eventually(lambda: rig.dispatcher._seats.free == 1 and rig.dispatcher._asleep_until)
    before, since = cpu_s(rig), time.monotonic()
    eventually(lambda: time.monotonic() > since + 0.5)
    assert cpu_s(rig) - before < 0.1
    assert next_one == []
    rig.dispatcher.ended(holder)
    thread.join(10)
    assert next_one[0] is not None
    assert next_one[0].run.job == "loads"  # older than the one that waits for the lock
    for attempt in (other, next_one[0]):
        rig.dispatcher.ended(attempt)


def cpu_s(rig: Rig) -> float:
    """What the dispatcher has used of a processor."""
    assert rig.dispatcher._thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(rig.dispatcher._thread.ident))


def test_nobody_is_idle_while_more_is_due_than_one_transaction_takes(rig: Rig) -> None:
    """A burst would have ended there, with all that was left."""
    stale = [
        NewRun(id=str(uuid.uuid4()), job="loads", message=Message(params={"s": "1"}), expires_s=0.001)
        for _ in range(BATCH)
    ]
    rig.store.accept(stale, by="test", now=datetime.now(UTC))
    (id,) = rig.enqueue()
    state_when_idle: list[str] = []
    rig.idle = lambda: state_when_idle.append(rig.run(id).state)
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.thread()
    eventually(lambda: state_when_idle)
    assert state_when_idle[0] == "succeeded"


def test_others_events_do_not_hide_a_run_whose_own_bell_was_lost(rig: Rig) -> None:
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.thread()
    eventually(lambda: rig.idle_count)
    new = NewRun(id=str(uuid.uuid4()), job="loads", message=Message(params={"s": "1"}))
    rig.store.accept([new], by="test", now=datetime.now(UTC))
    deadline = time.monotonic() + 10 * BACKSTOP_S
    while rig.run(new.id).state is not RunState.SUCCEEDED:
        assert time.monotonic() < deadline
        ring(rig.place.bell, b"event")
        time.sleep(BACKSTOP_S / 10)


def test_what_is_given_back_in_the_middle_of_its_judgement_has_not_failed(rig: Rig) -> None:
    """Its body has ended, and the time to drain is over before Huey has said what that means."""
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    attempt = rig.take()
    attempt.outcome = Returned("1")
    rig.dispatcher.drain()
    assert rig.dispatcher.stop(10)
    run = rig.run(id)
    assert (run.state, run.losses) == ("queued", 0)


def test_an_attempt_that_is_stopped_as_stale_while_its_token_holds_goes_back(rig: Rig) -> None:
    """A worker that is told twice that it was taken for dead stops what it claimed in between."""

    class Stopping:
        def run(self, spec: AttemptSpec) -> Ended:
            return Ended(token=spec.token, outcome=Stopped("stale"))

    new = NewRun(id=str(uuid.uuid4()), job="program", message=Message())
    rig.store.accept([new], by="test", now=datetime.now(UTC))
    rig.dispatcher.start(rig.open_store())
    taken = rig.take()
    attempt = Attempt(taken.claim, rig.definitions, rig.place, Stopping, start_by=math.inf)
    rig.dispatcher.drain()
    RunnerHuey(lambda: None, rig.dispatcher.ended, rig.definitions).execute(task_of(attempt))
    rig.wait_for(new.id, RunState.QUEUED)


def test_a_full_disk_is_tried_now_and_then_while_the_worker_stops(rig: Rig) -> None:
    tries = []
    full = threading.Event()

    class Filling(SqliteStore):
        def exchange(self, *args: Any, **kwargs: Any) -> Any:
            if not full.is_set():
                return super().exchange(*args, **kwargs)
            tries.append(1)
            raise StoreFull("the disk is full")

    rig.store_class = Filling
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    attempt = rig.take()
    full.set()
    rig.dispatcher.drain()
    rig.dispatcher.ended(attempt)
    assert not rig.dispatcher.stop(3)
    assert 1 < len(tries) < 10
    full.clear()
    assert rig.dispatcher.stop(10)
    assert rig.run(id).state is RunState.QUEUED


@pytest.mark.usefixtures("_no_backstop")
def test_a_slot_that_the_store_refused_once_wakes_the_dispatcher_when_it_may_be_tried_again(rig: Rig) -> None:
    class Refusing(SqliteStore):
        refused = False

        def fire(self, *args: Any, **kwargs: Any) -> Any:
            if not Refusing.refused:
                Refusing.refused = True
                raise StoreBusy("locked")
            return super().fire(*args, **kwargs)

    rig.store_class = Refusing
    once = Schedule(
        name="once",
        target="loads",
        target_kind="job",
        timezone="UTC",
        params={"s": "1"},
        at=datetime.now(UTC) + timedelta(seconds=0.3),
    )
    rig.dispatcher.swap(Definitions(msgspec.structs.replace(rig.project, schedules={"once": once}), {}))
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    eventually(lambda: rig.states() == ["succeeded"])
    assert Refusing.refused


def test_a_probe_of_which_nobody_knows_whether_it_came_in_ends_no_worker(rig: Rig) -> None:
    away = threading.Event()

    class Away(SqliteStore):
        def exchange(self, *args: Any, **kwargs: Any) -> Any:
            if away.is_set():
                raise StoreUnreachable("gone")
            return super().exchange(*args, **kwargs)

        def beat(self, *args: Any, **kwargs: Any) -> bool:
            if away.is_set():
                away.clear()
                raise StoreUncertain("lost in the middle of a commit")
            return super().beat(*args, **kwargs)

    rig.store_class = Away
    away.set()
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)
    assert not away.is_set()
    assert rig.dispatcher.failure is None


def test_a_store_that_takes_no_slots_is_asked_again_after_a_second_and_no_sooner(rig: Rig) -> None:
    """A slot that is due must not keep the dispatcher spinning and logging while the store is locked or full."""
    beat = Schedule(
        name="beat",
        target="loads",
        target_kind="job",
        timezone="UTC",
        params={"s": "1"},
        every=timedelta(milliseconds=100),
        overlap="allow",
    )
    schedules = msgspec.structs.replace(rig.project, schedules={"beat": beat})
    rig.dispatcher.swap(Definitions(schedules, {}))
    rig.dispatcher.start(rig.open_store())
    eventually(rig.states)
    other = sqlite3.connect(rig.place.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def refusals() -> list[datetime]:
        lines = [line for line in rig.output.getvalue().splitlines() if "takes no slots at the moment" in line]
        return [datetime.fromisoformat(line.split()[0]) for line in lines]

    eventually(lambda: len(refusals()) >= 3)
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in pairwise(refusals()))
    before = len(rig.states())
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: len(rig.states()) > before + 10)  # those of the meantime too: they are within the grace


def test_a_thread_that_comes_back_settles_and_claims_by_itself(rig: Rig) -> None:
    """The dispatcher's own thread has nothing to do with it."""
    by: dict[str, set[str]] = {"settled": set(), "claimed": set()}

    class Noting(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            exchange = super().exchange(settlements, want, **options)
            for what, count in (("settled", len(settlements)), ("claimed", len(exchange.claims))):
                if count:
                    by[what].add(threading.current_thread().name)
            return exchange

    rig.store_class = Noting
    ids = rig.enqueue(count=50)
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(ids[-1], RunState.SUCCEEDED)
    mine = rig.threads[0].name
    assert mine in by["settled"]
    assert mine in by["claimed"]


def test_who_takes_what_was_claimed_for_another_has_its_own_end_settled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came by between the claim and the one that it was for, and nobody else is about to do anything."""
    monkeypatch.setattr(dispatcher, "BACKSTOP_S", 60.0)
    rig.dispatcher.start(rig.open_store())
    (id,) = rig.enqueue()
    attempt = rig.take()
    rig.falls_asleep()
    rig.huey.execute(task_of(attempt))
    with rig.dispatcher._lock:
        rig.dispatcher._seats._given.append(attempt)
    assert rig.take() is attempt
    rig.wait_for(id, RunState.SUCCEEDED)


def test_what_the_store_raises_to_a_thread_ends_the_dispatcher_and_is_never_tried_again(rig: Rig) -> None:
    tries: list[str] = []

    class Failing(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            if not settlements:
                return super().exchange(settlements, want, **options)
            tries.append(threading.current_thread().name)
            raise SyncFailed("the disk failed to sync")

    rig.store_class = Failing
    rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    assert rig.has_ended.wait(10)
    assert isinstance(rig.dispatcher.failure, SyncFailed)
    assert len(tries) == 1
    rig.threads[0].join(10)
    assert not rig.threads[0].is_alive()


def test_a_stop_that_comes_just_when_a_waiting_attempt_may_begin_is_not_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to be done, and what it was to stop went on to its own end."""
    new = NewRun(id=str(uuid.uuid4()), job="program", message=Message())
    rig.store.accept([new], by="test", now=datetime.now(UTC))
    rig.dispatcher.start(rig.open_store())
    attempt = rig.take()  # there is no guard: who begins fails
    hand_over = attempt._hand_over

    def stopped_meanwhile(spec: AttemptSpec) -> None:
        hand_over(spec)
        attempt._waiting = threading.Event()
        assert attempt.call_off("revoked")

    monkeypatch.setattr(attempt, "_hand_over", stopped_meanwhile)
    rig.huey.execute(task_of(attempt))
    assert attempt.outcome == Stopped("revoked")
    assert not attempt.begun
    attempt.begun = True
    assert not attempt.call_off("revoked"), "the guard is to be told"


def test_an_attempt_that_the_worker_itself_could_not_run_says_so(rig: Rig) -> None:
    """There is no guard here. Without its cause it would be taken for one that its worker gave back as it ended."""
    new = NewRun(id=str(uuid.uuid4()), job="program", message=Message())
    rig.store.accept([new], by="test", now=datetime.now(UTC))
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    failed = rig.wait_for(new.id, RunState.FAILED)
    assert failed.reason == "hueyctl couldn't run it: AssertionError: nothing here runs in a process"


@pytest.mark.usefixtures("_no_backstop")
def test_nothing_is_claimed_after_the_store_has_failed(rig: Rig) -> None:
    """It would be lost with this worker, although none of it had begun."""
    asked: list[str] = []
    failing = threading.Event()

    class Fair:
        """Whoever waits for the role has it before the one who lets go of it can take it again."""

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()
            if failing.is_set():
                threading.Event().wait(0.2)

    class Failing(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            if failing.is_set():
                asked.append(threading.current_thread().name)
                # One of Huey's threads waits for its turn when this one fails.
                eventually(lambda: rig.dispatcher._lined_up)
                raise StoreDamaged("it is damaged")
            return super().exchange(settlements, want, **options)

    rig.store_class = Failing
    rig.dispatcher._role = Fair()  # type: ignore[assignment]  # it has what of a lock is used
    rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    first = rig.take()
    rig.thread()
    rig.falls_asleep()
    failing.set()
    rig.enqueue(count=2)
    eventually(lambda: asked)
    rig.dispatcher.ended(first)
    rig.thread()
    assert rig.has_ended.wait(10)
    assert asked == ["Dispatcher"]


def test_a_store_that_takes_nothing_from_a_thread_is_asked_again_by_the_dispatcher(rig: Rig) -> None:
    tries: list[str] = []

    class Busy(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            if settlements and len(tries) < 3:
                tries.append(threading.current_thread().name)
                raise StoreBusy("locked")
            return super().exchange(settlements, want, **options)

    rig.store_class = Busy
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)
    assert len(tries) == 3
    assert set(tries[1:]) == {"Dispatcher"}


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, concurrency=4)
    yield rig
    rig.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Lock]:
    """A run of `loads` whose text is "wait" waits until this lock is free; at the end of a test it is."""
    lock = threading.Lock()
    lock.acquire()
    loads = json.loads

    def slow(s: str) -> Any:
        if s == '"wait"':
            lock.acquire()
        return loads(s)

    monkeypatch.setattr(json, "loads", slow)
    inline._import.cache_clear()
    yield lock
    if lock.locked():
        lock.release()
    inline._import.cache_clear()


def test_one_of_many_brief_attempts_that_takes_its_time_holds_up_no_other(wide: Rig, held: threading.Lock) -> None:
    """They were thought to be brief, and given to one thread: the others come when it doesn't come back."""
    rig = wide
    rig.enqueue(count=200)
    rig.dispatcher.start(rig.open_store())
    for _ in range(4):
        rig.thread()
    eventually(lambda: set(rig.states()) == {"succeeded"})
    rig.dispatcher._pace._usual_s["loads"] = BRIEF_S / 2  # on a busy machine it may not be so
    (first,) = rig.enqueue(s='"wait"', priority=1)
    others = rig.enqueue(count=3)
    for id in others:
        rig.wait_for(id, RunState.SUCCEEDED)
    assert rig.run(first).state is RunState.RUNNING
    held.release()
    rig.wait_for(first, RunState.SUCCEEDED)


def test_brief_attempts_given_to_one_thread_are_taken_by_others_however_late_that_is_looked_at(
    rig: Rig, held: threading.Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their time is over before the dispatcher goes to sleep: whoever gave them had to wait for a slow log."""
    monkeypatch.setattr(dispatcher, "BACKSTOP_S", 60.0)
    announce = rig.dispatcher._announce

    def slowly(**how: bool) -> None:
        announce(**how)
        threading.Event().wait(2 * LINGER_S)

    monkeypatch.setattr(rig.dispatcher, "_announce", slowly)
    rig.dispatcher._pace._usual_s["loads"] = BRIEF_S / 2
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.thread()
    rig.falls_asleep()
    news = [NewRun(id=str(uuid.uuid4()), job="loads", message=Message(params={"s": s})) for s in ('"wait"', "1")]
    rig.store.accept(news, by="test", now=datetime.now(UTC))
    ring(rig.place.bell)
    rig.wait_for(news[1].id, RunState.SUCCEEDED)
    assert rig.run(news[0].id).state is RunState.RUNNING
    held.release()
    rig.wait_for(news[0].id, RunState.SUCCEEDED)


def test_what_has_ended_while_others_are_waited_for_keeps_nobody_awake(rig: Rig) -> None:
    rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    attempt = rig.take()
    rig.dispatcher.drain()
    rig.dispatcher.stop(10)
    rig.dispatcher._draining = rig.dispatcher._stopping = False
    rig.huey.execute(task_of(attempt))
    now = time.monotonic()
    with rig.dispatcher._lock:
        rig.dispatcher._ended = [(attempt, attempt.settlement())]
        rig.dispatcher._ended_at = now - 1.0
        rig.dispatcher._pace.linger_until = now + 60.0
        rig.dispatcher._looked_at = now + 60.0
        assert not rig.dispatcher._due()
        assert rig.dispatcher._needed_at() >= now + 60.0


def test_short_attempts_are_brought_in_together(wide: Rig) -> None:
    sizes: list[int] = []

    class Counting(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            sizes.append(len(settlements))
            return super().exchange(settlements, want, **options)

    rig = wide
    rig.store_class = Counting
    ids = rig.enqueue(count=400)
    rig.dispatcher.start(rig.open_store())
    for _ in range(4):
        rig.thread()
    rig.wait_for(ids[-1], RunState.SUCCEEDED)
    eventually(lambda: set(rig.states()) == {"succeeded"})
    assert sum(sizes) == 400
    assert sizes.count(4) >= 20  # 98 of 100 on a quiet machine


def test_one_thread_waits_for_the_role_and_the_others_for_what_it_claims(wide: Rig) -> None:
    """Among brief attempts two that wait for it by turns wake each other up at each exchange."""
    rig = wide
    rig.dispatcher.start(rig.open_store())
    eventually(lambda: rig.dispatcher._store)
    with rig.dispatcher._role:
        ids = rig.enqueue(count=8)
        for _ in range(4):
            rig.thread()
        eventually(lambda: rig.dispatcher._seats._asleep == 3)
        assert rig.dispatcher._lined_up == 1
    for id in ids:
        rig.wait_for(id, RunState.SUCCEEDED)


@pytest.fixture
def _no_backstop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a look after a while would find is not found at all."""
    monkeypatch.setattr("hueyctl.engine.dispatcher.BACKSTOP_S", 1000.0)


@pytest.mark.usefixtures("_no_backstop")
def test_brief_attempts_go_on_beside_one_that_takes_long(rig: Rig) -> None:
    (long,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    assert rig.take().run.id == long  # and never comes back
    rig.enqueue(count=300)
    rig.thread()
    eventually(lambda: rig.states().count("succeeded") == 300)
    assert rig.run(long).state is RunState.RUNNING


@pytest.mark.usefixtures("_no_backstop")
def test_that_nobody_has_anything_to_do_is_told_at_once(tmp_path: Path) -> None:
    for number in range(10):
        rig = Rig(tmp_path / str(number), concurrency=2)
        try:
            rig.dispatcher.start(rig.open_store())
            rig.thread()
            rig.thread()
            eventually(lambda rig=rig: rig.idle_count)
        finally:
            rig.close()


@pytest.mark.usefixtures("_no_backstop")
def test_what_ends_while_the_store_takes_nothing_is_brought_in_when_it_does(rig: Rig) -> None:
    """The lease is over too: nothing may be claimed, which alone would wake nobody."""
    locked, refused = threading.Event(), threading.Event()

    class Busy(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            if settlements or not locked.is_set():
                return super().exchange(settlements, want, **options)
            rig.dispatcher.renew(time.monotonic())
            refused.set()
            raise StoreBusy("locked")

    rig.store_class = Busy
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    attempt = rig.take()
    locked.set()
    rig.dispatcher.look_again()
    rig.thread()
    eventually(refused.is_set)
    rig.huey.execute(task_of(attempt))
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)


def test_what_is_due_on_a_full_disk_keeps_nobody_awake(rig: Rig) -> None:
    full = threading.Event()

    class Filling(SqliteStore):
        def exchange(self, *args: Any, **kwargs: Any) -> Any:
            if full.is_set():
                raise StoreFull("the disk is full")
            return super().exchange(*args, **kwargs)

        def beat(self, *args: Any, **kwargs: Any) -> bool:
            raise StoreFull("the disk is full")

    rig.store_class = Filling
    later = NewRun(
        id=str(uuid.uuid4()),
        job="loads",
        message=Message(params={"s": "1"}),
        due_at=datetime.now(UTC) + timedelta(seconds=0.3),
    )
    rig.store.accept([later], by="test", now=datetime.now(UTC))
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    eventually(lambda: rig.dispatcher._next_due)
    full.set()
    eventually(lambda: "the disk is full" in rig.output.getvalue())
    before, since = cpu_s(rig), time.monotonic()
    eventually(lambda: time.monotonic() > since + 0.5)
    assert cpu_s(rig) - before < 0.1
    full.clear()


@pytest.mark.usefixtures("_no_backstop")
def test_a_file_that_comes_just_before_a_claim_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BACKSTOP_S", 60.0)
    fewer = {name: job for name, job in rig.project.jobs.items() if name != "loads"}
    rig.dispatcher.swap(Definitions(msgspec.structs.replace(rig.project, jobs=fewer), {}))
    may_claim = rig.dispatcher._may_claim

    def swapping() -> bool:
        if "loads" not in rig.dispatcher.definitions.policies and sys._getframe(1).f_code.co_name == "_exchange":
            rig.dispatcher.swap(rig.definitions)
        return may_claim()

    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.falls_asleep()
    monkeypatch.setattr(rig.dispatcher, "_may_claim", swapping)
    (id,) = rig.enqueue()
    rig.wait_for(id, RunState.SUCCEEDED)


def test_what_is_said_while_the_store_is_asked_is_heard(rig: Rig) -> None:
    """A file with one more job comes in the middle of a claim that finds nothing."""
    fewer = {name: job for name, job in rig.project.jobs.items() if name != "loads"}
    rig.dispatcher.swap(Definitions(msgspec.structs.replace(rig.project, jobs=fewer), {}))
    whole = rig.definitions

    class Slow(SqliteStore):
        def exchange(self, settlements: Any, want: Any, **options: Any) -> Any:
            exchange = super().exchange(settlements, want, **options)
            if want is not None and "loads" not in want.jobs:
                rig.dispatcher.swap(whole)
            return exchange

    rig.store_class = Slow
    (id,) = rig.enqueue()
    rig.dispatcher.start(rig.open_store())
    rig.thread()
    rig.wait_for(id, RunState.SUCCEEDED)
