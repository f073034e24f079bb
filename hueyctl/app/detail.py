"""All about one run, or about one job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from hueyctl.app.elsewhere import bring
from hueyctl.app.events import events_after
from hueyctl.app.overview import Progress, progress
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.surroundings import surroundings
from hueyctl.app.why import why_not_running
from hueyctl.app.workers import alive
from hueyctl.model.definition import CommandBody, Job, Param, PythonBody, ScriptBody
from hueyctl.model.event import REMARKS, Event, EventType
from hueyctl.model.run import Run, RunState
from hueyctl.process.output import tail_lines
from hueyctl.storage.store import EventFilter, RunFilter, Store

TAIL_LINES = 10
RECENT_RUNS = 10

SHOWN_STEPS = 10

_MAY_RUN = (RunState.SCHEDULED, RunState.QUEUED, RunState.HELD, RunState.RUNNING)
_ENDS = {
    EventType.COMPLETE,
    EventType.ERROR,
    EventType.TIMEOUT,
    EventType.CANCELED,
    EventType.INTERRUPTED,
    EventType.RELEASED,
    EventType.LOST,
}


_BEGINNINGS = {EventType.ENQUEUED, EventType.SCHEDULED}


class OutputFile(msgspec.Struct, frozen=True):
    """Where an attempt's stream lies, and how much of it there is (bytes)."""

    path: str
    size: int


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as the event log tells it. `outcome` is the type of the event that ended it; None: under way.
    `output_error` says that not all of its output could be kept, and why; `left_running` what it left running, and was
    killed."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    output_error: str | None = None
    left_running: str | None = None
    stdout: OutputFile | None = None
    stderr: OutputFile | None = None


class HookView(msgspec.Struct, frozen=True, kw_only=True):
    """A hook that followed: `on` is `on_failure` or `on_success`, `run` the id of its job's run (`existing`: it stood
    there before); None where none could be enqueued, for `reason`."""

    on: str
    job: str | None = None
    run: str | None = None
    existing: bool = False
    reason: str | None = None


class RunDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One run, why it isn't running, its attempts, and the last lines of its newest attempt (secrets masked).

    `by` is who enqueued it, as far as the event log still knows: `alice@host`, `schedule nightly`, and for a hook's run
    that which it followed, `run 3f2a…`. `step`: which step of which pipeline it is, in words.
    """

    run: PublicRun
    by: str | None
    step: str | None
    hooks: list[HookView]
    why: list[str]
    progress: Progress | None
    expires_at: datetime | None
    attempts: list[AttemptView]
    stdout_tail: bytes
    stderr_tail: bytes


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One job: its definition (None: it is no longer defined), its live runs by state, its newest runs."""

    name: str
    job: Job | None
    counts: dict[str, int]
    runs: list[PublicRun]


def run_detail(session: Session, run: Run, *, now: datetime) -> RunDetail:
    """All about a run, as it is now."""
    mask, place = session.mask(run), session.place
    for attempt in range(1, run.attempt + 1):
        bring(session, run, attempt)
    events = [event for page in events_after(session, EventFilter(run=run.id), after=0) for event in page]
    return RunDetail(
        run=public_of(session, run),
        by=_enqueued_by(events),
        hooks=[msgspec.convert(event.data, HookView) for event in events if event.type == EventType.HOOK],
        step=_step_in_words(session.reader(), run),
        why=why(session, run, now=now),
        progress=progress(session, run),
        expires_at=run.expires_at,
        attempts=[_with_output(session, run.id, attempt) for attempt in attempts(events)],
        stdout_tail=mask.whole(_tail(place.stdout(run.id, run.attempt))),
        stderr_tail=mask.whole(_tail(place.stderr(run.id, run.attempt))),
    )


def _tail(path: Path) -> bytes:
    """The last lines of a stream, or why they can't be read."""
    try:
        return tail_lines(path, TAIL_LINES)
    except OSError as exc:
        return f"(it can't be read: {exc.strerror})".encode()


def enqueued_by(session: Session, run: Run) -> str | None:
    """Who enqueued it, as far as the event log still knows; of a pipeline, which has many events, by its first."""
    return _enqueued_by(next(events_after(session, EventFilter(run=run.id), after=0, limit=1), ()))


def why(session: Session, run: Run, *, now: datetime) -> list[str]:
    """Why this run isn't running, one line for each reason, secrets masked; of a pipeline that is begun or may begin,
    why steps of it that could run don't."""
    store = session.reader()
    if run.is_pipeline and run.gate is None:
        waiting = [each.run for each in store.steps(run.id) if each.run.state in _MAY_RUN][:SHOWN_STEPS]
        return [f"step {step.job}, {step.id[:8]}: {line}" for step in waiting for line in why(session, step, now=now)]
    around = surroundings(
        session,
        run,
        workers=alive(session, store),
        pauses=store.pauses(),
        under_way=store.running(),
        now=now,
        ahead=store.ahead_of(run) if run.state is RunState.QUEUED else 0,
        before=_waited_for(store, run),
    )
    return [session.mask(run).text(line) for line in why_not_running(run, around)]


