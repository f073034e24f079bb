"""`hueyctl runs`, `logs`, `result` and `wait`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from hueyctl.app import finding
from hueyctl.app.clock import utc_now
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.wait import failure
from hueyctl.app.wait import wait as wait_for
from hueyctl.cli.answer import Answer, Line, Raw, Table
from hueyctl.cli.options import JobName, Limit, OneRun, Runs, Since, States, Until, instant, timeout
from hueyctl.cli.settings import settings, stdout_fd
from hueyctl.cli.words import age, short, took
from hueyctl.errors import UsageError
from hueyctl.model.handover import is_text
from hueyctl.model.run import TERMINAL, Run
from hueyctl.storage.store import RunFilter

if TYPE_CHECKING:
    from hueyctl.app.output import Chunk


def runs(
    *,
    state: States = None,
    job: JobName = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Of this queue.")] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", metavar="SCHEDULE", help="Of this schedule.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="RUN", help="This run of a pipeline, and its steps; also by one of them.")
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
) -> Answer:
    """List runs, the newest first."""
    session, now = settings.store_session(), utc_now()
    where = RunFilter(
        states=finding.parse_states(state),
        job=finding.known_job(session, job),
        queue=finding.known_queue(session, queue),
        schedule=finding.known_schedule(session, schedule),
        pipeline=None if pipeline is None else finding.find_pipeline(session, pipeline).id,
        since=instant("since", since, now),
        until=instant("until", until, now),
    )
    found = session.reader().runs(where, limit=limit + 1)
    more = len(found) > limit
    shown = [public_of(session, run) for run in found[:limit]]
    notes = [] if shown else ["no runs"]
    return Answer(
        documents=[{"runs": msgspec.to_builtins(shown), **({"more": True} if more else {})}],
        blocks=[runs_table(shown, now)] if shown else [],
        notes=[f"there are more: --limit {limit * 2}"] if more else notes,
    )


def runs_table(runs: Sequence[PublicRun], now: datetime, title: str | None = None) -> Table:
    """Runs, one a line; where some belong to pipelines, each with that of its pipeline."""
    pipelines = any(run.pipeline for run in runs)
    rows = [
        (
            short(run.id),
            *((short(run.pipeline),) if pipelines else ()),
            run.job,
            run.state.value,
            "" if run.is_pipeline else run.queue,
            "" if run.is_pipeline else str(run.priority),
            "" if run.is_pipeline else str(run.attempt),
            age(run.enqueued_at, now),
            took(run, now),
            run.reason or "",
        )
        for run in runs
    ]
    columns = ("job", "state", "queue", "priority", "attempt", "enqueued", "took", "reason")
    return Table(("run", *(("pipeline",) if pipelines else ()), *columns), rows, title)


def logs(
    *,
    run: OneRun,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until it ends.")] = False,
    attempt: Annotated[int | None, typer.Option(metavar="N", help="Of this attempt instead of the newest.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", min=0, help="The last lines of each stream alone.")
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Its standard output alone.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Its standard error alone.")] = False,
) -> Iterable[Answer]:
    """Show what a run printed; with --follow as it comes. First its output, then its errors; into a pipe as it was.

    Of a pipeline, what its steps printed, one after the other in their order.
    """
    from hueyctl.app.elsewhere import host_of
    from hueyctl.app.output import BOTH, Stream, follow_logs, read_logs

    session = settings.store_session()
    found = finding.find_run(session, run)
    streams: tuple[Stream, ...] = BOTH if stdout == stderr else (("stdout",) if stdout else ("stderr",))

    def chunks(of: Run) -> Iterator[Chunk]:
        if follow:
            return follow_logs(session, of, attempt=attempt, streams=streams, last=limit, output=stdout_fd())
        return read_logs(session, of, attempt=attempt, streams=streams, last=limit)

    if found.is_pipeline and attempt is not None:
        raise UsageError(
            "--attempt goes with one run", hint=f"`hueyctl graph {short(found.id)}` lists those of the steps"
        )
    steps = [each.run for each in session.reader().steps(found.id)]
    if settings.as_json and not follow:
        each = [_logs_document(of, attempt or of.attempt, chunks(of)) for of in steps or [found]]
        return [Answer(documents=[{"logs": {"run": found.id, "steps": each} if found.is_pipeline else each[0]}])]

    def answers(of: Run) -> Iterator[Answer]:
        """What one run, or one step, has printed."""
        if not of.attempt:
            never = f"never started: it is {of.state}" if of.state in TERMINAL else "has not started yet"
            yield Answer(notes=[f"run {short(of.id)} {never}"])
        elsewhere = host_of(session, of)
        if elsewhere is not None:
            worker = f"worker {of.worker} on {elsewhere}"
            yield Answer(notes=[f"run {short(of.id)} is with {worker}: until it ends, its output is there alone"])
        shown = None
        for chunk in chunks(of):
            if shown is not None and chunk.attempt != shown:
                yield Answer(notes=[f"attempt {chunk.attempt}"])
            shown = chunk.attempt
            document = {
                "run": of.id,
                "attempt": chunk.attempt,
                "stream": chunk.stream,
                "data": chunk.data.decode(errors="replace"),
            }
            yield Answer(documents=[document], blocks=[Raw(chunk.data, f"{of.id} {chunk.attempt} {chunk.stream}")])
        yield Answer(notes=_last_words(session, of, shown))

    def of_each() -> Iterator[Answer]:
        for number, step in enumerate(steps, 1):
            # Looked at again: by the time that those before it have been followed, it may have started or ended.
            now = session.reader().get(step.id) or step
            yield Answer(notes=[f"step {number} ({now.job}), run {short(now.id)}: {now.state}"])
            if now.attempt or (follow and now.state not in TERMINAL):
                yield from answers(now)

    return of_each() if found.is_pipeline else answers(found)


def _last_words(session: Session, run: Run, shown: int | None) -> list[str]:
    """What the output can't say, of which that of attempt `shown` came last: that some of it is lost, what was left
    running, or that there is none, and how it stands with the run."""
    from hueyctl.app.output import remarks_of

    if shown is not None:
        return [f"attempt {shown}: {remark}" for remark in remarks_of(session, run, shown)]
    if not run.attempt:
        return []
    now = public_of(session, session.reader().get(run.id) or run)
    reason = f": {now.reason}" if now.reason else ""
    return [f"run {short(run.id)} has printed nothing; it is {now.state}{reason}"]


def result(run: OneRun) -> Answer:
    """Print what a succeeded run returned or printed. Exit 1 where it has no result."""
    from hueyctl.app.output import read_result

    session = settings.store_session()
    shown, data = read_result(session, finding.find_run(session, run))
    # A result is kept without its last newline; what is no text never had one.
    end = b"" if data is None or data.endswith(b"\n") or not is_text(data) else b"\n"
    blocks = [] if data is None else [Raw(data + end)]
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
    """Wait until runs have ended. Exit 0 when all of them succeeded."""
    if not runs:
        raise UsageError("which run?", hint="an id, the first 4 or more of one, a job (its newest run), or last")
    session = settings.store_session()
    return _wait(session, finding.find_runs(session, runs), patience)


def _wait(session: Session, found: Sequence[Run], patience: str | None) -> Iterator[Answer]:
    from hueyctl.app.enqueue import warnings
    from hueyctl.cli.enqueue import await_ends, going_on

    ids, limit = [run.id for run in found], timeout("timeout", patience)
    if settings.as_json:
        shown, errors = await_ends(session, ids, limit)
        yield Answer(documents=[{"runs": msgspec.to_builtins(shown)}], errors=errors)
        return
    if pending := [run for run in found if run.state not in TERMINAL]:
        yield Answer(notes=warnings(session, pending))
    with going_on(ids):
        for run in wait_for(session, ids, timeout=limit):
            failed = [] if run.succeeded else [failure(session, run)]
            yield Answer(blocks=[Line(f"{short(run.id)}  {run.job}  {run.state}")], errors=failed)


def _logs_document(run: Run, attempt: int, chunks: Iterable[Chunk]) -> dict[str, object]:
    texts = {"stdout": b"", "stderr": b""}
    for chunk in chunks:
        texts[chunk.stream] += chunk.data
    streams = {name: data.decode(errors="replace") for name, data in texts.items()}
    return {"run": run.id, "attempt": attempt or None, **streams}
