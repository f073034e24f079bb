"""`hueyctl inspect`: the whole at a glance, or all about one run, job, pipeline or schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from hueyctl.app.clock import utc_now
from hueyctl.app.detail import (
    AttemptView,
    HookView,
    JobDetail,
    OutputFile,
    RunDetail,
    job_detail,
    public_job,
    run_detail,
)
from hueyctl.app.finding import find_run
from hueyctl.app.overview import SHOWN, Overview, overview
from hueyctl.app.schedules import ScheduleView, public_schedule, schedule_detail, schedules, upcoming
from hueyctl.app.session import Session
from hueyctl.app.why import brief
from hueyctl.cli.answer import Answer, Block, Facts, Line, Lines, Table
from hueyctl.cli.overview import (
    next_up_table,
    overview_document,
    overview_notes,
    pauses_table,
    queues_table,
    running_table,
    shown_progress,
)
from hueyctl.cli.params import declared_params, given_params
from hueyctl.cli.pipeline import pipeline_answer, pipeline_run_answer
from hueyctl.cli.runs import runs_table
from hueyctl.cli.schedule import schedule_answer, schedules_table, slots_blocks, slots_table
from hueyctl.cli.settings import settings
from hueyctl.cli.words import as_text, beginning, count, moment, short, size
from hueyctl.cli.worker import workers_table
from hueyctl.errors import StoreMissing
from hueyctl.model.definition import CommandBody, Job, PythonBody, ScriptBody
from hueyctl.model.duration import format_duration
from hueyctl.model.instant import iso


def inspect(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A job, pipeline or schedule; or a run: an id, its first 4 or more, or last."
        ),
    ] = None,
) -> Answer:
    """Show the whole, or all about a job, pipeline, schedule or run. Of a run also why it isn't running yet."""
    session, now = settings.store_session(), utc_now()
    if name is None:
        return _overview(overview(session, now=now), upcoming(session, now=now, limit=SHOWN), now)
    if name != "last" and session.job(name):
        try:
            found = job_detail(session, name)
        except StoreMissing:
            found = JobDetail(name=name, job=session.job(name), counts={}, runs=[])
        return _with_slots(_job(found, _scheduled(session, name, now), now), session, name, now)
    if pipeline := session.project.pipelines.get(name):
        answer = pipeline_answer(session, pipeline, _scheduled(session, name, now), now)
        return _with_slots(answer, session, name, now)
    if name in session.project.schedules:
        return schedule_answer(schedule_detail(session, name, now=now), now)
    run = find_run(session, name)
    if run.is_pipeline:
        return pipeline_run_answer(session, run, now)
    return _run(run_detail(session, run, now=now), now)


def _scheduled(session: Session, name: str, now: datetime) -> list[ScheduleView]:
    """The schedules that start this job or pipeline."""
    return [each for each in schedules(session, now=now) if each.schedule.target == name]


def _with_slots(answer: Answer, session: Session, name: str, now: datetime) -> Answer:
    if name in session.project.schedules:  # of the same name as what it starts, mostly
        answer.blocks = [*answer.blocks, *slots_blocks(schedule_detail(session, name, now=now), now)]
    return answer


def _overview(seen: Overview, slots: Sequence[tuple[datetime, ScheduleView]], now: datetime) -> Answer:
    tables = [
        queues_table(seen),
        running_table(seen, now),
        next_up_table(seen, now),
        slots_table(slots, now, "next slots"),
        runs_table(seen.recent_failures, now, "recent failures"),
        workers_table(seen.workers, now, "workers"),
        pauses_table(seen, now),
    ]
    return Answer(
        documents=[overview_document(seen, slots)],
        blocks=[table for table in tables if table.rows] or [Line("nothing is live")],
        notes=overview_notes(seen),
    )


def _run(detail: RunDetail, now: datetime) -> Answer:
    run = detail.run
    document: dict[str, Any] = {
        "run": run,
        "by": detail.by,
        "hooks": detail.hooks,
        "why": detail.why,
        "progress": detail.progress,
        "expires_at": detail.expires_at,
        "attempts": detail.attempts,
        "tail": {
            "stdout": detail.stdout_tail.decode(errors="replace"),
            "stderr": detail.stderr_tail.decode(errors="replace"),
        },
    }
    blocks: list[Block] = [Facts(_facts(detail, now)), *given_params(run)]
    if detail.attempts:
        columns = ("attempt", "worker", "started", "took", "outcome", "reason")
        blocks.append(Table(columns, [_attempt_row(each, now) for each in detail.attempts], "attempts"))
    for stream, tail in (("stdout", detail.stdout_tail), ("stderr", detail.stderr_tail)):
        if tail:
            file = _output_of(detail.attempts[-1], stream) if detail.attempts else None
            where = f", {size(file.size)} in {file.path}" if file else ""
            blocks.append(Lines(_tail_lines(tail), f"the end of its {stream}{where}"))
    return Answer(documents=[msgspec.to_builtins(document)], blocks=blocks)


