"""The heart: the thread that proves its worker alive, to other workers through the store, and to its own guard.

It does nothing else, and has a store connection of its own: neither a slow disk under the dispatcher nor a long prune
delays a beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hueyctl.engine.log import WorkerLog
from hueyctl.engine.periodic import Periodic
from hueyctl.errors import StoreBusy, StoreFull, StoreUncertain, StoreUnreachable
from hueyctl.storage.store import Store

BEATS_PER_LEASE = 3
LONGEST_PAUSE_S = 10.0
FULL_PAUSE_S = 1.0  # between tries while the disk is full


def pause_between_beats(lease: timedelta) -> float:
    """Seconds between two beats of a worker with this lease."""
    return min(lease.total_seconds() / BEATS_PER_LEASE, LONGEST_PAUSE_S)


def patience_of_a_beat(lease: timedelta) -> float:
    """Seconds that a beat may wait for a locked store. With the pause it is half a lease: the guard, which kills
    everything after two thirds of one without a sign of life, must hear of a worker that only waits."""
    return pause_between_beats(lease) / 2


class Heart(Periodic):
    """Beats three times a lease. `renewed` is called after each beat with the monotonic time right before it, whence
    the lease runs; `declared_dead` when somebody has rescued this worker's runs."""

    def __init__(
        self,
        *,
        worker: str,
        lease: timedelta,
        tick: Callable[[], None],
        renewed: Callable[[float], None],
        running: Callable[[], int],
        declared_dead: Callable[[], None],
        ended: Callable[[], None],
        log: WorkerLog,
    ) -> None:
        super().__init__("Heart", pause_s=pause_between_beats(lease), ended=ended)
        self._worker, self._tick, self._renewed, self._running = worker, tick, renewed, running
        self._declared_dead, self._log = declared_dead, log
        self._missed = False
        self._usual_pause_s = self.pause_s

    def turn(self, store: Store) -> None:
        """Beat, and tell the guard that this worker lives, wherever it may still do so."""
        before = time.monotonic()
        try:
            present = store.beat(self._worker, running=self._running(), now=datetime.now(UTC))
        except (StoreBusy, StoreFull, StoreUncertain) as exc:
            if not self._missed:
                self._log.warning(f"no heartbeat: {exc}")
            self._missed = True
            if not isinstance(exc, StoreUnreachable | StoreUncertain):
                # Where nobody can write, nobody can find this worker silent either: its bodies may go on. Where it is
                # cut off from a server, others may: then the guard must end them before its runs are given back.
                self._tick()
            # Others may write in between: the next try must not come a pause later than theirs.
            if isinstance(exc, StoreFull):
                self.pause_s = min(self._usual_pause_s, FULL_PAUSE_S)  # at once, it would be full still
            else:
                self.wake()
            return
        self.pause_s = self._usual_pause_s
        if self._missed:
            self._missed = False
            self._log.info("the store is there again")
        if present:
            self._renewed(before)
            self._tick()
        else:
            self._declared_dead()
