"""`hueyctl worker`: start, status, stop and reload."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hueyctl.cli.answer import Answer, Line, Table
from hueyctl.cli.groups import Group
from hueyctl.cli.settings import settings
from hueyctl.cli.words import age
from hueyctl.errors import StoreMissing, UsageError
from hueyctl.model.wording import quoted

if TYPE_CHECKING:
    from hueyctl.app.session import Session
    from hueyctl.app.workers import WorkerStatus

worker = typer.Typer(
    cls=Group,
    help="Start, watch, stop and reload workers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Workers = Annotated[list[str] | None, typer.Argument(metavar="WORKER...", help="The first characters of its id do.")]
Every = Annotated[bool, typer.Option("--all", help="All of them.")]

_NONE = "no worker is running"


@worker.command()
def start(
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", metavar="N", min=1, max=1000, help="How many runs at a time.")
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="QUEUE", help="Serve this queue alone; repeatable, or with commas."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when nothing is left that is due.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="In the background, logging beside the store.")] = False,
    log_format: Annotated[str, typer.Option(metavar="text|json", help="How it logs.")] = "text",
) -> Answer:
    """Run jobs until told to stop. TERM and INT let what runs finish, a second one interrupts it; HUP reloads."""
    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format: expected text or json, got {quoted(log_format)}")
    session = settings.session()
    queues = tuple(name for text in queue or () for name in text.split(",") if name) or None
    from hueyctl.app.workers import unused_queues

    unused = unused_queues(session, queues or session.project.worker.queues or ())
    doubts = [f"no job, schedule or waiting run uses the queue {queue}" for queue in unused]
    if detach:
        answer = _detach(session, concurrency, queues, burst, log_format)
        answer.notes = [*doubts, *answer.notes]
        return answer
    from hueyctl.engine.log import WorkerLog
    from hueyctl.engine.worker import WorkerOptions, run_worker

    form: Literal["text", "json"] = "json" if log_format == "json" else "text"
    for doubt in doubts:
        WorkerLog(form).warning(doubt)
    session.close()
    options = WorkerOptions(concurrency=concurrency, queues=queues, burst=burst, log_format=form)
    return Answer(exit_code=run_worker(session.project, options))


@worker.command()
def status() -> Answer:
    """Show who is alive. Exit 0 only when a worker is, and has been heard of within its lease."""
    from hueyctl.app.clock import utc_now
    from hueyctl.app.workers import statuses

    now = utc_now()
    try:
        found = statuses(settings.store_session(), now=now)
    except StoreMissing:
        found = []  # nobody has worked here yet: no worker is alive, which is what was asked
    return Answer(
        documents=[{"workers": [each.public() for each in found]}],
        blocks=[workers_table(found, now)] if found else [],
        notes=[] if any(each.alive for each in found) else [_NONE],
        exit_code=0 if any(each.alive and each.fresh for each in found) else 1,
    )


@worker.command()
def stop(
    workers: Workers = None,
    every: Every = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait no longer than that (exit 124).")
    ] = None,
) -> Answer:
    """Let workers finish what they run, and end. Returns when they have gone."""
    from hueyctl.app.clock import utc_now
    from hueyctl.app.order import duration
    from hueyctl.app.workers import ask, await_gone, chosen

    patience = duration("--timeout", timeout)
    session = settings.store_session()
    living = chosen(session, workers or (), every=every, verb="stop")
    ask(session, living, "stop", now=utc_now())
    await_gone(session, living, timeout=patience)
    return Answer(
        documents=[{"workers": [each.id for each in living]}],
        blocks=[Line(f"stopped worker {each.id}") for each in living],
        notes=[] if living else [_NONE],
    )


@worker.command()
def reload(workers: Workers = None, every: Every = False) -> Answer:
    """Let workers read their jobs.toml again. A wrong one is logged there, and the old one stays."""
    from hueyctl.app.clock import utc_now
    from hueyctl.app.workers import ask, chosen

    session = settings.session()
    living = chosen(session, workers or (), every=every, verb="reload")
    asked = ask(session, living, "reload", now=utc_now())
    return Answer(
        documents=[{"workers": [each.id for each in asked]}],
        blocks=[Line(f"asked worker {each.id} to reload") for each in asked],
        notes=[] if asked else [_NONE],
    )


def workers_table(found: Sequence[WorkerStatus], now: datetime, title: str | None = None) -> Table:
    """Workers with their load and their heartbeat."""
    rows = [
        (
            each.worker.id,
            ("alive" if each.fresh else "silent") if each.alive else "dead",
            f"{each.worker.running}/{each.worker.concurrency}",
            "all" if each.worker.queues is None else ",".join(each.worker.queues),
            f"{each.worker.host}:{each.worker.pid}",
            age(each.worker.started_at, now),
            age(each.worker.beat_at, now),
            each.worker.request or "",
        )
        for each in found
    ]
    return Table(("worker", "state", "running", "queues", "process", "started", "heartbeat", "asked to"), rows, title)


def _detach(
    session: Session, concurrency: int | None, queues: tuple[str, ...] | None, burst: bool, log_format: str
) -> Answer:
    from hueyctl.engine.definitions import Definitions
    from hueyctl.engine.lacking import lacking
    from hueyctl.engine.worker import detach_worker
    from hueyctl.process.output import tail_lines

    arguments = ["--file", str(session.project.path), "worker", "start", "--log-format", log_format]
    arguments += ["--concurrency", str(concurrency)] if concurrency is not None else []
    arguments += [word for queue in queues or () for word in ("--queue", queue)]
    arguments += ["--burst"] if burst else []
    before = _size(session.place.log)
    exit_code = detach_worker(arguments, session.place)
    log = str(session.place.log)
    if exit_code == 0:
        missed = lacking(Definitions(session.project, os.environ), queues or session.project.worker.queues)
        notes = [f"{session.project.path.name}: {line}" for line in missed]
        return Answer(documents=[{"log": log}], blocks=[Line(f"worker online, logging to {log}")], notes=notes)
    said = tail_lines(session.place.log, 10).decode(errors="replace") if _size(session.place.log) > before else ""
    notes = [f"the worker did not start; its log is {log}", *said.splitlines()]
    return Answer(documents=[{"log": log}], notes=notes, exit_code=exit_code)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whether it is not there or can't be looked at, the start finds out
        return 0
