"""The keeper: the thread that proves its worker alive, takes the dead ones' runs back, and keeps the store small.

It has a store connection of its own, so that a slow disk under the dispatcher delays no beat. Promises:
- A beat is counted in the store at least three times a lease, and the guard hears of each.
- A worker is rescued when both its locks are free, or when its beat stood still for a whole lease of this thread's own
  monotonic clock, counting only time in which the store could be written: whoever could not beat then, because
  nobody could write, is not taken for dead.
- One worker of a store prunes and checkpoints (the holder of the maintenance lock); every one rescues, since a
  rescue is fenced, and the holder of that lock may be the one that hangs.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from hueyctl.engine.log import WorkerLog
from hueyctl.errors import StoreBusy, StoreFull
from hueyctl.model.definition import Project
from hueyctl.storage.bell import ring
from hueyctl.storage.locks import HeldLock, hold, worker_is_dead
from hueyctl.storage.place import Place
from hueyctl.storage.store import Store, Worker

BEATS_PER_LEASE = 3
LONGEST_PAUSE_S = 10.0
WAL_MAX_BYTES = 4 * 1024 * 1024
PRUNE_BATCH = 500


class BeatWatch:
    """Tells which workers' beats have stood still for their whole lease, by one monotonic clock.

    `observe` is called after each successful write; a gap longer than twice the usual pause counts as one pause: this
    process didn't run, or the store couldn't be written, and then nobody could beat.
    """

    def __init__(self, pause_s: float) -> None:
        self._longest_s = 2 * pause_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._last: float | None = None

    def observe(self, workers: list[Worker], now: float) -> list[Worker]:
        """The workers among these that are out of their lease at `now` (monotonic seconds)."""
        passed = 0.0 if self._last is None else min(now - self._last, self._longest_s)
        self._last = now
        silent = []
        seen = {}
        for worker in workers:
            beat, still_s = self._seen.get(worker.id, (worker.beat, 0.0))
            still_s = still_s + passed if beat == worker.beat else 0.0
            seen[worker.id] = (worker.beat, still_s)
            if still_s >= worker.lease_s:
                silent.append(worker)
        self._seen = seen
        return silent


class Keeper:
    """Beats, rescues, sweeps, prunes and checkpoints, for one worker."""

    def __init__(
        self,
        *,
        worker: str,
        place: Place,
        open_store: Callable[[], Store],
        project: Callable[[], Project],
        tick: Callable[[], None],
        running: Callable[[], int],
        declared_dead: Callable[[], None],
        ended: Callable[[], None],
        log: WorkerLog,
    ) -> None:
        lease_s = project().worker.lease.total_seconds()
        self.failure: BaseException | None = None
        self._worker, self._place, self._open_store, self._project = worker, place, open_store, project
        self._tick, self._running, self._declared_dead = tick, running, declared_dead
        self._ended, self._log = ended, log
        self._pause_s = min(lease_s / BEATS_PER_LEASE, LONGEST_PAUSE_S)
        self._watch = BeatWatch(self._pause_s)
        self._maintenance: HeldLock | None = None
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="Keeper", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def wake(self) -> None:
        """Look around now: somebody may have died."""
        self._woken.set()

    def stop(self) -> None:
        """End, after what is under way."""
        self._stopping = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            store = self._open_store()
            try:
                while not self._stopping:
                    self._turn(store)
                    self._woken.wait(self._pause_s)
                    self._woken.clear()
            finally:
                store.close()
        except BaseException as exc:
            self.failure = exc
        finally:
            if self._maintenance is not None:
                self._maintenance.release()
            self._ended()

    def _turn(self, store: Store) -> None:
        try:
            present = store.beat(self._worker, running=self._running(), now=datetime.now(UTC))
        except StoreBusy:
            # Nobody can write, so nobody can find this worker silent: its bodies may go on.
            self._tick()
            return
        except StoreFull as exc:
            self._tick()
            self._log.warning(f"no heartbeat: {exc}")
            return
        if not present:
            self._declared_dead()
            return
        self._tick()
        try:
            self._look_after_others(store)
            self._maintain(store)
        except (StoreBusy, StoreFull) as exc:
            self._log.warning(f"upkeep has to wait: {exc}")

    def _look_after_others(self, store: Store) -> None:
        workers = store.workers()
        others = [worker for worker in workers if worker.id != self._worker]
        dead = {worker.id: "its processes are gone" for worker in others if worker_is_dead(self._place, worker.id)}
        for worker in self._watch.observe(others, time.monotonic()):
            dead.setdefault(worker.id, f"no heartbeat for {worker.lease_s:g} s")
        rescued = [run for id, cause in dead.items() for run in store.rescue(id, cause=cause, now=datetime.now(UTC))]
        for run in rescued:
            self._log.warning(f"{run.job} {run.id[:8]} attempt {run.attempt} was lost with its worker: {run.state}")
        for id, cause in dead.items():
            self._log.warning(f"worker {id} is dead: {cause}")
        served = served_by([worker for worker in workers if worker.id not in dead])
        if store.sweep(served=served, now=datetime.now(UTC)) or rescued:
            ring(self._place.bell, b"work")

    def _maintain(self, store: Store) -> None:
        if self._maintenance is None:
            self._maintenance = hold(self._place.maintenance_lock)
        if self._maintenance is None:
            return
        retention = self._project().retention
        while not self._stopping:
            pruned = store.prune(retention, now=datetime.now(UTC), limit=PRUNE_BATCH)
            for run in pruned.runs:
                shutil.rmtree(self._place.output / run, ignore_errors=True)
            if not pruned.more:
                break
        if self._wal_bytes() > WAL_MAX_BYTES:
            store.checkpoint()

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self._place.store}-wal").st_size
        except OSError:
            return 0


def served_by(workers: list[Worker]) -> dict[str, set[str]] | None:
    """For each queue that these workers serve (`*`: all of them) the jobs they define; None: there is no worker."""
    if not workers:
        return None
    served: dict[str, set[str]] = {}
    for worker in workers:
        for queue in worker.queues or ("*",):
            served.setdefault(queue, set()).update(worker.jobs)
    return served
