"""Power cuts, in the short form; `make powercut` is the long one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import power_judge
import power_workload
import pytest
from power_disk import Disk
from power_judge import Verdict
from power_workload import Recording
from recording import Record

CUTS, SEED = 50, 20260301


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Recording:
    return power_workload.record(tmp_path_factory.mktemp("workload"), library, batch=400, singles=4)


def test_the_recorder_misses_nothing_and_the_workload_has_what_it_should(recorded: Recording) -> None:
    disk = Disk(recorded.store)
    disk.play(recorded.records)
    assert disk.live() == recorded.live, "all writes applied give the files as they are"
    done = {(record.kind, Path(record.path).name, recorded.roles.get(record.pid)) for record in recorded.records}
    assert {("W", "queue.db", "worker"), ("W", "queue.db-wal", "worker"), ("W", "queue.db-wal", "enqueue")} <= done
    assert {("U", "queue.db-wal", "enqueue alone"), ("U", "queue.db-wal", "worker")} <= done, "the log was ended"
    promises = power_judge.Promises(recorded.roles)
    for record in recorded.records:
        promises.hear(record)
    assert len(promises.accepted) > 450
    assert set(promises.ended.values()) == {"succeeded", "revoked"}
    assert promises.retried
    assert promises.attempts


def test_a_power_cut_loses_nothing_that_was_said_and_damages_nothing(recorded: Recording, tmp_path: Path) -> None:
    verdicts = list(power_judge.cuts(recorded, tmp_path, count=CUTS, seed=SEED))
    assert len(verdicts) == CUTS
    broken = [verdict for verdict in verdicts if verdict.damage or verdict.lost or verdict.undone]
    assert not broken, broken


def without_any(recorded: Recording) -> Callable[[Record], bool]:
    """As with synchronous=OFF: no sync of a file does anything; folders are left, or there would be no store."""
    folder = str(recorded.store.parent)
    return lambda record: record.path == folder


def without_those_of(role: str) -> Callable[[Recording], Callable[[Record], bool]]:
    return lambda recorded: lambda record: recorded.roles.get(record.pid) != role


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        (without_any, lambda verdict: verdict.damage),
        (without_any, lambda verdict: verdict.lost),
        (without_those_of("enqueue"), lambda verdict: verdict.lost),
        (without_those_of("wait"), lambda verdict: verdict.undone),
        (without_those_of("worker"), lambda verdict: verdict.damage),
    ],
    ids=["OFF damages", "OFF loses", "enqueue loses", "wait comes undone", "worker damages"],
)
def test_without_the_syncs_a_power_cut_is_seen(
    recorded: Recording,
    tmp_path: Path,
    counts: Callable[[Recording], Callable[[Record], bool]],
    found: Callable[[Verdict], list[str]],
) -> None:
    """The controls: each sync is needed, and the judge sees when it isn't there."""
    verdicts = power_judge.cuts(recorded, tmp_path, count=80, seed=SEED, counts=counts(recorded), said=ended)
    assert any(found(verdict) for verdict in verdicts)


def ended(record: Record) -> bool:
    return record.kind == "M" and b'"ended"' in record.data


# -- the disk that the judge believes in ------------------------------------------------------------------------------

STORE = Path("/h/.hueyctl/queue.db")


def record(kind: str, *, offset: int = 0, data: bytes = b"", path: Path = STORE, thread: int = 1) -> Record:
    return Record(kind, str(path), thread, thread, 8 if path == STORE else 9, offset, data)


def outcomes(*records: Record) -> set[bytes | None]:
    """The contents of the database that 400 cuts leave after this; None: it isn't there."""
    disk, choice = Disk(STORE), random.Random(1)
    disk.play(records)
    return {disk.cut(choice).get(STORE.name) for _ in range(400)}


NAMES = [record(kind, path=folder) for folder in (STORE.parent.parent, STORE.parent) for kind in "BS"]
FOLDER = record("K", path=STORE.parent)
SYNC = [record("B"), record("S")]


def test_what_was_synced_is_there_with_its_name() -> None:
    assert outcomes(FOLDER, record("W", data=b"a" * 600), *SYNC, *NAMES) == {b"a" * 600}


@pytest.mark.parametrize("left_out", [0, 2])
def test_a_name_needs_a_sync_of_its_folder(left_out: int) -> None:
    names = NAMES[:left_out] + NAMES[left_out + 2 :]
    assert outcomes(FOLDER, record("W", data=b"a"), *SYNC, *names) == {b"a", None}


def test_what_was_not_synced_may_be_there_whole_torn_or_not_at_all() -> None:
    first, second = b"a" * 512, b"b" * 512
    found = outcomes(FOLDER, record("W", data=b"0" * 1024), *SYNC, *NAMES, record("W", data=first + second))
    assert found == {b"0" * 1024, first + second, first + b"0" * 512, b"0" * 512 + second}


def test_of_two_writes_the_later_may_be_there_without_the_earlier() -> None:
    writes = [record("W", data=b"a" * 512), record("W", offset=512, data=b"b" * 512)]
    assert b"0" * 512 + b"b" * 512 in outcomes(FOLDER, record("W", data=b"0" * 1024), *SYNC, *NAMES, *writes)


def test_a_sync_does_not_cover_what_another_thread_writes_meanwhile() -> None:
    during = [record("B"), record("W", data=b"b", thread=2), record("S")]
    assert outcomes(FOLDER, record("W", data=b"a"), *SYNC, *NAMES, *during) == {b"a", b"b"}


def test_a_sync_that_has_not_ended_covers_nothing() -> None:
    assert outcomes(FOLDER, record("W", data=b"a"), *SYNC, *NAMES, record("W", data=b"b"), SYNC[0]) == {b"a", b"b"}


def test_a_file_that_was_cut_may_still_be_whole() -> None:
    found = outcomes(FOLDER, record("W", data=b"a" * 512), *SYNC, *NAMES, record("T"))
    assert {b"", b"a" * 512} <= found
