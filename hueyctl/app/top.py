"""The whole at a glance, again and again: when something has changed, and now and then in any case."""

from __future__ import annotations

import select
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import msgspec

from hueyctl.app.clock import utc_now
from hueyctl.app.overview import Overview, overview
from hueyctl.app.session import Session
from hueyctl.app.watch import Watch
from hueyctl.model.run import RunState
from hueyctl.storage.store import Store

LATELY = timedelta(minutes=1)
LEAST_S = 0.25
"""Between two looks, however much happens: nobody reads faster, and each costs a worker's machine something."""


class Throughput(msgspec.Struct, frozen=True):
    """How many runs ended in the last `seconds`; `other` are those that were revoked, expired or skipped."""

    seconds: float
    succeeded: int
    failed: int
    other: int

    @property
    def ended(self) -> int:
        """How many, in whatever state."""
        return self.succeeded + self.failed + self.other


class Look(msgspec.Struct, frozen=True):
    """The whole as it was at `at`."""

    at: datetime
    overview: Overview
    throughput: Throughput


def looks(session: Session, *, interval: timedelta, wake: Sequence[int] = ()) -> Generator[Look]:
    """The whole at once, then whenever something has changed, and an `interval` after the last look at the latest; but
    at once if something is to be read from one of the descriptors `wake`: what that is, is the caller's.

    Raises:
        StoreMissing: there is none.
        StoreReplaced: it was deleted, moved or replaced meanwhile.
    """
    store = session.reader()
    pace = _Pace(store)
    yield _look(session, pace)
    with Watch(session, wake=wake) as watch:
        while True:
            deadline = monotonic() + interval.total_seconds()
            woken = _readable(wake, LEAST_S)
            while not woken and watch.ask(store.last_seq) == pace.seq and watch.wait(deadline):
                woken = _readable(wake, 0)
            yield watch.ask(partial(_look, session, pace))


def _look(session: Session, pace: _Pace) -> Look:
    now = utc_now()
    # The pace first: whatever happens behind it has another number, and is looked at again.
    throughput = pace.lately(now)
    return Look(now, overview(session, now=now), throughput)


class _Pace:
    """Counts the runs that ended lately. `seq` is that of the newest event that it knows of: none is read twice."""

    def __init__(self, store: Store) -> None:
        self.seq: int | None = None
        self._store = store
        self._counts: Counter[tuple[datetime, RunState]] = Counter()

    def lately(self, now: datetime) -> Throughput:
        """Of the last minute, to the second."""
        found = self._store.ends(since=now - LATELY, after=self.seq)
        self.seq = found.seq
        self._counts.update(found.counts)
        self._counts = Counter({key: count for key, count in self._counts.items() if key[0] > now - LATELY})
        by_state: Counter[RunState] = Counter()
        for (_, state), count in self._counts.items():
            by_state[state] += count
        succeeded, failed = by_state[RunState.SUCCEEDED], by_state[RunState.FAILED]
        return Throughput(LATELY.total_seconds(), succeeded, failed, by_state.total() - succeeded - failed)


def _readable(fds: Sequence[int], timeout_s: float) -> bool:
    return bool(select.select(fds, (), (), timeout_s)[0])
