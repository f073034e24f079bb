"""What users write, as orders: lines of a batch, times and durations; and copies of runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from hueyctl.errors import UsageError
from hueyctl.model.definition import Project
from hueyctl.model.order import Order, defined_job, lock_key, new_run, secrets_of, unique_key
from hueyctl.model.params import completed, misfit
from hueyctl.model.run import NewRun, Run
from hueyctl.model.wording import quoted


def copy_of(project: Project, run: Run, id: str) -> NewRun:
    """A new run with the parameters, queue, priority and overrides of an old one, due at once. A pipeline's has today's
    steps.

    Raises:
        NotFound: its job or pipeline is no longer defined.
        UsageError: its parameters don't fit the definition any more.
    """
    if run.is_pipeline:
        # What its row has by default was not asked for: then each step has its job's own.
        queue = None if run.queue == "default" else run.queue
        order = Order(job=run.job, params=run.message.params, queue=queue, priority=run.priority or None)
        return new_run(project, order, id)
    job = defined_job(project, run.job)
    if reason := misfit(job, run.message.params):
        raise UsageError(f"{job.name}: its parameters no longer fit the definition: {reason}")
    params = completed(job.params, run.message.params)
    message = msgspec.structs.replace(run.message, params=params, secrets=secrets_of(job))
    return NewRun(
        id=id,
        job=job.name,
        message=message,
        queue=run.queue,
        priority=run.priority,
        expires_s=None if job.expires is None else job.expires.total_seconds(),
        lock_key=lock_key(job, params),
        unique_key=unique_key(job, params),
    )


def from_line(decoded: BatchLine, *, now: datetime, timezone: str) -> Order:
    """What one line of a batch asks for; raises ValueError for a wrong time or duration."""
    return Order(
        job=decoded.job,
        params=decoded.params,
        priority=decoded.priority,
        queue=decoded.queue,
        due_at=due(decoded.delay, decoded.at, now=now, timezone=timezone),
        retries=decoded.retries,
        timeout=duration("timeout", decoded.timeout),
        expires=duration("expires", decoded.expires),
        id=decoded.id,
    )


class BatchLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of `enqueue --batch`: the options of `enqueue` under their names."""

    job: str
    params: dict[str, Any] = {}
    priority: int | None = None
    queue: str | None = None
    delay: str | int | float | None = None
    at: str | None = None
    retries: int | None = None
    timeout: str | int | float | None = None
    expires: str | int | float | None = None
    id: str | None = None


def due(delay: str | float | timedelta | None, at: str | None, *, now: datetime, timezone: str) -> datetime | None:
    """When a run is due that is to start after `delay` or at `at`; None: at once.

    Raises:
        UsageError: both are given, or one is wrong.
    """
    if delay is not None and at is not None:
        raise UsageError("only one of delay and at can be given")
    if at is not None:
        from hueyctl.model.instant import parse_instant

        try:
            return max(now, parse_instant(at, now=now, timezone=timezone, direction="future"))
        except ValueError as exc:
            raise UsageError(f"at: {exc}, got {quoted(at)}") from exc
    pause = delay if isinstance(delay, timedelta) else duration("delay", delay)
    return now + pause if pause else None


def duration(what: str, value: str | float | timedelta | None) -> timedelta | None:
    """The duration that a user wrote for `what`; raises UsageError naming it."""
    if value is None or isinstance(value, timedelta):
        return value
    from hueyctl.model.duration import parse_duration

    try:
        return parse_duration(value)
    except ValueError as exc:
        got = quoted(value) if isinstance(value, str) else value
        raise UsageError(f"{what}: {exc}, got {got}") from exc