def job_detail(session: Session, name: str) -> JobDetail:
    """All about a job; raises StoreMissing where there is no store yet."""
    store = session.reader()
    counts: dict[str, int] = {}
    for line in store.lines():
        if line.job == name:
            counts[line.state.value] = counts.get(line.state.value, 0) + line.count
    runs = [public_of(session, run) for run in store.runs(RunFilter(job=name), limit=RECENT_RUNS)]
    return JobDetail(name=name, job=session.job(name), counts=counts, runs=runs)


def attempts(events: Sequence[Event]) -> list[AttemptView]:
    """The attempts that these events of one run tell of, in order."""
    found: dict[int, AttemptView] = {}
    for event in events:
        if event.attempt is None:
            continue
        known = found.get(event.attempt)
        if event.type == EventType.EXECUTING:
            found[event.attempt] = AttemptView(attempt=event.attempt, worker=event.worker, started_at=event.time)
        elif event.type in _ENDS:
            # Its beginning may have been pruned.
            known = known or AttemptView(attempt=event.attempt, worker=event.worker, started_at=None)
            if known.outcome is None:
                found[event.attempt] = msgspec.structs.replace(
                    known,
                    ended_at=_end(event, known.started_at),
                    outcome=event.type,
                    reason=event.data.get("reason") or event.data.get("cause"),
                    **{name: event.data.get(name) for name in REMARKS},
                )
    return list(found.values())


def _end(event: Event, started_at: datetime | None) -> datetime:
    """When the attempt ended that this event is of. A store that takes nothing for a while records it later."""
    duration_s = event.data.get("duration_s")
    return event.time if started_at is None or duration_s is None else started_at + timedelta(seconds=duration_s)


def public_job(job: Job) -> dict[str, Any]:
    """A definition as JSON-ready values: durations are seconds, the defaults of secret parameters masked."""
    rate = job.rate_limit
    match job.body:
        case CommandBody(argv=argv):
            body: dict[str, Any] = {"command": list(argv)}
        case ScriptBody(text=text, shell=shell):
            body = {"script": text, "shell": list(shell)}
        case PythonBody(target=target, isolation=isolation):
            body = {"python": target, "isolation": isolation}
    return {
        "name": job.name,
        "kind": job.kind,
        "description": job.description,
        **body,
        "params": public_params(job.params),
        "queue": job.queue,
        "priority": job.priority,
        "retries": job.retries,
        "retry_delay": job.retry_delay.total_seconds(),
        "retry_backoff": job.retry_backoff,
        "retry_max_delay": job.retry_max_delay.total_seconds(),
        "retry_exit_codes": None if job.retry_exit_codes is None else sorted(job.retry_exit_codes),
        "success_codes": sorted(job.success_codes),
        "timeout": None if job.timeout is None else job.timeout.total_seconds(),
        "kill_after": job.kill_after.total_seconds(),
        "expires": None if job.expires is None else job.expires.total_seconds(),
        "on_failure": job.on_failure,
        "on_success": job.on_success,
        "on_worker_lost": job.on_worker_lost,
        "crash_limit": job.crash_limit,
        "lock": job.lock,
        "max_concurrent": job.max_concurrent,
        "rate_limit": None if rate is None else {"count": rate.count, "per": rate.per.total_seconds()},
        "unique": job.unique,
        "result": job.result,
        "dir": str(job.dir),
    }


def public_params(params: Sequence[Param]) -> list[dict[str, Any]]:
    """Declared parameters as JSON-ready values, the defaults of secret ones masked."""
    return [
        {
            "name": param.name,
            "type": param.type,
            "required": param.required,
            "default": "***" if param.secret and param.default is not None else param.default,
            "choices": None if param.choices is None or param.secret else list(param.choices),
            "secret": param.secret,
            "description": param.description,
        }
        for param in params
    ]


def _enqueued_by(events: Sequence[Event]) -> str | None:
    return next((event.by for event in events if event.type in _BEGINNINGS), None)


def _waited_for(store: Store, run: Run) -> list[Run]:
    """What keeps a waiting step waiting: the steps before it that have not succeeded."""
    if run.state is not RunState.WAITING or run.position is None or run.pipeline is None:
        return []
    steps = store.steps(run.pipeline)
    before = [steps[position].run for position in steps[run.position].after]
    return [step for step in before if step.state is not RunState.SUCCEEDED]


def _step_in_words(store: Store, run: Run) -> str | None:
    if run.pipeline is None or run.position is None:
        return None
    whole = store.get(run.pipeline)
    name = whole.job if whole else "a pipeline"
    return f"{run.pipeline[:8]}: step {run.position + 1} of {len(store.steps(run.pipeline))} of {name}"


def _with_output(session: Session, run: str, attempt: AttemptView) -> AttemptView:
    place = session.place
    return msgspec.structs.replace(
        attempt,
        stdout=_file(str(place.stdout(run, attempt.attempt))),
        stderr=_file(str(place.stderr(run, attempt.attempt))),
    )


def _file(path: str) -> OutputFile | None:
    import os

    try:
        return OutputFile(path, os.stat(path).st_size)
    except OSError:
        return None