def _facts(detail: RunDetail, now: datetime) -> list[tuple[str, str]]:
    run = detail.run
    pairs = [
        ("run", run.id),
        ("job", run.job),
        ("state", run.state.value),
        *(("why", line) for line in detail.why),
        ("pipeline", detail.step or ""),
        ("reason", run.reason or ""),
        ("error", run.error if run.error and run.error != run.reason else ""),
        ("exit code", as_text(run.exit_code)),
        ("progress", shown_progress(detail.progress)),
        ("queue", f"{run.queue}, priority {run.priority}"),
        ("attempt", str(run.attempt)),
        ("retries left", as_text(run.retries_left)),
        ("losses", str(run.losses or "")),
        ("worker", run.worker or ""),
        ("trigger", run.trigger),
        ("by", detail.by or ""),
        ("schedule", run.schedule or ""),
        ("slot", moment(run.scheduled_at, now)),
        ("enqueued", moment(run.enqueued_at, now)),
        ("due", moment(run.due_at, now)),
        ("expires", moment(detail.expires_at, now)),
        ("started", moment(run.started_at, now)),
        ("finished", moment(run.finished_at, now)),
        ("result", beginning(as_text(run.result))),
        ("result error", run.result_error or ""),
        *((hook.on.replace("_", " "), _hook(hook)) for hook in detail.hooks),
    ]
    return [(name, value) for name, value in pairs if value]


def _hook(hook: HookView) -> str:
    if hook.reason:
        return hook.reason
    return f"{hook.job} {short(hook.run)}" + (", which stood for it" if hook.existing else "")


def _attempt_row(each: AttemptView, now: datetime) -> tuple[str, ...]:
    lasted = ""
    if each.started_at:
        lasted = brief(max(0.0, ((each.ended_at or now) - each.started_at).total_seconds()))
    started = iso(each.started_at) if each.started_at else ""
    reason = "; ".join(filter(None, (each.reason, each.output_error, each.left_running)))
    return (str(each.attempt), each.worker or "", started, lasted, each.outcome or "under way", reason)


def _output_of(each: AttemptView, stream: str) -> OutputFile | None:
    return each.stdout if stream == "stdout" else each.stderr


def _tail_lines(tail: bytes) -> list[str]:
    return [f"  {line}" for line in tail.decode(errors="replace").splitlines()]


def _job(detail: JobDetail, scheduled: Sequence[ScheduleView], now: datetime) -> Answer:
    job = detail.job
    blocks: list[Block] = []
    if job is not None:
        blocks.append(Facts(_job_facts(job)))
        if script := _script_lines(job):
            blocks.append(Lines(script, "script"))
        blocks += declared_params(job.params)
    if detail.counts:
        blocks.append(Facts([(state, str(number)) for state, number in detail.counts.items()], "live runs"))
    if scheduled:
        blocks.append(schedules_table(scheduled, now, "schedules"))
    if detail.runs:
        blocks.append(runs_table(detail.runs, now, "newest runs"))
    document = {
        "job": public_job(job) if job else None,
        "counts": detail.counts,
        "schedules": [public_schedule(settings.store_session(), view) for view in scheduled],
        "runs": detail.runs,
    }
    return Answer(documents=[msgspec.to_builtins(document)], blocks=blocks)


def _script_lines(job: Job) -> list[str]:
    """A script of several lines, as it stands in the file; nothing of any other job."""
    lines = job.body.text.strip("\n").splitlines() if isinstance(job.body, ScriptBody) else []
    return [f"  {line}" for line in lines] if len(lines) > 1 else []


def _job_facts(job: Job) -> list[tuple[str, str]]:
    match job.body:
        case CommandBody(argv=argv):
            body = [("command", as_text(argv))]
        case ScriptBody(text=text, shell=shell):
            body = [("script", "" if _script_lines(job) else text.strip()), ("shell", as_text(shell))]
        case PythonBody(target=target, isolation=isolation):
            body = [("python", f"{target}, in a thread" if isolation == "thread" else target)]
    lost = {"retry": f"retried, up to {count(job.crash_limit, 'loss', 'losses')}", "fail": "failed"}[job.on_worker_lost]
    pairs = [
        ("job", job.name),
        ("description", job.description),
        *body,
        ("dir", str(job.dir)),
        ("queue", f"{job.queue}, priority {job.priority}"),
        ("retries", _retries(job)),
        ("timeout", format_duration(job.timeout) if job.timeout is not None else ""),
        ("expires", format_duration(job.expires) if job.expires is not None else ""),
        ("lock", job.lock or ""),
        ("at once", f"{job.max_concurrent} of it" if job.max_concurrent is not None else ""),
        ("rate limit", str(job.rate_limit or "")),
        ("unique", {None: "", "job": "one live run", "params": "one live run with the same params"}[job.unique]),
        ("worker lost", lost),
        ("on failure", job.on_failure or ""),
        ("on success", job.on_success or ""),
        ("result", "its stdout as JSON" if job.result == "json" else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _retries(job: Job) -> str:
    if not job.retries:
        return "none"
    text = f"{job.retries}, after {format_duration(job.retry_delay)}"
    if job.retry_backoff != 1:
        text += f", each {job.retry_backoff:g} times as long, up to {format_duration(job.retry_max_delay)}"
    if job.retry_exit_codes is not None:
        text += f", for exit codes {', '.join(map(str, sorted(job.retry_exit_codes)))}"
    return text
