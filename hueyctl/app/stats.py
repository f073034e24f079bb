"""Rates, durations and failures by job, over some time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from hueyctl.app.session import Session
from hueyctl.errors import UsageError
from hueyctl.model.instant import iso
from hueyctl.storage.store import JobStats

LATELY = timedelta(hours=24)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How runs ended from `since` to before `until`: by job, and all together (`total`)."""

    since: datetime
    until: datetime
    jobs: Sequence[JobStats]
    total: JobStats

    def per_hour(self, of: JobStats) -> float:
        """How many runs ended in an hour, on average."""
        return of.ended / ((self.until - self.since) / timedelta(hours=1))

    def public(self) -> dict[str, Any]:
        """It as JSON-ready values; times in seconds, a rate of failures between 0 and 1."""
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "stats": [self._public(each) for each in self.jobs],
                "total": self._public(self.total),
                "since": self.since,
                "until": self.until,
            }
        )
        return found

    def _public(self, of: JobStats) -> dict[str, Any]:
        return {
            "job": of.job,
            "succeeded": of.succeeded,
            "failed": of.failed,
            "other": of.other,
            "failure_rate": of.failure_rate,
            "retried": of.retried,
            "lost": of.lost,
            "per_hour": self.per_hour(of),
            "waited": of.waited,
            "took": of.took,
        }


def stats(session: Session, job: str | None, *, since: datetime | None, until: datetime) -> Stats:
    """How runs of this job or pipeline, or of all jobs, ended from `since` (None: a day before `until`) to `until`. A
    job that is named has a line, though nothing of it ended.

    Raises:
        UsageError: `since` isn't before `until`.
    """
    since = until - LATELY if since is None else since
    if since >= until:
        raise UsageError(f"--since, {iso(since)}, is not before --until, {iso(until)}")
    *jobs, total = session.reader().stats(since=since, until=until, job=job)
    if job is not None and not jobs:
        jobs = [JobStats(job=job)]
    return Stats(since=since, until=until, jobs=jobs, total=total)
