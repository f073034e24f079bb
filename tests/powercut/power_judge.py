"""What must be true of a store after a power cut, given what had been said before it."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from power_disk import Disk
from power_workload import Recording
from recording import Record

from hueyctl.errors import HueyctlError
from hueyctl.model.outcome import Exited
from hueyctl.model.run import TERMINAL, Run
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import JobPolicy, RunFilter, Want, Worker

STARTED: Final = re.compile(rb"started (\S+) (\d+)")
UUID: Final = re.compile(rb"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.MULTILINE)
JOBS: Final = {job: JobPolicy(retries=2) for job in ("quick", "command", "flaky", "bad")}


class Promises:
    """What has been said so far: by commands on their standard output, and by their ending."""

    def __init__(self, roles: dict[int, str]) -> None:
        self._roles = roles
        self.accepted: set[str] = set()
        self.ended: dict[str, str] = {}  # run: state
        self.retried: dict[str, int] = {}  # run: its attempts before
        self.attempts: dict[str, int] = {}  # run: the newest attempt, after the first, that has begun to run

    def hear(self, record: Record) -> None:
        """Take note of what this record says."""
        if record.kind == "P" and self._roles.get(record.pid, "").startswith("enqueue"):
            self.accepted |= {id.decode() for id in UUID.findall(record.data)}
        elif record.kind == "P" and (started := STARTED.match(record.data)):
            run, attempt = started[1].decode(), int(started[2])
            if attempt > 1:
                self.attempts[run] = attempt
        elif record.kind == "M":
            what, run, *more = json.loads(record.data)
            match what:
                case "ended":
                    self.ended[run] = more[0]
                case "retrying":
                    self.ended.pop(run, None)
                case "retried":
                    self.retried[run] = more[0]


class Verdict(NamedTuple):
    """What was found broken after one cut, as short sentences; nothing: every promise held."""

    at: int
    damage: list[str]  # to the store itself
    lost: list[str]  # of what had been accepted
    undone: list[str]  # of what else had been said


def cuts(
    recording: Recording,
    folder: Path,
    *,
    count: int,
    seed: int,
    counts: Callable[[Record], bool] = lambda record: True,
    said: Callable[[Record], bool] = lambda record: record.kind in "PM",
) -> Iterator[Verdict]:
    """Cut the power `count` times at random moments of a recording, and judge what is left, in `folder`.

    Half of the moments are right after something was `said`: that is when a promise is youngest.
    """
    choice = random.Random(seed)
    disk, promises = Disk(recording.store, counts=counts), Promises(recording.roles)
    records = recording.records
    young = [at for at, record in enumerate(records, 1) if said(record)]
    moments = [choice.choice(young) if choice.random() < 0.5 else choice.randint(1, len(records)) for _ in range(count)]
    for number, at in enumerate(sorted(moments)):
        for record in records[disk.time : at]:
            promises.hear(record)
        disk.play(records[disk.time : at])
        home = folder / f"cut-{number}"
        yield _judged(home, recording, at, disk.cut(choice), promises)
        shutil.rmtree(home, ignore_errors=True)


def _judged(home: Path, recording: Recording, at: int, files: dict[str, bytes], promises: Promises) -> Verdict:
    verdict = Verdict(at, [], [], [])
    home.mkdir()
    for name, content in files.items():
        (home / name).write_bytes(content)
    (home / "workers").mkdir()
    path = home / recording.store.name
    if not path.exists():
        verdict.lost.extend(f"{run} was accepted, and there is no store" for run in sorted(promises.accepted))
        return verdict
    try:
        with closing(open_store(path)) as store:
            _look(store, promises, verdict)
            if not verdict.damage:
                _work_on(store, promises, verdict)
    except (HueyctlError, sqlite3.Error, AssertionError, ValueError) as exc:
        verdict.damage.append(f"{type(exc).__name__}: {exc}")
    return verdict


def _look(store: SqliteStore, promises: Promises, verdict: Verdict) -> None:
    with closing(sqlite3.connect(store.database.path)) as plain:
        found = plain.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            verdict.damage.append(f"integrity: {found[:3]}")
            return
        # The history is true: each run is in the state that its last event says.
        sql = """SELECT runs.id, runs.state, events.state FROM runs JOIN events ON events.seq =
                 (SELECT max(seq) FROM events WHERE run = runs.id) WHERE events.state IS NOT runs.state"""
        verdict.damage.extend(f"{id} is {state}, its history says {last}" for id, state, last in plain.execute(sql))
        # The counters of the lines are those of the runs that stand in them.
        ended = ", ".join(f"'{state}'" for state in TERMINAL)
        counted = sorted(plain.execute("SELECT queue, job, state, count FROM lines WHERE count != 0"))
        sql = f"""SELECT queue, job, state, count(*) FROM runs
                  WHERE state NOT IN ('running', {ended}) GROUP BY 1, 2, 3"""
        if counted != (real := sorted(plain.execute(sql))):
            verdict.damage.append(f"lines are counted as {counted}, and are {real}")
    runs = {run.id: run for run in store.runs(RunFilter(), limit=None)}
    verdict.lost.extend(f"{run} was accepted, and is gone" for run in promises.accepted - set(runs))
    verdict.undone.extend(_undone(runs, promises))


def _undone(runs: dict[str, Run], promises: Promises) -> Iterator[str]:
    for id, state in promises.ended.items():
        if id in runs and runs[id].state != state:
            yield f"{id} was reported {state}, and is {runs[id].state}"
    for id, attempts in promises.retried.items():
        if id in runs and runs[id].state in TERMINAL and runs[id].attempt <= attempts:
            yield f"{id} was retried, and is still {runs[id].state}"
    for id, attempt in promises.attempts.items():
        if id in runs and runs[id].attempt < attempt:
            yield f"attempt {attempt} of {id} had begun, and {runs[id].attempt} are counted"


def _work_on(store: SqliteStore, promises: Promises, verdict: Verdict) -> None:
    """A worker that comes after the cut brings all that was accepted to its end."""
    now = datetime.now(UTC) + timedelta(days=1)
    for dead in store.workers():
        store.rescue(dead.id, cause="the power failed", now=now)
    facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "lease_s": 30.0}
    store.register(Worker(id="after", jobs=tuple(JOBS), queues=None, started_at=now, beat_at=now, **facts), now=now)
    want = Want(worker="after", limit=200, jobs=JOBS)
    settlements: list[Settlement] = []
    while claims := store.exchange(settlements, want, now=now).claims:
        settlements = [
            Settlement(n=claim.run.n, token=claim.token, verdict=Done(), outcome=Exited(0), ended_at=now)
            for claim in claims
        ]
    for run in store.runs(RunFilter(), limit=None):
        if run.id in promises.accepted and run.state not in TERMINAL:
            verdict.lost.append(f"{run.id} was accepted, and stays {run.state}")
