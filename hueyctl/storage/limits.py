"""Limits: which lines a claim finds closed, since enough of their runs run or have started.

They are the claiming worker's (`Want`), and count over all workers. What a closed line holds waits in its place:
nothing is moved or looked at for it (but its first run, whose turn a rate limit puts off, is told so once).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from hueyctl.model.run import Run
from hueyctl.storage.database import Database
from hueyctl.storage.rows import MICROSECOND
from hueyctl.storage.store import Want

# Those that run are few: as many as all workers have threads. What no worker has is a pipeline.
RUNNING: Final = """
SELECT queue, job, count(*) FROM runs INDEXED BY runs_running WHERE state = 'running' AND worker > ''
GROUP BY queue, job
"""

# A clock that was set back leaves starts in the future: they count as now, or nothing would start until then.
FUTURE: Final = "at > ?1 + 60000000"
NOW: Final = f"""
INSERT INTO starts (job, at, n) SELECT job, ?1, n FROM starts WHERE job = ?2 AND {FUTURE} ON CONFLICT DO NOTHING
"""
NOT_THEN: Final = f"DELETE FROM starts WHERE job = ?2 AND {FUTURE}"
# What has left the window is kept for as long as a worker may have waited for the write lock since it looked at its
# clock: one whose `at` is a moment earlier must still find what is in its window.
PASSED: Final = "DELETE FROM starts WHERE job = ? AND at <= ? - 60000000"
IN_WINDOW: Final = "SELECT count(*) FROM starts WHERE job = ? AND at > ?"
STARTED: Final = "INSERT INTO starts (job, at, n) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
# The start that must leave the window before another one fits into it.
IN_THE_WAY: Final = "SELECT at FROM starts WHERE job = ? ORDER BY at DESC LIMIT 1 OFFSET ?"


class Limits:
    """What `want` may still take of each job and queue in one transaction at `at` (microseconds), with the switches of
    `paused` set (as kind and name)."""

    def __init__(self, database: Database, want: Want, at: int, *, paused: Collection[tuple[str, str]]) -> None:
        self.opens_at: int | None = None
        """When the first rate limit that closed a line opens it again."""
        self.throttled: dict[str, int] = {}
        """When each job may start again of which a run was held back by its rate limit."""
        self.put_off = False
        """Was it a rate limit that didn't allow what was asked last?"""
        self.want = want
        self.paused = paused
        self._database, self._at = database, at
        self._running: tuple[Counter[str], Counter[str]] | None = None
        self._rate_left: dict[str, int] = {}

    def allow(self, queue: str, job: str) -> bool:
        """May one more run of this line start? Asked when one waits there."""
        self.put_off = False
        policy, of_queue = self.want.jobs[job], self.want.queue_limits.get(queue)
        if of_queue is not None and self._counts()[0][queue] >= of_queue:
            return False
        if policy.max_concurrent is not None and self._counts()[1][job] >= policy.max_concurrent:
            return False
        self.put_off = policy.rate_limit is not None and not self._rate_allows(job, policy.rate_limit.count)
        return not self.put_off

    def count(self, run: Run) -> None:
        """This run has been claimed."""
        if self._running is not None:
            self._running[0][run.queue] += 1
            self._running[1][run.job] += 1
        if self.want.jobs[run.job].rate_limit is not None:
            self._rate_left[run.job] -= 1
            self._database.run(STARTED, run.job, self._at, run.n)

    def _counts(self) -> tuple[Counter[str], Counter[str]]:
        if self._running is None:
            self._running = running(self._database)
        return self._running

    def _rate_allows(self, job: str, most: int) -> bool:
        left = self._rate_left.get(job)
        if left is None:
            self._database.run(NOW, self._at, job)
            self._database.run(NOT_THEN, self._at, job)
            begin = self._at - self._window(job)
            self._database.run(PASSED, job, begin)
            row = self._database.one(IN_WINDOW, job, begin)
            left = self._rate_left[job] = most - (row[0] if row else 0)
        if left > 0:
            return True
        row = self._database.one(IN_THE_WAY, job, most - 1)
        if row is not None:
            opens_at = self.throttled[job] = row[0] + self._window(job)
            self.opens_at = opens_at if self.opens_at is None else min(opens_at, self.opens_at)
        return False

    def _window(self, job: str) -> int:
        limit = self.want.jobs[job].rate_limit
        assert limit is not None, "only asked for those that have one"
        return limit.per // MICROSECOND


def bounds(want: Want, run: Run | None) -> bool:
    """May others be waiting for the end of this run, since so many of its job or queue may run at once?"""
    if run is None:
        return False
    policy = want.jobs.get(run.job)
    return run.queue in want.queue_limits or (policy is not None and policy.max_concurrent is not None)


def running(database: Database) -> tuple[Counter[str], Counter[str]]:
    """How many runs are under way, by queue and by job."""
    queues: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    for queue, job, count in database.all(RUNNING):
        queues[queue] += count
        jobs[job] += count
    return queues, jobs
