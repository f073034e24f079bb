"""`hueyctl enqueue`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hueyctl.app.clock import utc_now
from hueyctl.app.enqueue import Enqueued, enqueue_lines, warnings
from hueyctl.app.enqueue import enqueue as enqueue_one
from hueyctl.app.order import due, duration
from hueyctl.app.public import PublicRun, public_of, public_run
from hueyctl.app.session import Session
from hueyctl.app.wait import failure
from hueyctl.app.wait import wait as wait_for
from hueyctl.cli.answer import Answer, Line, Lines
from hueyctl.cli.options import named_as_options
from hueyctl.cli.settings import settings
from hueyctl.errors import HueyctlError, Interrupted, UsageError, WaitTimeout
from hueyctl.model.definition import Job, Pipeline
from hueyctl.model.order import Order, defined
from hueyctl.model.params import from_text, taken_by
from hueyctl.model.run import Run
from hueyctl.model.wording import quoted


def enqueue(
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A job or pipeline of jobs.toml.")] = None,
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="[param=value]...", help="param=@FILE reads it from a file (@-: stdin, @@: a plain @)."),
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Higher runs first.")] = None,
    delay: Annotated[str | None, typer.Option(metavar="DURATION", help="Not before it has passed: 5m.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before: 14:30, tomorrow, 2026-03-29T14:30.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="QUEUE", help="Instead of the job's own (of each step's).")
    ] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="Instead of the job's own.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="Instead of the job's own.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Don't start later than that.")] = None,
    id: Annotated[str | None, typer.Option(metavar="UUID", help="Name it: giving it again does nothing twice.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")] = False,
    wait_timeout: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait no longer than that (exit 124).")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='One JSON object a line, like {"job": "fetch", "params": {}}; -: stdin.'),
    ] = None,
) -> Iterator[Answer]:
    """Enqueue a job or a pipeline, and print the run's id. Or a batch of them, all or none."""
    options = {
        "priority": priority,
        "delay": delay,
        "at": at,
        "queue": queue,
        "retries": retries,
        "timeout": timeout,
        "expires": expires,
        "id": id,
    }
    given = [option for option, value in options.items() if value is not None]
    patience = duration("--wait-timeout", wait_timeout)
    waiting = wait or patience is not None
    session = settings.session()
    if batch is not None:
        if name is not None or given:
            raise UsageError(f"--batch goes without {'a job' if name is not None else '--' + given[0]}")
        return _batch(session, batch, waiting, patience)
    if name is None:
        raise UsageError("which job? expected its name, or --batch FILE", hint="`hueyctl jobs` lists them")
    now = utc_now()
    with named_as_options(options, job=name):
        order = Order(
            job=name,
            params=parse_params(defined(session.project, name), params or ()),
            priority=priority,
            queue=queue,
            due_at=due(delay, at, now=now, timezone=session.project.timezone),
            retries=retries,
            timeout=duration("timeout", timeout),
            expires=duration("expires", expires),
            id=id,
        )
        accepted = enqueue_one(session, order, now=now)
    return _one(session, accepted, waiting, patience, passed=at if order.due_at == now else None)


def parse_params(definition: Job | Pipeline, words: Sequence[str]) -> Mapping[str, object]:
    """The parameters that `param=value` words mean for this job or pipeline; unknown names are left for the definition
    to refuse.

    Raises:
        UsageError: a word is no `param=value`, names one twice, or its value doesn't fit.
    """
    values: dict[str, object] = {}
    problems = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError(
                f"expected param=value, got {quoted(word)}", hint=taken_by(definition.name, definition.params)
            )
        if name in values:
            raise UsageError(f"parameter {quoted(name)} is given twice")
        param = definition.param(name)
        if text.startswith("@"):
            text = _from_file(name, text[1:])
            text = text if param is None or param.type == "string" else text.strip()
        try:
            values[name] = text if param is None else from_text(param, text)
        except UsageError as exc:
            values[name] = text
            problems.append(exc.message)
    if problems:
        raise UsageError(f"{definition.name}: {'; '.join(problems)}")
    return values


