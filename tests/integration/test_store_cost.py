"""What things cost, counted in steps of SQLite's machine and never in time: the same with few runs as with many."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from hueyctl.model.outcome import Exited
from hueyctl.model.run import Message, NewRun, NewStep, RunState
from hueyctl.model.transition import Done, Settlement
from hueyctl.storage.exchange import EXPIRING, PROMOTE
from hueyctl.storage.known import PENDING
from hueyctl.storage.lines import HEADS, LINE
from hueyctl.storage.settling import UNDER_TOKEN
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import EventFilter, JobPolicy, Pause, RunFilter, Want, Worker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FEW, MANY = 100, 20_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    """Two stores that differ in how many runs of the closed job stand at the head, and nothing else."""
    with (
        closing(open_store(tmp_path_factory.mktemp("few") / "queue.db", create=True)) as few,
        closing(open_store(tmp_path_factory.mktemp("many") / "queue.db", create=True)) as many,
    ):
        for store, count in ((few, FEW), (many, MANY)):
            facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "lease_s": 30.0}
            store.register(Worker(id="w", jobs=("open",), queues=None, started_at=NOW, beat_at=NOW, **facts), now=NOW)
            store.accept([new("closed", priority=9) for _ in range(count)], by="b", now=NOW)
            store.accept([new("later", due_at=NOW + timedelta(days=1)) for _ in range(count)], by="b", now=NOW)
            store.accept([new("open") for _ in range(200)], by="b", now=NOW)
        yield few, many


def new(job: str, priority: int = 0, due_at: datetime | None = None, lock_key: str | None = None) -> NewRun:
    id = str(uuid.uuid4())
    return NewRun(id=id, job=job, message=Message(), priority=priority, due_at=due_at, lock_key=lock_key)


def steps(store: SqliteStore, what: Callable[[SqliteStore], object]) -> int:
    """How many steps SQLite's machine takes for it."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    store.database.connection.set_progress_handler(step, 1)
    try:
        what(store)
    finally:
        store.database.connection.set_progress_handler(None, 1)
    return count


def claim_and_settle(store: SqliteStore) -> None:
    want = Want(worker="w", limit=4, jobs={"open": JobPolicy()})
    done: list[Settlement] = []
    for _ in range(3):
        claims = store.exchange(done, want, now=NOW).claims
        assert len(claims) == 4
        done = [
            Settlement(n=claim.run.n, token=claim.token, verdict=Done(), outcome=Exited(0), ended_at=NOW)
            for claim in claims
        ]
    store.exchange(done, None, now=NOW)


def claim_past_a_pause(store: SqliteStore) -> None:
    store.pause([Pause(kind="job", name="closed", note=None, by="b", at=NOW)])
    want = Want(worker="w", limit=4, jobs={"open": JobPolicy(), "closed": JobPolicy()})
    assert {claim.run.job for claim in store.exchange([], want, now=NOW).claims} == {"open"}
    store.resume("job", "closed", by="b", now=NOW)


@pytest.mark.parametrize(
    "what",
    [
        claim_and_settle,
        claim_past_a_pause,
        lambda store: store.accept([new("closed")], by="b", now=NOW),
        lambda store: store.lines(),
        lambda store: store.next_up(limit=10),
        lambda store: store.newest(),
        lambda store: store.newest(job="open"),
        lambda store: store.running(),
        lambda store: store.runs(RunFilter(), limit=10),
        lambda store: store.runs(RunFilter(states=(RunState.FAILED, RunState.EXPIRED)), limit=10),
        lambda store: store.runs(RunFilter(states=(RunState.RUNNING, RunState.HELD)), limit=10),
        lambda store: store.runs(RunFilter(job="open"), limit=10),
        lambda store: store.last_events(EventFilter(), limit=50),
        lambda store: store.events(EventFilter(), after=store.last_seq() - 50, limit=50),
        lambda store: store.sweep(served={"*": ["open", "closed", "later"]}, now=NOW),
        lambda store: store.find("zzzz"),
        lambda store: store.heads(),
        lambda store: store.last_ended(["closed"], RunState.SUCCEEDED, among=FEW),
        lambda store: store.tally(after=store.last_seq() - 50),
    ],
)
def test_the_cost_does_not_depend_on_how_many_runs_there_are(
    stores: tuple[SqliteStore, SqliteStore], what: Callable[[SqliteStore], object]
) -> None:
    few, many = (steps(store, what) for store in stores)
    assert many <= few * 1.1 + 20, f"{few} steps at {FEW} runs, {many} at {MANY}"


