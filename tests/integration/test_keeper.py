"""The keeper over a real store and real locks: when it takes a worker for dead."""

from __future__ import annotations

import io
import os
import resource
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.keeper import BeatWatch, Keeper
from hueyctl.engine.log import WorkerLog
from hueyctl.model.definition import CommandBody, Job, Project
from hueyctl.model.run import Message, NewRun
from hueyctl.storage.locks import hold
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import SqliteStore, open_store
from hueyctl.storage.store import RunFilter, Want, Worker


class Kept:
    """A store with two workers: one whose keeper this is, and another, which has its own lock and no guard any more."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / ".hueyctl" / "queue.db")
        self.place.prepare()
        self.store = open_store(self.place.path, create=True, migrate=True)
        job = Job(name="a", body=CommandBody(argv=("true",)), dir=folder)
        self.definitions = Definitions(
            Project(path=folder / "jobs.toml", store=str(self.place.path), jobs={"a": job}), {}
        )
        for id in ("mine", "other"):
            now = datetime.now(UTC)
            worker = Worker(
                id=id, host="h", pid=1, version="0", file="f", concurrency=1, jobs=("a",), queues=None, lease_s=30,
                started_at=now, beat_at=now,
            )  # fmt: skip
            self.store.register(worker, now=now)
        lock = hold(self.place.worker_lock("other"))
        assert lock is not None
        self.lock = lock
        self.is_on = False
        self.said = io.StringIO()
        self.keeper = Keeper(
            worker="mine",
            place=self.place,
            definitions=lambda: self.definitions,
            ended=lambda: None,
            log=WorkerLog(stream=self.said),
        )

    def start(self) -> None:
        """Let it turn by itself."""
        self.is_on = True
        self.keeper.start(open_store(self.place.path))

    def give_the_other_a_run(self) -> None:
        new = NewRun(id=str(uuid.uuid4()), job="a", message=Message())
        self.store.accept([new], by="test", now=datetime.now(UTC))
        definitions = self.definitions
        want = Want(worker="other", limit=1, jobs=definitions.policies, queues=None, admit=definitions.admit)
        assert self.store.exchange([], want, now=datetime.now(UTC)).claims

    def workers(self) -> list[str]:
        return sorted(worker.id for worker in self.store.workers())

    def close(self) -> None:
        if self.is_on:
            self.keeper.stop()
        self.store.close()
        assert self.keeper.failure is None


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.close()


def soon(what: Callable[[], bool]) -> None:
    """Long before the next look that is due anyway."""
    deadline = time.monotonic() + 6
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def test_a_worker_whose_guard_is_gone_is_looked_at_until_its_own_lock_is_free_too(kept: Kept) -> None:
    """The kernel closes a killed worker's files one by one: its guard may have ended, and rung, before that is over."""
    assert kept.keeper.pause_s == 10
    kept.start()
    soon(lambda: kept.keeper.has_looked)
    assert kept.workers() == ["mine", "other"]
    kept.lock.release()
    soon(lambda: kept.workers() == ["mine"])
    soon(lambda: kept.keeper.pause_s == 10)


def test_a_burst_waits_for_what_such_a_worker_has_under_way(kept: Kept) -> None:
    kept.give_the_other_a_run()
    kept.start()
    soon(lambda: 0.1 < kept.keeper.pause_s < 10)
    assert not kept.keeper.has_looked
    kept.lock.release()
    soon(lambda: kept.keeper.has_looked)
    assert [run.state for run in kept.store.runs(RunFilter(), limit=None)] == ["queued"]


class Slow(SqliteStore):
    """A store whose sweep has to wait, while somebody goes on."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def sweep(self, **options: Any) -> int:
        self.meanwhile()
        return super().sweep(**options)


def test_a_silent_worker_that_goes_on_while_the_keeper_waits_for_the_store_is_left_alone(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("hueyctl.engine.keeper.time", SimpleNamespace(monotonic=lambda: clock[0]))
    slow = Slow(kept.store.database)

    def goes_on() -> None:
        assert kept.store.beat("other", running=0, now=datetime.now(UTC))
        kept.give_the_other_a_run()

    for turn in range(4):
        if turn == 3:
            slow.meanwhile = goes_on
        kept.store.beat("mine", running=0, now=datetime.now(UTC))
        kept.keeper.turn(slow)
        clock[0] += 10
    assert kept.workers() == ["mine", "other"]
    assert [run.state for run in kept.store.runs(RunFilter(), limit=None)] == ["running"]
    assert "is dead" not in kept.said.getvalue()


def test_no_descriptor_for_the_maintenance_lock_only_puts_upkeep_off(kept: Kept) -> None:
    kept.lock.release()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fullest = max(map(int, os.listdir("/proc/self/fd")))
    taken = [os.dup(0) for _ in range(fullest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
    try:
        for _ in range(2):
            assert not kept.keeper._is_maintainer()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert kept.said.getvalue().count("upkeep has to wait") == 1
    assert kept.keeper._is_maintainer()


def test_of_workers_that_are_gone_nothing_is_remembered(kept: Kept) -> None:
    watch = BeatWatch("mine", 10.0)
    (mine,) = [worker for worker in kept.store.workers() if worker.id == "mine"]
    for number in range(10):
        for beat in range(2):
            mine = msgspec.structs.replace(mine, beat=mine.beat + 1)
            brief = msgspec.structs.replace(mine, id=f"brief{number}", beat=beat)
            watch.observe([mine, brief], 10.0 * mine.beat)
        assert watch.has_heard(brief)
    watch.observe([msgspec.structs.replace(mine, beat=mine.beat + 1)], 10.0 * mine.beat + 10)
    assert not any(watch.has_heard(msgspec.structs.replace(mine, id=f"brief{number}")) for number in range(10))
