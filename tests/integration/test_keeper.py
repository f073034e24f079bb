"""The keeper over a real store and real locks: when it takes a worker for dead."""

from __future__ import annotations

import io
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.keeper import Keeper
from hueyctl.engine.log import WorkerLog
from hueyctl.model.definition import CommandBody, Job, Project
from hueyctl.model.run import Message, NewRun
from hueyctl.storage.locks import hold
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import open_store
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
        self.keeper = Keeper(
            worker="mine",
            place=self.place,
            definitions=lambda: self.definitions,
            ended=lambda: None,
            log=WorkerLog(stream=io.StringIO()),
        )

    def give_the_other_a_run(self) -> None:
        new = NewRun(id=str(uuid.uuid4()), job="a", message=Message())
        self.store.accept([new], by="test", now=datetime.now(UTC))
        definitions = self.definitions
        want = Want(worker="other", limit=1, jobs=definitions.policies, queues=None, admit=definitions.admit)
        assert self.store.exchange([], want, now=datetime.now(UTC)).claims

    def workers(self) -> list[str]:
        return sorted(worker.id for worker in self.store.workers())

    def close(self) -> None:
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
    kept.keeper.start(open_store(kept.place.path))
    soon(lambda: kept.keeper.has_looked)
    assert kept.workers() == ["mine", "other"]
    kept.lock.release()
    soon(lambda: kept.workers() == ["mine"])
    soon(lambda: kept.keeper.pause_s == 10)


def test_a_burst_waits_for_what_such_a_worker_has_under_way(kept: Kept) -> None:
    kept.give_the_other_a_run()
    kept.keeper.start(open_store(kept.place.path))
    soon(lambda: 0.1 < kept.keeper.pause_s < 10)
    assert not kept.keeper.has_looked
    kept.lock.release()
    soon(lambda: kept.keeper.has_looked)
    assert [run.state for run in kept.store.runs(RunFilter(), limit=None)] == ["queued"]
