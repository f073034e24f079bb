"""Pipelines that meet, kept in a store, and what a worker does in the two transactions in which they do.

As a script: `python fan_in.py FOLDER TRANSACTION` does one of them in a copy of the store for each statement that it
has, and is killed right before that one; it prints how many there are.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hueyctl.model.hook import Occasion
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun, NewStep
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import Claim, Exchange, Firing, JobPolicy, ScheduleDefinition, Want, Worker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOBS = ("left", "right", "join", "other", "alert")
TRANSACTIONS = ("meet", "end")


def opened(folder: Path) -> SqliteStore:
    return open_store(folder / "queue.db", create=True)


def new(job: str, lock_key: str | None = None) -> NewRun:
    return NewRun(id=str(uuid.uuid4()), job=job, message=Message(), lock_key=lock_key)


def pipeline(slot: datetime) -> NewRun:
    steps = (NewStep(new("left")), NewStep(new("right", "disk")), NewStep(new("join"), (0, 1)))
    return NewRun(
        id=str(uuid.uuid4()), job="etl", message=Message(), trigger="schedule", schedule="s", slot=slot, steps=steps
    )


def alert(occasion: Occasion) -> NewRun:
    return NewRun(id=str(uuid.uuid4()), job="alert", message=Message(), trigger="hook")


def register(store: SqliteStore, worker: str) -> None:
    facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 9, "lease_s": 30.0, "queues": None}
    store.register(Worker(id=worker, jobs=JOBS, started_at=NOW, beat_at=NOW, **facts), now=NOW)  # type: ignore[arg-type]


def exchange(store: SqliteStore, worker: str, *done: tuple[int, str]) -> Exchange:
    """End these attempts well, and claim all that can be."""
    ends = [
        Settlement(n=n, token=token, verdict=Done(b"1"), outcome=Exited(0), ended_at=NOW, claimed=None)
        for n, token in done
    ]
    want = Want(worker=worker, limit=9, jobs={job: JobPolicy() for job in JOBS})
    return store.exchange(ends, want, now=NOW, hooks={"join": alert})


def prepare(folder: Path, transaction: str) -> None:
    """Two pipelines of a schedule, one of them waiting for the other, and a run behind the lock of a step; `w1` is
    about to settle the last step before they meet (`meet`), or the one where they do (`end`)."""
    with closing(opened(folder)) as store:
        register(store, "w1")
        store.define_schedules({"s": ScheduleDefinition("r", "d")}, file="f", now=NOW - timedelta(days=1))
        for slot in (NOW - timedelta(minutes=1), NOW):
            firing = Firing(schedule="s", definition="d", slot=slot, run=pipeline(slot), overlap="line")
            assert store.fire([firing], now=NOW)[0].outcome == "fired"
        left, right = exchange(store, "w1").claims
        store.accept([new("other", "disk")], by="b", now=NOW)
        exchange(store, "w1", _of(left))
        if transaction == "end":
            exchange(store, "w1", _of(right))


def finish(store: SqliteStore) -> None:
    """`w1` is dead; another worker does all that is left."""
    store.rescue("w1", cause="killed", now=NOW, hooks={"join": alert})
    register(store, "w2")
    claims: tuple[Claim, ...] = ()
    while True:
        done = exchange(store, "w2", *map(_of, claims))
        claims = done.claims
        if not claims and not done.opened and done.next_due is None:
            return


def _of(claim: Claim) -> tuple[int, str]:
    return claim.run.n, claim.token


def _die_before(statement: int, folder: Path) -> bool:
    """Do it in a process that is killed right before its so-manieth statement; False: it has done it all."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with closing(opened(folder)) as store:
        [run] = [run for run in store.running() if run.job in ("right", "join")]
        begun = 0

        def count(sql: str) -> None:
            nonlocal begun
            begun += 1
            if begun == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        assert run.token is not None
        store.database.connection.set_trace_callback(count)
        exchange(store, "w1", (run.n, run.token))
    os._exit(0)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    prepare(folder / "0", sys.argv[2])
    statement, killed = 0, True
    while killed:
        statement += 1
        shutil.copytree(folder / "0", folder / str(statement))
        killed = _die_before(statement, folder / str(statement))
    print(statement)
