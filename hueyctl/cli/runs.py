"""`hueyctl runs`, `logs`, `result` and `wait`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated

import msgspec
import typer

from hueyctl.app import finding
from hueyctl.app.changes import utc_now
from hueyctl.app.public import PublicRun, public
from hueyctl.app.session import Session
from hueyctl.app.wait import failure
from hueyctl.app.wait import wait as wait_for
from hueyctl.cli.answer import Answer, Line, Raw, Table
from hueyctl.cli.options import JobName, Limit, OneRun, Runs, Since, States, Until, instant, timeout
from hueyctl.cli.settings import settings
from hueyctl.cli.words import age, short, took
from hueyctl.errors import UsageError
from hueyctl.model.run import Run
from hueyctl.storage.store import RunFilter


def runs(
    *,
    state: States = None,
    job: JobName = None,
    queue: Annotated[str | None, typer.Option(help="Of this queue.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of this schedule.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
) -> Answer:
    """List runs, the newest first."""
    session, now = settings.session(), utc_now()
    where = RunFilter(
        states=finding.parse_states(state),
        job=finding.known_job(session, job),
        queue=finding.known_queue(session, queue),
        schedule=finding.known_schedule(session, schedule),
        since=instant("since", since, now),
        until=instant("until", until, now),
    )
    found = session.reader().runs(where, limit=limit + 1)
    more = len(found) > limit
    shown = [public(run, session.job(run.job)) for run in found[:limit]]
    notes = [] if shown else ["no runs"]
    return Answer(
        documents=[{"runs": msgspec.to_builtins(shown), **({"more": True} if more else {})}],
        blocks=[runs_table(shown, now)] if shown else [],
        notes=[f"there are more: --limit {limit * 2}"] if more else notes,
    )


def runs_table(runs: Sequence[PublicRun], now: datetime, title: str | None = None) -> Table:
    """Runs, one a line."""
    rows = [
        (
            short(run.id),
            run.job,
            run.state.value,
            run.queue,
            str(run.priority),
            str(run.attempt),
            age(run.enqueued_at, now),
            took(run, now),
            run.reason or "",
        )
        for run in runs
    ]
    columns = ("run", "job", "state", "queue", "priority", "attempt", "enqueued", "took", "reason")
    return Table(columns, rows, title)


def logs(
    *,
    run: OneRun,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until it ends.")] = False,
    attempt: Annotated[int | None, typer.Option(metavar="N", help="Of this attempt instead of the newest.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="The last lines of each stream alone.")
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Its standard output alone.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Its standard error alone.")] = False,
) -> Iterable[Answer]:
    """Show what a run printed: its output, then its errors; with --follow as they come. Into a pipe as it was."""
    from hueyctl.app.output import BOTH, Chunk, Stream, follow_logs, read_logs

    session = settings.session()
    found = finding.find_run(session, run)
    streams: tuple[Stream, ...] = BOTH if stdout == stderr else (("stdout",) if stdout else ("stderr",))
    read = follow_logs if follow else read_logs
    chunks = read(session, found, attempt=attempt, streams=streams, last=limit)
    if settings.as_json and not follow:
        return _logs_document(found, attempt or found.attempt, chunks)

    def answer(chunk: Chunk) -> Answer:
        document = {
            "run": found.id,
            "attempt": chunk.attempt,
            "stream": chunk.stream,
            "data": chunk.data.decode(errors="replace"),
        }
        return Answer(documents=[document], blocks=[Raw(chunk.data, f"{chunk.attempt} {chunk.stream}")])

    def answers() -> Iterator[Answer]:
        if not found.attempt:
            yield Answer(notes=[f"run {short(found.id)} has not started yet"])
        shown = None
        for chunk in chunks:
            if shown is not None and chunk.attempt != shown:
                yield Answer(notes=[f"attempt {chunk.attempt}"])
            shown = chunk.attempt
            yield answer(chunk)

    return answers()


def result(run: OneRun) -> Answer:
    """Print what a succeeded run returned or printed; exit 1 where it has no result."""
    from hueyctl.app.output import read_result

    session = settings.session()
    shown, data = read_result(session, finding.find_run(session, run))
    blocks = [] if data is None else [Raw(data if data.endswith(b"\n") else data + b"\n")]
    return Answer(
        documents=[{"result": shown.result}],
        blocks=blocks,
        notes=[f"run {short(shown.id)} returned nothing"] if data is None else [],
    )


def wait(
    runs: Runs = None,
    patience: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="Wait no longer than that (exit 124).")
    ] = None,
) -> Iterator[Answer]:
    """Wait until runs have ended; exit 0 when all of them succeeded."""
    if not runs:
        raise UsageError("which run?", hint="an id, the first 4 or more of one, a job (its newest run), or last")
    session = settings.session()
    return _wait(session, finding.find_runs(session, runs), patience)


def _wait(session: Session, found: Sequence[Run], patience: str | None) -> Iterator[Answer]:
    from hueyctl.app.enqueue import warnings
    from hueyctl.cli.enqueue import going_on

    ids = [run.id for run in found]
    pending = [(run.queue, run.job) for run in found if not public(run, None).ended]
    if pending and not settings.as_json:
        yield Answer(notes=warnings(session, pending))
    documents, errors = [], []
    with going_on(ids):
        for run in wait_for(session, ids, timeout=timeout("timeout", patience)):
            failed = [] if run.succeeded else [failure(run)]
            documents.append(msgspec.to_builtins(run))
            errors += failed
            if not settings.as_json:
                yield Answer(blocks=[Line(f"{short(run.id)}  {run.job}  {run.state}")], errors=failed)
    if settings.as_json:
        yield Answer(documents=[{"runs": documents}], errors=errors)


def _logs_document(run: Run, attempt: int, chunks: Iterable[object]) -> list[Answer]:
    texts = {"stdout": b"", "stderr": b""}
    for chunk in chunks:
        texts[chunk.stream] += chunk.data  # type: ignore[attr-defined]
    streams = {name: data.decode(errors="replace") for name, data in texts.items()}
    return [Answer(documents=[{"logs": {"run": run.id, "attempt": attempt or None, **streams}}])]
