"""What surrounds a run that waits: whose turn it is, and the lock and the limits that are full, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from hueyctl.app.session import Session
from hueyctl.app.why import Surroundings, brief
from hueyctl.model.definition import Job, QueueSettings
from hueyctl.model.run import LIVE, Run, RunState
from hueyctl.model.wording import quoted
from hueyctl.storage.store import Pause, RunFilter, Store, Worker


def surroundings(
    session: Session,
    run: Run,
    *,
    workers: Sequence[Worker],
    pauses: Sequence[Pause],
    under_way: Sequence[Run],
    now: datetime,
    ahead: int = 0,
    before: Sequence[Run] = (),
) -> Surroundings:
    """What decides about a run, where these workers live, these switches are set and these runs are under way."""
    store, job = session.reader(), session.job(run.job)
    return Surroundings(
        workers=workers,
        pauses=pauses,
        ahead=ahead,
        now=now,
        full=_what_is_full(store, run, job, session.project.queues, under_way=under_way, now=now),
        before=before,
        turn=_whose_turn(store, run),
    )


def _whose_turn(store: Store, run: Run) -> Run | None:
    """Where a run waits for its turn in its schedule: whose it is, the oldest live one that waits for no other."""
    whole = run if run.pipeline is None else store.get(run.pipeline)
    if whole is None or whole.gate is None or not whole.gate.startswith("schedule:"):
        return None
    live = store.runs(RunFilter(schedule=whole.schedule, states=tuple(LIVE)), limit=None)
    return next((each for each in reversed(live) if each.gate != whole.gate), None)


def _what_is_full(
    store: Store,
    run: Run,
    job: Job | None,
    queues: Mapping[str, QueueSettings],
    *,
    under_way: Sequence[Run],
    now: datetime,
) -> list[str]:
    """Why this run isn't claimed although it is queued, by this file's limits; nothing where nothing is full."""
    if run.state is not RunState.QUEUED:
        return []
    found = []
    holder = None if run.lock_key is None else store.lock_holder(run.lock_key)
    if holder is not None:
        since = brief(max(0.0, (now - holder.since).total_seconds()))
        found.append(f"waiting for lock {run.lock_key}, held by run {holder.run[:8]} for {since}")
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
