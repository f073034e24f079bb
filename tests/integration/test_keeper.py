"""The keeper over a real store and real locks: when it takes a worker for dead."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.keeper import Keeper
from hueyctl.engine.log import WorkerLog
from hueyctl.model.definition import Project
from hueyctl.storage.locks import hold
from hueyctl.storage.place import Place
from hueyctl.storage.sqlite import open_store
from hueyctl.storage.store import Worker


def record(id: str) -> Worker:
    now = datetime.now(UTC)
    return Worker(
        id=id, host="h", pid=1, version="0", file="f", concurrency=1, jobs=(), queues=None, lease_s=30, started_at=now,
        beat_at=now,
    )  # fmt: skip


def soon(what: Callable[[], bool]) -> None:
    """Long before the next look that is due anyway."""
    deadline = time.monotonic() + 6
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def test_a_worker_whose_guard_is_gone_is_looked_at_until_its_own_lock_is_free_too(tmp_path: Path) -> None:
    """The kernel closes a killed worker's files one by one: its guard may have ended, and rung, before that is over."""
    place = Place(tmp_path / ".hueyctl" / "queue.db")
    place.prepare()
    store = open_store(place.path, create=True, migrate=True)
    for id in ("mine", "other"):
        store.register(record(id), now=datetime.now(UTC))
    lock = hold(place.worker_lock("other"))
    assert lock is not None
    definitions = Definitions(Project(path=tmp_path / "jobs.toml", store=str(place.path), jobs={}), {})
    keeper = Keeper(
        worker="mine",
        place=place,
        open_store=lambda: open_store(place.path),
        definitions=lambda: definitions,
        ended=lambda: None,
        log=WorkerLog(stream=io.StringIO()),
    )
    assert keeper.pause_s == 10
    keeper.start()
    try:
        soon(lambda: keeper.has_looked)
        assert len(store.workers()) == 2
        lock.release()
        soon(lambda: [worker.id for worker in store.workers()] == ["mine"])
    finally:
        keeper.stop()
        store.close()
    assert keeper.failure is None
