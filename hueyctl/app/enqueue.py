"""Enqueue: one run or a batch, all or nothing, durable when it returns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from hueyctl.app.order import BatchLine, copy_of, from_line
from hueyctl.app.public import PublicRun, public_of
from hueyctl.app.session import Session
from hueyctl.app.workers import alive, unserved
from hueyctl.errors import NotFound, Refused, UsageError
from hueyctl.model.order import Order, new_ids, new_run
from hueyctl.model.run import LIVE, NewRun, Run
from hueyctl.model.wording import did_you_mean
from hueyctl.storage.store import Accepted

WRONG_MAX = 5  # lines that are named at once
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`")
_WRONG_TYPE = re.compile(r"[Ee]xpected `([^`]+)`, got `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "a boolean",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class Enqueued(msgspec.Struct, frozen=True):
    """The run that stands for an order; `existing`: it stood there before (the same id was given again, or one with
    its unique key is live)."""

    run: PublicRun
    existing: bool


def enqueue(session: Session, order: Order, *, now: datetime) -> Enqueued:
    """Accept one run, durably, and wake the workers. The store is made where there is none.

    Raises:
        NotFound: there is no such job or pipeline.
        UsageError: a parameter or an option is wrong.
        Refused: the id is taken by a run of another job or with other parameters.
        StoreError: the store can't be used; nothing was accepted.
    """
    accepted = _accept(session, [new_run(session.project, order, next(new_ids(1)))], now)[0]
    return Enqueued(public_of(session, accepted.run), accepted.existing)


def enqueue_lines(session: Session, lines: Iterable[bytes], *, now: datetime) -> list[Accepted]:
    """Accept one run per JSON line, all of them or none, in one transaction; blank lines are passed over.

    Raises:
        UsageError, NotFound: a line is wrong; the message names the first such lines, and the error is of the first.
        Refused, StoreError: as `enqueue`.
    """
    runs: list[NewRun] = []
    wrong: list[UsageError | NotFound] = []
    decode = msgspec.json.Decoder(BatchLine).decode
    project, numbered = session.project, [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for (number, line), id in zip(numbered, new_ids(len(numbered)), strict=True):
        try:
            order = from_line(decode(line), now=now, timezone=project.timezone)
            runs.append(new_run(project, order, id))
        except (UsageError, NotFound) as exc:
            wrong.append(type(exc)(f"line {number}: {exc.message}", hint=exc.hint))
        # RecursionError: nested deeper than the decoder's stack.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            wrong.append(UsageError(f"line {number}: {_said(exc)}", hint=_HINT))
        if len(wrong) == WRONG_MAX:
            break
    if wrong:
        said = [each.message for each in wrong] + ["there may be more"] * (len(wrong) == WRONG_MAX)
        raise type(wrong[0])("; ".join(said), hint=wrong[0].hint)
    return _accept(session, runs, now) if runs else []


def enqueue_again(session: Session, runs: Sequence[Run], *, now: datetime) -> list[PublicRun]:
    """Enqueue a copy of each of these ended runs, all or none.

    Raises:
        Refused: one of them has not ended.
        NotFound, UsageError: its job is no longer defined, or its parameters no longer fit.
    """
    for run in runs:
        if run.state in LIVE:
            raise Refused(f"run {run.id[:8]} is {run.state}: only an ended run can be enqueued again")
        if run.position is not None:
            whole = (run.pipeline or "")[:8]
            message = f"run {run.id[:8]} is a step of pipeline {whole}: alone it would miss its input"
            raise Refused(message, hint=f"`hueyctl retry --again {whole}` enqueues a copy of the whole")
    copies = [copy_of(session.project, run, id) for run, id in zip(runs, new_ids(len(runs)), strict=True)]
    return [public_of(session, accepted.run) for accepted in _accept(session, copies, now)]


def warnings(session: Session, runs: Iterable[Run | PublicRun]) -> list[str]:
    """Why no live worker will run some of these as it is now, one line for each reason; of a pipeline, its steps."""
    store = session.creator()
    workers, pauses = alive(session, store), store.pauses()
    lines: dict[str, None] = {}
    # Runs of one job and queue are alike, and there may be a hundred thousand of them.
    for run in {(run.queue, run.job, run.is_pipeline): run for run in runs}.values():
        steps = [each.run for each in store.steps(run.id) if each.run.state in LIVE] if run.is_pipeline else [run]
        lines |= dict.fromkeys(line for step in steps if (line := unserved(workers, step.queue, step.job)))
        if pauses:
            from hueyctl.app.why import paused  # seldom needed

            lines |= dict.fromkeys(line for step in steps for line in paused(pauses, step.queue, step.job))
    return list(lines)


def _accept(session: Session, runs: Sequence[NewRun], now: datetime) -> list[Accepted]:
    accepted = session.creator().accept(runs, by=session.by, now=now)
    session.ring()
    return accepted


def _said(exc: Exception) -> str:
    text = str(exc)
    if field := _UNKNOWN_FIELD.search(text):
        return f'there is no key "{field[1]}"{did_you_mean(field[1], BatchLine.__struct_fields__)}'
    if wrong := _WRONG_TYPE.search(text):
        kinds = [kind for kind in wrong[1].split(" | ") if kind != "null"]
        expected = " or ".join(_KINDS.get(kind, kind) for kind in kinds)
        return f"{f'{wrong[3]}: ' if wrong[3] else ''}expected {expected}, got {_KINDS.get(wrong[2], wrong[2])}"
    if "missing required field `job`" in text:
        return 'it names no "job"'
    if isinstance(exc, msgspec.ValidationError):
        return text[0].lower() + text[1:]
    return f"it is not JSON: {text}"


_HINT = 'each line is an object like {"job": "fetch", "params": {"url": "…"}, "priority": 5}'
