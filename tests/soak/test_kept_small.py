"""A store under load stays small: what is past its retention goes as fast as it comes, and its space is used again.

The long form, hundreds of thousands of runs through a worker without a pause, is `make soak`.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from soak import BATCH, JOBS_TOML, LINES, MIB, Look, env, hueyctl, judge, size

from hueyctl.model.definition import Retention
from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.health import layout
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import EventFilter, JobPolicy, RunFilter, Want, Worker
from hueyctl.storage.tidying import prune_steps

KEPT = timedelta(seconds=10)
RETENTION = Retention(succeeded=KEPT, failed=KEPT, events=KEPT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / ".hueyctl" / "queue.db", create=True)) as store:
        yield store


def live_through(store: SqliteStore, runs: int, now: datetime) -> None:
    """Accept, claim and settle so many runs at one moment."""
    results = [os.urandom(20) for _ in range(runs)]  # so that rows are of different lengths
    store.accept(
        [NewRun(id=str(uuid.uuid4()), job="a", message=Message(params={"x": r.hex()})) for r in results],
        by="b",
        now=now,
    )
    claims = store.exchange([], Want(worker="w", limit=runs, jobs={"a": JobPolicy()}), now=now).claims
    store.exchange(
        [
            Settlement(n=claim.run.n, token=claim.token, verdict=Done(result), outcome=Exited(0), ended_at=now)
            for claim, result in zip(claims, results, strict=True)
        ],
        None,
        now=now,
    )


def test_five_thousand_runs_need_no_more_pages_than_those_within_their_retention(
    store: SqliteStore, tmp_path: Path
) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "jobs": ("a",), "lease_s": 30.0}
    store.register(Worker(id="w", queues=None, started_at=now, beat_at=now, **facts), now=now)
    place = Place(tmp_path / ".hueyctl" / "queue.db")
    pages = []
    for _ in range(50):
        now += timedelta(seconds=1)
        live_through(store, 100, now)
        for _ in prune_steps(store, place, RETENTION, now=now):
            pass
        pages.append(layout(store.database).pages)
    assert len(store.runs(RunFilter(), limit=None)) == 100 * 11
    # One retention fills it, and half of one more for what lies between pages; then it stays as it is.
    assert max(pages[15:]) <= pages[14] * 1.1, pages
    assert pages[14] > 3 * pages[0], "it was never filled: this shows nothing"


def test_a_worker_prunes_as_fast_as_it_runs_and_uses_the_space_again(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(JOBS_TOML.format(retention="0s").replace('"3s"', '"9s"'))
    (tmp_path / "noop.py").write_text("def noop(): pass\n")
    path = tmp_path / ".hueyctl" / "queue.db"
    worker = subprocess.Popen([*hueyctl(), "worker", "start"], cwd=tmp_path, env=env(), stderr=subprocess.DEVNULL)
    try:
        sizes = []
        for _ in range(2):
            subprocess.run(
                [*hueyctl(), "enqueue", "--batch", "-"],
                cwd=tmp_path,
                env=env(),
                input=b'{"job": "noop"}\n' * BATCH,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            await_empty(path, worker)
            sizes.append(settled(path))
    finally:
        worker.terminate()
        worker.wait()
    assert sizes[1] < sizes[0] + 8 * MIB, sizes
    assert size(path) < 6 * MIB


HELD = """
import ctypes, gc, sys, tempfile

def noop():
    pass

def held():
    \"\"\"What the worker that calls this holds: Python's blocks, and the heaps of its allocator.\"\"\"
    gc.collect()
    with tempfile.NamedTemporaryFile(mode="r") as told, open("held", "a") as out:
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        print(sys.getallocatedblocks(), told.read().count("<heap nr="), file=out)
"""


def test_a_worker_holds_nothing_of_a_run_that_has_ended(tmp_path: Path) -> None:
    """And its threads share one heap: what one of them frees, any other can use."""
    (tmp_path / "jobs.toml").write_text(
        JOBS_TOML.format(retention="1h") + '[jobs.held]\npython = "noop:held"\nisolation = "thread"\npriority = -1\n'
    )
    (tmp_path / "noop.py").write_text(HELD)
    worker = subprocess.Popen([*hueyctl(), "worker", "start"], cwd=tmp_path, env=env(), stderr=subprocess.DEVNULL)
    try:
        found = [held_after(tmp_path, worker, LINES * 20) for _ in range(2)]
    finally:
        worker.terminate()
        worker.wait()
    (before, _), (after, heaps) = found
    assert after - before < 1_000, f"2,000 runs left {after - before} blocks behind"
    if Path("/lib64/ld-linux-x86-64.so.2").exists():
        assert heaps == 1


def held_after(folder: Path, worker: subprocess.Popen[bytes], lines: bytes) -> tuple[int, int]:
    """Let these runs end, and one more that looks what is held then."""
    told = folder / "held"
    seen = len(told.read_text().splitlines()) if told.exists() else 0
    subprocess.run(
        [*hueyctl(), "enqueue", "--batch", "-"],
        cwd=folder,
        env=env(),
        input=lines + b'{"job": "held"}\n',
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    deadline = time.monotonic() + 60
    while not told.exists() or len(told.read_text().splitlines()) == seen:
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    blocks, heaps = told.read_text().splitlines()[-1].split()
    return int(blocks), int(heaps)


def settled(path: Path) -> int:
    """The bytes of file and log, once the worker has shortened the log: it does so every few seconds."""
    deadline = time.monotonic() + 60
    while size(Path(f"{path}-wal")) > MIB and time.monotonic() < deadline:
        time.sleep(0.05)
    return size(path) + size(Path(f"{path}-wal"))


def await_empty(path: Path, worker: subprocess.Popen[bytes]) -> None:
    """Wait until nothing is left but the newest event, which stays. A batch is 12 steps of pruning, and the worker
    looks after its store every 3 s."""
    deadline = time.monotonic() + 60
    with closing(open_store(path, read_only=True)) as reader:
        while reader.runs(RunFilter(), limit=1) or len(reader.last_events(EventFilter(), limit=2)) > 1:
            assert worker.poll() is None
            assert time.monotonic() < deadline, "it doesn't prune as fast as it runs"
            time.sleep(0.05)


def test_what_grows_on_and_on_is_judged_so() -> None:
    level = [Look(n, 10 * MIB, 0, 50 * MIB) for n in range(30)]
    assert judge(level) == []
    growing = [look._replace(file=(10 + n) * MIB) for n, look in enumerate(level)]
    assert ["the file grew from 29.0 to 39.0 MiB" in problem for problem in judge(growing)] == [True]
    leaking = [look._replace(memory=(500 + 3 * n) * MIB) for n, look in enumerate(level)]
    assert judge(leaking) == ["the memory grew from 530.0 to 560.0 MiB, and may go on"]
    coming_and_going = [look._replace(memory=(50 + n % 7 * n) * MIB) for n, look in enumerate(level)]
    assert judge(coming_and_going) == []
