"""`hueyctl top`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
import typer

from hueyctl.app.overview import Overview
from hueyctl.app.session import Session
from hueyctl.app.top import Look, Throughput, looks
from hueyctl.cli.answer import Answer, Line, Table, View
from hueyctl.cli.options import timeout
from hueyctl.cli.overview import (
    next_up_table,
    overview_document,
    overview_notes,
    pauses_table,
    queues_table,
    running_table,
)
from hueyctl.cli.settings import settings
from hueyctl.cli.words import age, count, rate, short, took
from hueyctl.cli.worker import workers_table


def top(
    interval: Annotated[
        str, typer.Option(metavar="DURATION", help="Look again after that at the latest, though nothing has changed.")
    ] = "1s",
) -> View:
    """Watch workers, queues and runs in the terminal; q ends it.

    It is drawn anew when something happens, at most four times a second. Where stdout is no terminal, and with --json,
    it is shown once.
    """
    session, period = settings.store_session(), timeout("interval", interval)
    assert period is not None, "it was given, or is the default"
    return View(frames=lambda wake: _frames(session, period, wake))


def _frames(session: Session, interval: timedelta, wake: Sequence[int]) -> Generator[Answer]:
    with closing(looks(session, interval=interval, wake=wake)) as each:
        for look in each:
            yield _answer(look)


def _answer(look: Look) -> Answer:
    seen, now = look.overview, look.at
    tables = [
        workers_table(seen.workers, now, "workers"),
        queues_table(seen),
        running_table(seen, now),
        next_up_table(seen, now),
        _failures_table(seen, now),
        pauses_table(seen, now),
    ]
    return Answer(
        documents=[{"at": msgspec.to_builtins(now), **overview_document(seen), "throughput": _public(look.throughput)}],
        blocks=[Line(_summary(look)), *(table for table in tables if table.rows)],
        notes=overview_notes(seen),
    )


def _public(throughput: Throughput) -> dict[str, float]:
    found: dict[str, float] = msgspec.to_builtins(throughput)
    return found


def _summary(look: Look) -> str:
    lately = look.throughput
    pace = f" ({rate(lately.ended * 3600 / lately.seconds)})" if lately.ended else ""
    return f"{look.at:%H:%M:%S}Z  last minute: {count(lately.ended, 'run')} ended{pace}, {lately.failed} failed"


def _failures_table(seen: Overview, now: datetime) -> Table:
    rows = [
        (short(run.id), run.job, run.state.value, age(run.finished_at, now), took(run, now), run.reason or "")
        for run in seen.recent_failures
    ]
    return Table(("run", "job", "state", "ended", "took", "reason"), rows, "failures")
