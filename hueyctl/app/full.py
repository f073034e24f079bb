"""What is full: the lock and the limits that keep a queued run waiting, one line each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from hueyctl.app.why import brief
from hueyctl.model.definition import Job, QueueSettings
from hueyctl.model.run import Run, RunState
from hueyctl.model.wording import quoted
from hueyctl.storage.store import Store


def what_is_full(
    store: Store, run: Run, job: Job | None, queues: Mapping[str, QueueSettings], *, now: datetime
) -> list[str]:
    """Why this run isn't claimed although it is queued, by this file's limits; nothing where nothing is full."""
    if run.state is not RunState.QUEUED:
        return []
    found = []
    holder = None if run.lock_key is None else store.lock_holder(run.lock_key)
    if holder is not None:
        since = brief(max(0.0, (now - holder.since).total_seconds()))
        found.append(f"waiting for lock {run.lock_key}, held by run {holder.run[:8]} since {since}")
    under_way = store.running()
    most = None if job is None else job.max_concurrent
    if most is not None and sum(each.job == run.job for each in under_way) >= most:
        found.append(f"max_concurrent {most} of job {run.job} reached")
    most = queues[run.queue].concurrency if run.queue in queues else None
    if most is not None and sum(each.queue == run.queue for each in under_way) >= most:
        found.append(f"concurrency {most} of the queue {quoted(run.queue)} reached")
    if job is not None and job.rate_limit is not None:
        opens_at = store.rate_opens_at(run.job, job.rate_limit, now=now)
        if opens_at is not None:
            found.append(f"rate limit {job.rate_limit}: next in {brief((opens_at - now).total_seconds())}")
    return found
