"""The keeper: the thread that takes dead workers' runs back, sweeps, prunes and checkpoints.

Promises:
- A worker is rescued when both its locks are free, or when its beat stood still for a whole lease of this thread's own
  monotonic clock, counting only time in which the store could be written: whoever could not beat then, because
  nobody could write, is not taken for dead. Before its runs are given back, what it may have left running is killed.
- One worker of a store prunes and checkpoints (the holder of the maintenance lock); every one rescues, since a
  rescue is fenced, and the holder of that lock may be the one that hangs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain

from hueyctl.engine.definitions import Definitions
from hueyctl.engine.heart import pause_between_beats
from hueyctl.engine.log import WorkerLog
from hueyctl.engine.periodic import Periodic
from hueyctl.errors import StoreBusy, StoreFull, StoreReadOnly, StoreUncertain
from hueyctl.process.client import kill_what_outlived
from hueyctl.storage.bell import ring
from hueyctl.storage.locks import HeldLock, clear, hold, is_free, is_of_here, nobody_holds, worker_is_dead
from hueyctl.storage.place import Place
from hueyctl.storage.store import Store, Worker
from hueyctl.storage.tidying import Tidied, orphan_steps, prune_steps

WAL_MAX_BYTES = 4 * 1024 * 1024
TIDY_S = 1.0  # then others are looked after again
LOOK_AGAIN_S = 0.02  # and then twice as long each time
ORPHANS_EVERY_S = 86_400.0  # few are ever there, and looking for them takes a look at every run's output


class BeatWatch:
    """Tells which workers' beats have stood still for their whole lease, by one monotonic clock.

    Only time in which the worker `own`, whose process this is, has beaten counts, and of a longer gap no more than the
    usual pause: in the rest of it this process didn't run, or nobody could beat (the store was locked, its disk full).
    """

    def __init__(self, own: str, pause_s: float) -> None:
        self._own = own
        self._longest_s = 1.2 * pause_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._heard: set[str] = set()
        self._last: tuple[int, float] | None = None

    def observe(self, workers: Sequence[Worker], now: float) -> list[Worker]:
        """The workers among all of these that are out of their lease at `now` (monotonic seconds)."""
        beat = next((worker.beat for worker in workers if worker.id == self._own), None)
        if beat is None or (self._last is not None and beat == self._last[0]):
            return []
        passed = 0.0 if self._last is None else min(now - self._last[1], self._longest_s)
        self._last = beat, now
        silent = []
        seen = {}
        for worker in workers:
            known = self._seen.get(worker.id)
            if known is not None and known[0] != worker.beat:
                self._heard.add(worker.id)
            still_s = known[1] + passed if known is not None and known[0] == worker.beat else 0.0
            seen[worker.id] = (worker.beat, still_s)
            if still_s >= worker.lease_s and worker.id != self._own:
                silent.append(worker)
        self._seen = seen
        self._heard &= seen.keys()
        return silent

    def has_heard(self, worker: Worker) -> bool:
        """Has this one beaten since it was first observed?"""
        return worker.id in self._heard


class Keeper(Periodic):
    """Looks after the store and its other workers, for one worker."""

    def __init__(
        self,
        *,
        worker: str,
        place: Place,
        definitions: Callable[[], Definitions],
        ended: Callable[[], None],
        log: WorkerLog,
    ) -> None:
        pause_s = pause_between_beats(definitions().project.worker.lease)
        super().__init__("Keeper", pause_s=pause_s, ended=ended)
        self._worker, self._place, self._definitions, self._log = worker, place, definitions, log
        self._watch = BeatWatch(worker, pause_s)
        self.has_looked = False  # at all others, once at least: what the dead had left is back in the queue
        self._usual_pause_s = pause_s
        self._maintenance: HeldLock | None = None
        self._lacks_lock = False  # it can't be opened, which has been said
        self._orphans: Iterator[Tidied] = iter(())  # a search under way, over many turns
        self._orphans_at = time.monotonic()

    def turn(self, store: Store) -> None:
        for what in (self._rescue, self._tidy, self._shorten_log):
            try:
                what(store)
            except (StoreBusy, StoreFull, StoreUncertain) as exc:  # all of it can be done again
                self._log.warning(f"upkeep has to wait: {exc}")
                if not isinstance(exc, StoreFull):  # it may be the log that fills the disk
                    return

    def stop(self) -> None:
        super().stop()
        if self._maintenance is not None:
            self._maintenance.release()

    def _rescue(self, store: Store) -> None:
        workers = store.workers()
        others = [worker for worker in workers if worker.id != self._worker]
        dead = {worker.id: "its processes are gone" for worker in others if worker_is_dead(self._place, worker.id)}
        self._look_again_soon(any(worker.id not in dead and self._is_dying(worker.id) for worker in others))
        served = served_by([worker for worker in workers if worker.id not in dead])
        hooks = self._definitions().hooks
        changed = store.sweep(served=served, now=datetime.now(UTC), hooks=hooks)
        silent = {
            worker.id: worker
            for worker in self._watch.observe(workers, time.monotonic())
            # The guard of one of this machine ends before its lease is over, unless it hears from its worker.
            if not is_of_here(self._place, worker.id) or self._is_dying(worker.id)
        }
        beats: dict[str, int] = {}  # of those that are dead by their silence alone
        for id, worker in silent.items():
            if id not in dead:
                dead[id], beats[id] = f"no heartbeat for {worker.lease_s:g} s", worker.beat
        for id, cause in dead.items():
            if id in beats and all((each.id, each.beat) != (id, beats[id]) for each in store.workers()):
                continue  # it has gone on meanwhile: what it runs by now isn't to be killed
            self._log.warning(f"worker {id} is dead: {cause}")
            if not kill_what_outlived(self._place.guard_lock(id)) and id not in silent:
                self._log.warning(f"what worker {id} ran can't be killed yet; its runs are given back when it is gone")
                continue
            for run in store.rescue(id, cause=cause, now=datetime.now(UTC), hooks=hooks, beat=beats.get(id)):
                changed += 1
                with suppress(OSError):
                    self._place.progress(run.id, run.attempt).unlink()  # its guard would have, at the attempt's end
                self._log.warning(f"{run.job} {run.id[:8]} attempt {run.attempt} was lost with it; now {run.state}")
        before, self.has_looked = self.has_looked, self.has_looked or not self._in_doubt(store, others, dead)
        if changed or dead or before != self.has_looked:  # a burst waits for the first look
            ring(self._place.bell, b"work")
        self._clear_locks({worker.id for worker in workers} - dead.keys())

    def _is_dying(self, id: str) -> bool:
        """Is this worker of this machine, and its guard gone? A guard rings when it has ended, and of a worker that was
        killed the kernel may still be closing the files then: its own lock is freed with them."""
        return is_of_here(self._place, id) and is_free(self._place.guard_lock(id))

    def _look_again_soon(self, is_one_dying: bool) -> None:
        if not is_one_dying:
            self.pause_s = self._usual_pause_s
        elif self.pause_s == self._usual_pause_s:
            self.pause_s = LOOK_AGAIN_S
        else:
            self.pause_s = min(2 * self.pause_s, self._usual_pause_s)

    def _in_doubt(self, store: Store, others: Sequence[Worker], dead: Collection[str]) -> bool:
        """Is there one that has something under way, and may be dead: it is dying, or of another machine, silent for
        less than its lease, and not heard of either?"""

        def may_be_dead(worker: Worker) -> bool:
            if is_of_here(self._place, worker.id):
                return self._is_dying(worker.id)
            return not self._watch.has_heard(worker)

        left = [worker for worker in others if worker.id not in dead]
        return any(may_be_dead(worker) and store.running(worker=worker.id) for worker in left)

    def _clear_locks(self, known: Collection[str]) -> None:
        """Remove what the dead left of their locks: every command that opens the store looks at each."""
        with suppress(OSError):
            left = {name.partition(".")[0] for name in os.listdir(self._place.workers)}
            for id in left - set(known):
                if nobody_holds(self._place, id):
                    clear(self._place, id)

    def _is_maintainer(self) -> bool:
        if self._maintenance is None:
            try:
                self._maintenance = hold(self._place.maintenance_lock)
                self._lacks_lock = False
            except StoreReadOnly as exc:  # no inode, or no descriptor, is left: later
                if not self._lacks_lock:
                    self._log.warning(f"upkeep has to wait: {exc}")
                self._lacks_lock = True
        return self._maintenance is not None

    def _shorten_log(self, store: Store) -> None:
        """Where it is large, or larger than what is left of its disk: of many versions of a page one stays."""
        if self._is_maintainer() and self._wal_bytes() > min(WAL_MAX_BYTES, self._free_bytes()):
            store.checkpoint()

    def _tidy(self, store: Store) -> None:
        """Delete what is to be deleted, for a while: the rest at once, in another turn."""
        if not self._is_maintainer():
            return
        now, deadline = datetime.now(UTC), time.monotonic() + TIDY_S
        if time.monotonic() >= self._orphans_at:
            self._orphans_at = time.monotonic() + ORPHANS_EVERY_S
            self._orphans = orphan_steps(store, self._place, now=now)
        for _ in chain(prune_steps(store, self._place, self._definitions().project.retention, now=now), self._orphans):
            if self.stopping or time.monotonic() >= deadline:
                self.wake()
                return

    def _free_bytes(self) -> float:
        try:
            found = os.statvfs(self._place.dir)
        except OSError:
            return math.inf
        return found.f_bavail * found.f_frsize

    def _wal_bytes(self) -> int:
        try:
            return os.stat(f"{self._place.path}-wal").st_size
        except OSError:
            return 0


def served_by(workers: Sequence[Worker]) -> dict[str, set[str]] | None:
    """For each queue that these workers serve (`*`: all of them) the jobs they define; None: there is no worker."""
    if not workers:
        return None
    served: dict[str, set[str]] = {}
    for worker in workers:
        for queue in worker.queues or ("*",):
            served.setdefault(queue, set()).update(worker.jobs)
    return served