def _from_file(name: str, path: str) -> str:
    if path.startswith("@"):
        return path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode()
    except OSError as exc:
        raise UsageError(f"parameter {quoted(name)}: {quoted(path)} can't be read: {exc.strerror}") from exc
    except (UnicodeDecodeError, ValueError) as exc:
        raise UsageError(f"parameter {quoted(name)}: {quoted(path)} is not valid UTF-8 text") from exc


def _one(
    session: Session, enqueued: Enqueued, waiting: bool, patience: timedelta | None, *, passed: str | None
) -> Iterator[Answer]:
    """`passed`: the time that was asked for, where that is over."""
    run = enqueued.run
    existing = {"existing": True} if enqueued.existing else {}
    if not waiting:
        yield Answer(documents=[{"run": msgspec.to_builtins(run), **existing}], blocks=[Line(run.id)])
    else:
        yield Answer(blocks=[Line(run.id)])
    if enqueued.existing:
        yield Answer(notes=[f"run {run.id[:8]} was there already ({run.state}): nothing was added"])
    if passed is not None:
        yield Answer(notes=[f"{passed} has passed: it is due now"])
    if not run.ended:
        yield from _warned(session, [run], waiting)
    if waiting:
        (shown,), errors = await_ends(session, [run.id], patience)
        yield Answer(documents=[{"run": msgspec.to_builtins(shown), **existing}], errors=errors)


def _batch(session: Session, path: str, waiting: bool, patience: timedelta | None) -> Iterator[Answer]:
    accepted = enqueue_lines(session, _read_lines(path), now=utc_now())
    ids = [each.run.id for each in accepted]
    if settings.as_json and not waiting:
        runs = []
        for each in accepted:
            existing = {"existing": True} if each.existing else {}
            runs.append({**public_run(each.run, session.job(each.run.job)), **existing})
        yield Answer(documents=[{"runs": runs}])
        return
    yield Answer(blocks=[Lines(ids)])
    if before := sum(each.existing for each in accepted):
        yield Answer(notes=[f"{before} of {len(accepted)} were there already: nothing was added for them"])
    yield from _warned(session, [each.run for each in accepted], waiting)
    if waiting:
        shown, errors = await_ends(session, ids, patience)
        yield Answer(documents=[{"runs": msgspec.to_builtins(shown)}], errors=errors)


def _warned(session: Session, runs: Sequence[Run | PublicRun], waiting: bool) -> Iterator[Answer]:
    if settings.as_json:
        return
    with going_on([run.id for run in runs]) if waiting else nullcontext():  # a wait begins with its first word
        notes = warnings(session, runs)
    yield Answer(notes=notes)


def _read_lines(path: str) -> list[bytes]:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise UsageError(f"--batch: {quoted(path)} can't be read: {reason}") from exc
    return data.split(b"\n")


def await_ends(
    session: Session, ids: Sequence[str], patience: timedelta | None
) -> tuple[list[PublicRun], list[HueyctlError]]:
    """These runs when all have ended, or as they stand when the wait is over before; and what is to be said of them."""
    shown: list[PublicRun] = []
    errors: list[HueyctlError] = []
    try:
        with going_on(ids):
            for ended in wait_for(session, ids, timeout=patience):
                shown.append(ended)
                errors += [] if ended.succeeded else [failure(session, ended)]
    except (WaitTimeout, Interrupted) as exc:
        # Whoever asked for JSON has the ids from here alone.
        rest = map(session.reader().get, ids[len(shown) :])
        return [*shown, *(public_of(session, run) for run in rest if run)], [exc, *errors]
    return shown, errors


@contextmanager
def going_on(ids: Sequence[str]) -> Iterator[None]:
    """Let Ctrl-C end a wait for these runs, and say that they go on."""
    try:
        yield
    except KeyboardInterrupt:
        what = f"run {ids[0][:8]} goes on" if len(ids) == 1 else f"the {len(ids)} runs go on"
        raise Interrupted(f"no longer waiting; {what}", hint=f"hueyctl wait {ids[0][:8]}") from None