def test_statistics_read_what_is_of_their_time_alone(stores: tuple[SqliteStore, SqliteStore]) -> None:
    """Where that begins is found by halving: 200 times as many events are eight halvings more."""
    later = NOW + timedelta(days=1)
    few, many = (
        steps(store, lambda store: store.stats(since=later, until=later + timedelta(days=1))) for store in stores
    )
    assert many <= few + 8 * 60, f"{few} steps at {FEW} runs, {many} at {MANY}"


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (HEADS, "runs_queued"),
        (LINE, "runs_queued"),
        (PENDING, "runs_due"),
        (PENDING, "runs_expiring"),
        (PROMOTE, "runs_due"),
        (EXPIRING, "runs_expiring"),
        (UNDER_TOKEN, "PRIMARY KEY"),
    ],
)
def test_the_hot_statements_use_their_index_and_sort_nothing(
    stores: tuple[SqliteStore, SqliteStore], sql: str, index: str
) -> None:
    connection = stores[0].database.connection
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * sql.count("?"))]
    assert any(index in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
    walks = [step for step in plan if step.startswith("SCAN runs")]
    assert all("USING" in step and "INDEX" in step for step in walks), plan


def test_no_index_of_runs_asks_for_one_of_a_list(stores: tuple[SqliteStore, SqliteStore]) -> None:
    """`state IN (…)` in a partial index is built anew as a table by every claim and every settlement: with three such
    indexes those took twice as long."""
    connection = stores[0].database.connection
    indexes = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'runs'").fetchall()
    assert len(indexes) > 10
    assert not [sql for (sql,) in indexes if sql is not None and " IN (" in sql]


def test_a_line_more_costs_a_few_seeks_more(tmp_path: Path) -> None:
    costs = []
    with closing(open_store(tmp_path / "queue.db", create=True)) as store:
        for _ in range(3):
            store.accept([new(uuid.uuid4().hex) for _ in range(50)], by="b", now=NOW)
            costs.append(steps(store, lambda store: store.database.all(HEADS)))
    assert abs((costs[2] - costs[1]) - (costs[1] - costs[0])) < 0.05 * costs[0]


def test_a_lock_costs_the_same_with_many_runs_behind_it(tmp_path: Path) -> None:
    """Claiming one that has it, claiming past those that wait for it, and handing it on. Each that waits is looked at
    once, so that getting them all behind the gate costs in proportion."""
    costs, first = [], []
    for count in (FEW, MANY // 4):
        with closing(open_store(tmp_path / f"{count}.db", create=True)) as store:
            facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "lease_s": 30.0}
            store.register(Worker(id="w", jobs=(), queues=None, started_at=NOW, beat_at=NOW, **facts), now=NOW)
            store.accept([new("locked", priority=9, lock_key="k") for _ in range(count)], by="b", now=NOW)
            store.accept([new("open") for _ in range(200)], by="b", now=NOW)
            first.append(steps(store, look_at_each_once) / count)
            costs.append([steps(store, what) for what in (claim_and_settle, hand_the_lock_on, enqueue_behind_it)])
    assert first[1] <= first[0] * 1.2
    for few, many in zip(*costs, strict=True):
        assert many <= few * 1.1 + 20, f"{few} steps at {FEW} runs, {many} at {MANY // 4}"


LOCKED = Want(worker="w", limit=1, jobs={"locked": JobPolicy()})


def look_at_each_once(store: SqliteStore) -> None:
    want = Want(worker="w", limit=2, jobs={"locked": JobPolicy()})
    while store.exchange([], want, now=NOW).next_due is not None:
        pass
    assert len(store.running()) == 1


def hand_the_lock_on(store: SqliteStore) -> None:
    for _ in range(3):
        (run,) = store.running()
        assert run.token is not None
        done = Settlement(n=run.n, token=run.token, verdict=Done(), outcome=Exited(0), ended_at=NOW)
        (claim,) = store.exchange([done], LOCKED, now=NOW).claims
        assert claim.run.n == run.n + 1


def enqueue_behind_it(store: SqliteStore) -> None:
    store.accept([new("locked", lock_key="k")], by="b", now=NOW)


def test_a_run_of_no_pipeline_asks_nothing_about_pipelines(tmp_path: Path) -> None:
    asked: list[str] = []
    with closing(open_store(tmp_path / "queue.db", create=True)) as store:
        facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "lease_s": 30.0}
        store.register(Worker(id="w", jobs=("open",), queues=None, started_at=NOW, beat_at=NOW, **facts), now=NOW)  # type: ignore[arg-type]
        store.accept([new("open") for _ in range(20)], by="b", now=NOW)
        store.database.connection.set_trace_callback(asked.append)
        claim_and_settle(store)
    assert asked
    assert not [sql for sql in asked if "edges" in sql or "WHERE pipeline" in sql]


def test_a_step_of_many_side_by_side_ends_as_cheaply_as_one_of_few(tmp_path: Path) -> None:
    """They end in the order in which they were claimed, and each asks whether the one behind them all may start."""
    costs = []
    for count in (10, 400):
        with closing(open_store(tmp_path / f"{count}.db", create=True)) as store:
            facts = {"host": "h", "pid": 1, "version": "1", "file": "f", "concurrency": 1, "lease_s": 30.0}
            store.register(Worker(id="w", jobs=("open",), queues=None, started_at=NOW, beat_at=NOW, **facts), now=NOW)  # type: ignore[arg-type]
            wide = [*(NewStep(new("open")) for _ in range(count)), NewStep(new("open"), tuple(range(count)))]
            store.accept([msgspec.structs.replace(new("wide"), steps=tuple(wide))], by="b", now=NOW)
            want = Want(worker="w", limit=count, jobs={"open": JobPolicy()})
            claims = store.exchange([], want, now=NOW).claims
            assert len(claims) == count
            ends = [
                Settlement(n=claim.run.n, token=claim.token, verdict=Done(b"1"), outcome=Exited(0), ended_at=NOW)
                for claim in claims
            ]
            store.exchange(ends[: count // 2], None, now=NOW)
            costs.append(steps(store, lambda store, end=ends[count // 2]: store.exchange([end], None, now=NOW)))  # type: ignore[misc]
            assert len(store.exchange(ends[count // 2 + 1 :], want, now=NOW).claims[0].inputs) == count
    assert costs[1] < 1.1 * costs[0], costs
